"""Tiles go to the device and results come back in order, while the network runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda, fake_cuda
from hypothesis import given
from hypothesis import strategies as st

from bigunet.models.transfers import CudaTransfers, Results, Transfers


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return fake_cuda(monkeypatch)


def numbered_tiles(count: int, dtype: type = np.uint8) -> Iterator[np.ndarray]:
    return (np.full((2, 3, 4), n, dtype) for n in range(count))


def summed(transfers: Transfers, batch: torch.Tensor, part: int) -> Iterable[Results]:
    """Add up the pixels of each tile, in parts."""
    for some in batch.split(part):
        sent = transfers.send(some)
        yield transfers.fetch([sent, sent.float().sum((1, 2, 3))])


@pytest.mark.parametrize("kind", [Transfers, CudaTransfers])
@given(count=st.integers(0, 12), size=st.integers(1, 5), part=st.integers(1, 5))
def test_every_tile_has_its_result_in_order(
    kind: type[Transfers], count: int, size: int, part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fake_cuda(patch)
        transfers = kind("cpu")
        results = transfers.stream(
            numbered_tiles(count), size, lambda batch: list(summed(transfers, batch, part))
        )
        found = list(results)
    assert [total for _, total in found] == [24 * n for n in range(count)]
    assert [int(tile[0, 0, 0]) for tile, _ in found] == list(range(count))


@pytest.mark.parametrize(
    ("dtype", "sent"), [("uint8", "uint8"), ("uint16", "float32"), (">i2", "float32")]
)
@pytest.mark.parametrize("kind", [Transfers, CudaTransfers])
def test_pixels_travel_in_their_own_type_where_torch_can_cast_it(
    cuda: FakeCuda, kind: type[Transfers], dtype: str, sent: str
) -> None:
    transfers = kind("cpu")
    results = transfers.stream(
        numbered_tiles(3, np.dtype(dtype)), 2, lambda batch: list(summed(transfers, batch, 2))
    )
    assert {(tile.dtype.name, int(tile[0, 0, 0])) for tile, _ in results} == {
        (sent, n) for n in range(3)
    }


def test_all_batches_have_one_size_and_what_fills_them_up_is_zero(cuda: FakeCuda) -> None:
    seen = []

    def run(batch: torch.Tensor) -> list[Results]:
        seen.append(batch.clone())
        return [transfers.fetch([transfers.send(batch)])]

    transfers = CudaTransfers("cuda")
    assert len(list(transfers.stream(numbered_tiles(5), 4, run))) == 5
    assert [len(batch) for batch in seen] == [4, 4] and not seen[1][1:].any()


def test_copies_wait_for_what_they_need_and_for_nothing_else(cuda: FakeCuda) -> None:
    """The next batch may be on its way in, and the last on its way out, while one computes."""
    transfers = CudaTransfers("cuda")

    def run(batch: torch.Tensor) -> list[Results]:
        sent = transfers.send(batch)
        cuda.does("ran")
        return [transfers.fetch([sent + 1])]

    results = transfers.stream(numbered_tiles(12), 3, run)
    for tile, _ in enumerate(results):
        number = tile // 3
        assert ("fetched", number) in cuda.host, "read before it came"
        assert ("fetched", number + 1) not in cuda.host, "waited for more than is needed"
        assert cuda.count("sent") == min(number + 2, 4), "two batches are in flight"
    for number in range(4):
        assert ("sent", number) in cuda.knew["ran", number]
        assert ("ran", number) in cuda.knew["fetched", number]
        assert not any(kind == "ran" for kind, _ in cuda.knew["sent", number])
        assert ("fetched", number - 1) not in cuda.knew["ran", number]


def test_memory_is_kept_for_the_stream_that_reads_it(cuda: FakeCuda) -> None:
    transfers = CudaTransfers("cuda")
    (results,) = summed(transfers, torch.zeros(2, 1, 2, 2), 2)
    assert cuda.kept[0] is cuda.computing
    assert cuda.kept[1:] == [transfers._outward] * 2
    assert len(list(results)) == 2
