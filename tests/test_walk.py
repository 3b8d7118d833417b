"""Objects visited block by block, compared with those of the whole plane."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from bigunet.cluster import open_executor
from bigunet.errors import InputError, RunError
from bigunet.images.open import Plane
from bigunet.instances.whole import WholeObject
from bigunet.walk import LargeObject, block_sides, walk_objects

Found = tuple[int, tuple[int, ...], tuple[int, int], tuple[int, int], bytes]


@dataclass(frozen=True)
class Everything:
    """Says all that is known of an object, whether it came in one piece or in several."""

    def visit(
        self, plane: tuple[int, ...], window: tuple[slice, slice], objects: Iterable[WholeObject]
    ) -> Iterator[Found]:
        for one in objects:
            for box, span in zip(one.window, window, strict=True):
                assert span.start <= box.start < box.stop <= span.stop
            assert one.plane == plane
            yield one.id, plane, one.first, one.low, _packed(one.mask)

    def visit_large(self, large: LargeObject) -> Found:
        mask = np.zeros(large.shape, dtype=bool)
        for piece in large.pieces():
            assert piece.mask.any() and piece.first == large.first and piece.id == large.id
            y, x = (span.start - low for span, low in zip(piece.window, large.low, strict=True))
            mask[y : y + piece.mask.shape[0], x : x + piece.mask.shape[1]] |= piece.mask
        assert mask.sum() == large.area
        return large.id, large.plane, large.first, large.low, _packed(mask)


class Fails(Everything):
    def visit(self, *_: Any) -> Iterator[Found]:
        raise ValueError("no such thing")


def _packed(mask: np.ndarray) -> bytes:
    return repr(mask.shape).encode() + mask.tobytes()


def store(folder: Path, labels: np.ndarray, chunk: int = 8) -> tuple[Plane, ...]:
    """Store labels (…, Y, X) as one array, and list its planes."""
    chunks = (*(1 for _ in labels.shape[:-2]), chunk, chunk)
    zarr.create_array(folder / "0", data=labels, chunks=chunks, overwrite=True)
    return tuple(
        Plane(
            store=str(folder),
            key="0",
            zarr_format=3,
            axes="tzyx"[4 - labels.ndim :],
            channels=(0,),
            index=index,
            shape=(1, *labels.shape[-2:]),
            dtype=labels.dtype,
            chunks=(chunk, chunk),
            decoded=(chunk, chunk),
            layers=1,
        )
        for index in np.ndindex(labels.shape[:-2])
    )


def expected(labels: np.ndarray) -> list[Found]:
    """Return all objects in order, by brute force."""
    found: list[Found] = []
    for index in np.ndindex(labels.shape[:-2]):
        here = []
        for number in set(labels[index].ravel().tolist()) - {0}:
            pixels = np.argwhere(labels[index] == number)
            low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
            mask = (labels[index] == number)[low[0] : high[0], low[1] : high[1]]
            y, x = pixels[0].tolist()
            top, left = low.tolist()
            here.append((number, index, (y, x), (top, left), _packed(mask)))
        found += sorted(here, key=lambda one: one[2])
    return found


def walked(planes: tuple[Plane, ...], scheduler: str = "sync", **options: Any) -> list[Found]:
    workers = options.pop("workers", None)
    with open_executor(scheduler, workers) as executor:
        lists = walk_objects(planes, Everything(), executor, **options)
        return [one for some in lists for one in some]


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """Draw labels of boxes over boxes: ids in several pieces, far apart, at all faces."""
    shape = draw(st.sampled_from([(1,), (2,), (2, 2), ()])) + tuple(
        draw(st.lists(st.integers(1, 30), min_size=2, max_size=2))
    )
    labels = np.zeros(shape, dtype=draw(st.sampled_from(["uint8", "int32", "uint64"])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 25))):
        index = tuple(rng.integers(0, n) for n in shape[:-2])
        y, x = (rng.integers(0, n) for n in shape[-2:])
        h, w = rng.integers(1, rng.choice([3, 8, 30]), 2)
        labels[(*index, slice(y, y + h), slice(x, x + w))] = rng.integers(0, 12)
    return labels


@given(
    labels=blobs(),
    block=st.tuples(st.integers(5, 31), st.integers(5, 31)),
    largest=st.sampled_from([1, 7, 100, 2**24]),
)
def test_objects_are_those_of_the_whole_plane_in_raster_order(
    tmp_path_factory: pytest.TempPathFactory,
    labels: np.ndarray,
    block: tuple[int, int],
    largest: int,
) -> None:
    planes = store(tmp_path_factory.getbasetemp() / "walk", labels)
    assert walked(planes, block=block, largest_box=largest) == expected(labels)


def test_an_id_whose_pieces_touch_no_face_is_one_object(tmp_path: Path) -> None:
    labels = np.zeros((24, 24), dtype=np.uint16)
    for y, x in [(3, 4), (3, 20), (20, 12)]:
        labels[y, x] = 5
    labels[11, 11] = 9
    assert walked(store(tmp_path, labels), block=(8, 8)) == expected(labels)
    assert len(expected(labels)) == 2


@pytest.mark.parametrize(
    ("scheduler", "workers"), [("threads", 1), ("threads", 4), ("processes", 2)]
)
def test_workers_do_not_matter(tmp_path: Path, scheduler: str, workers: int) -> None:
    labels = np.random.default_rng(0).integers(0, 90, (2, 30, 40)).astype(np.uint32)
    labels[np.random.default_rng(1).random(labels.shape) < 0.8] = 0
    planes = store(tmp_path, labels)
    assert walked(planes, scheduler, workers=workers, block=(16, 16)) == expected(labels)


def test_progress_ends_with_all_pixels(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    planes = store(tmp_path, np.ones((2, 33, 20), dtype=np.uint8))
    walked(planes, block=(8, 8), progress=lambda *step: told.append(step))
    assert told[-1] == (2 * 33 * 20, 2 * 33 * 20) and told == sorted(told) and len(told) > 1


def test_blocks_are_whole_chunks_of_bounded_size() -> None:
    assert block_sides((512, 1024), (10_000, 10_000)) == (2048, 2048)
    assert block_sides((300, 3000), (10_000, 10_000)) == (1800, 3000)
    assert block_sides((9000, 1), (9000, 10_000)) == (4096, 2048)
    assert block_sides((512, 512), (100, 700)) == (100, 700)


def test_what_cannot_be_walked_is_one_line(tmp_path: Path) -> None:
    labels = np.ones((20, 20), dtype=np.int16)
    labels[17, 3] = -1
    with pytest.raises(
        RunError, match=r"id -1 at row 17, column 3 is negative.*rows 16:20, columns 0:8"
    ):
        walked(store(tmp_path, labels), block=(8, 8))
    with pytest.raises(InputError, match="float32 has no objects"):
        walked(store(tmp_path, labels.astype(np.float32)))
    planes = store(tmp_path, abs(labels))
    with open_executor("sync") as executor, pytest.raises(RunError) as failed:
        list(walk_objects(planes, Fails(), executor, block=(10, 20)))
    assert str(failed.value).endswith("failed: ValueError: no such thing (rows 0:10, columns 0:20)")
    (tmp_path / "0" / "c" / "1" / "1").write_bytes(b"broken")
    with pytest.raises(RunError, match="cannot read chunk"):
        walked(planes, block=(8, 8))
