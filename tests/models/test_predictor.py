"""What a forward pass gives, and what it leaves behind."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dask.base import tokenize
from fake_cuda import fake_cuda
from strategies import assert_same_scores, random_image, random_model, tolerance

from bigunet import UNet
from bigunet.errors import DeviceMemoryError
from bigunet.images.intensity import Limits
from bigunet.models import predictor as module
from bigunet.models.predictor import Predictor, torch_threads_kept


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64, np.float16, np.float64]
)
def test_pixels_of_any_type_are_the_same_numbers_to_the_network(dtype: type) -> None:
    predictor = Predictor.of(random_model(2), device="cpu")
    pixels = random_image((1, 60, 60), np.uint8) // 2
    expected = predictor.scores(pixels.astype(np.float32), None)
    assert torch.equal(predictor.scores(pixels.astype(dtype), None), expected)
    swapped = pixels.astype(dtype).astype(np.dtype(dtype).newbyteorder(">"))
    swapped.flags.writeable = False
    assert torch.equal(predictor.scores(swapped, None), expected)


def test_one_network_per_process_and_digest() -> None:
    model = random_model(2)
    one, two = Predictor.of(model, device="cpu"), Predictor.of(model, device="cpu")
    assert one.digest == two.digest and one._network() is two._network()
    other = Predictor.of(random_model(2, seed=3), device="cpu")
    assert other._network() is not one._network()
    assert len(module._networks) <= module._NETWORKS_KEPT


def test_one_forward_pass_at_a_time() -> None:
    """Memory does not grow with the number of tasks."""
    predictor = Predictor.of(random_model(2), device="cpu")
    inside, most = 0, 0

    def enter(*_: object) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)

    def leave(*_: object) -> None:
        nonlocal inside
        inside -= 1

    network = predictor._network().module
    hooks = [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]
    pixels = random_image((1, 300, 300), np.uint8)
    threads = [threading.Thread(target=predictor.scores, args=(pixels, None)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for hook in hooks:
        hook.remove()
    assert most == 1


def test_the_number_of_threads_is_that_of_the_plan_and_given_back() -> None:
    before = torch.get_num_threads()
    with torch_threads_kept():
        Predictor.of(random_model(2), device="cpu", threads=before + 1).scores(
            random_image((1, 60, 60), np.uint8), None
        )
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_copies_that_arrive_share_the_network_that_is_here() -> None:
    one = Predictor.of(random_model(2), device="cpu")
    again = pickle.loads(pickle.dumps(one))
    assert again.model is one.model is Predictor.of(random_model(2), device="cpu").model
    assert torch.equal(next(again.model.parameters()), next(one.model.parameters()))


def test_a_network_goes_to_its_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch)
    one = on_fake_cuda(random_model(2))
    again = pickle.loads(pickle.dumps(one))
    assert one._network() is again._network() is not one.model


def test_another_batch_is_another_computation() -> None:
    one = Predictor.of(random_model(2), device="cpu")
    assert tokenize(one) == tokenize(replace(one)) != tokenize(replace(one, batch=2))


@pytest.mark.parametrize("augment", ["none", "d4"])
@pytest.mark.parametrize("limits", [None, ((2.0, 200.0),)])
def test_batches_on_cuda_give_what_single_tiles_give(
    monkeypatch: pytest.MonkeyPatch, augment: str, limits: Limits | None
) -> None:
    fake_cuda(monkeypatch)
    model = random_model(2, classes=3)
    tiles = [random_image((1, 60, 76), np.uint8, seed) for seed in range(7)]
    predictor = on_fake_cuda(model, augment=augment, batch=3)
    shapes = []
    predictor._network().module.register_forward_pre_hook(
        lambda _, given: shapes.append(given[0].shape)
    )
    found = list(predictor.outputs(tiles, limits, as_they_are))
    assert {shape[0] for shape in shapes} == {3}, "also the last, with one tile"
    alone = Predictor.of(model, device="cpu", augment=augment)
    for tile, (scores,) in zip(tiles, found, strict=True):
        expected = alone.scores(tile, limits).numpy()
        assert_same_scores(scores, expected, 2 * tolerance(expected))


def test_a_full_device_halves_the_batch_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = fake_cuda(monkeypatch)
    predictor = on_fake_cuda(random_model(2), batch=8)
    tiles = [random_image((1, 60, 60), np.uint8, seed) for seed in range(10)]
    expected = [scores for (scores,) in predictor.outputs(tiles, None, as_they_are)]
    sizes = full_above(2, predictor)
    for _ in range(2):
        found = [scores for (scores,) in predictor.outputs(tiles, None, as_they_are)]
        for one, other in zip(found, expected, strict=True):
            assert_same_scores(one, other)
    assert sizes == [8, 4, *[2] * 16] and cuda.emptied == 2
    assert predictor.fitting_batch == replace(predictor).fitting_batch == 2
    assert replace(predictor, batch=4).fitting_batch == 4


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_tile_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    fake_cuda(monkeypatch)
    predictor = on_fake_cuda(random_model(2, seed=77), batch=2, device=device)
    full_above(0, predictor)
    tile = random_image((1, 60, 76), np.uint8)
    said = rf"a tile of 60 × 76 px, margins included, does not fit the memory of {device}"
    with pytest.raises(DeviceMemoryError, match=said) as raised:
        predictor.scores(tile, None)
    assert raised.value.permanent, "nobody tries again"
    with pytest.raises(DeviceMemoryError, match=said):
        list(predictor.outputs([tile], None, as_they_are))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("could not create a primitive"),
        RuntimeError("Check 'ptr' failed: Failed to allocate 69840192 bytes of memory"),
        MemoryError("std::bad_alloc"),
    ],
)
def test_a_full_memory_is_known_by_what_is_said(error: Exception) -> None:
    assert module._out_of_memory(error)


def test_other_failures_are_not_taken_for_it() -> None:
    for said in (
        "expected 4 channels",
        "could not create a primitive descriptor for a convolution",
    ):
        assert not module._out_of_memory(RuntimeError(said))


def test_other_errors_are_raised_as_they_are() -> None:
    predictor = Predictor.of(random_model(2), device="cpu")
    with pytest.raises(RuntimeError, match="channels"):
        predictor.scores(np.zeros((3, 60, 60), np.uint8), None)
    with pytest.raises(RuntimeError, match="channels"):
        list(predictor.outputs([np.zeros((3, 60, 60), np.uint8)], None, as_they_are))


def test_a_thread_makes_ready_while_another_predicts() -> None:
    """Only the pass is one at a time: neither are tiles cut nor results copied in the lock."""
    predictor = Predictor.of(random_model(2), device="cpu")
    inside, prepared = threading.Event(), threading.Event()

    def until_prepared(*_: object) -> None:
        inside.set()
        assert prepared.wait(30), "the other thread waits for this one"

    def prepare() -> Iterator[np.ndarray]:
        assert inside.wait(30)
        prepared.set()
        yield random_image((1, 60, 60), np.uint8, 1)

    hook = predictor._network().module.register_forward_pre_hook(until_prepared)
    tiles = [random_image((1, 60, 60), np.uint8)]
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(lambda: list(predictor.outputs(tiles, None, as_they_are)))
        two = pool.submit(lambda: list(predictor.outputs(prepare(), None, as_they_are)))
        assert len(one.result()) == len(two.result()) == 1
    hook.remove()
    for _ in predictor.outputs(tiles, None, as_they_are):
        assert not module._forward_lock.locked()


def as_they_are(scores: torch.Tensor) -> list[torch.Tensor]:
    return [scores]


def on_fake_cuda(model: UNet, *, device: str = "cuda", **options: Any) -> Predictor:
    """Return a predictor of a GPU that `fake_cuda` has put here."""
    return replace(Predictor.of(model, device="cpu", runtime="eager", **options), device=device)


def full_above(tiles: int, predictor: Predictor) -> list[int]:
    """Let the device be full for passes of more tiles; returns the sizes of all that are tried."""
    sizes = []

    def allocate(_: object, given: tuple[torch.Tensor]) -> None:
        sizes.append(len(given[0]))
        if len(given[0]) > tiles:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    predictor._network().module.register_forward_pre_hook(allocate)
    return sizes
