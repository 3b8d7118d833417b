"""Windows read through kept chunks are those of the array; chunks are decoded once."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from slides import write_slide

from bigunet.cutting import pixels_decoded
from bigunet.errors import RunError
from bigunet.geometry import Block, Span, Tiling
from bigunet.images import planes
from bigunet.images.decoded import DecodedChunks
from bigunet.images.open import Plane, image_planes, open_image


def source(folder: Path, shape: tuple[int, int], chunk: int) -> tuple[Plane, np.ndarray]:
    """Store pixels of two channels that are all different; return their plane and them."""
    pixels = np.arange(2 * shape[0] * shape[1], dtype=np.uint32).reshape(2, *shape)
    slide = write_slide(folder / "slide.zarr", pixels, "cyx", chunk=chunk, levels=1)
    return image_planes(open_image(slide), 0, (0, 1))[0], pixels


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Plane]:
    """Return what gives a plane of 130 by 150 pixels in chunks of one side, stored once."""
    return cache(lambda chunk: source(tmp_path_factory.mktemp("stored"), (130, 150), chunk)[0])


NOBODY_ELSE = (lambda _: 1, lambda _: 1)
"""Says of all pixels that one window has them."""
EVERYBODY = (lambda _: 10**9, lambda _: 10**9)
"""Says of all pixels that very many windows have them."""


def counting(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """Count how often each chunk is part of what is fetched."""
    counts: Counter[tuple[int, int]] = Counter()
    fetch, lock = planes._fetch, threading.Lock()

    def counted(plane: Plane, y: slice, x: slice) -> Any:
        (height, width) = plane.decoded
        for row in range(y.start // height, -(-y.stop // height)):
            for column in range(x.start // width, -(-x.stop // width)):
                with lock:
                    counts[row, column] += 1
        return fetch(plane, y, x)

    monkeypatch.setattr(planes, "_fetch", counted)
    return counts


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    chunk=st.integers(6, 40),
    block=st.integers(12, 50),
    threads=st.sampled_from((1, 4)),
    room=st.integers(0, 20_000) | st.just(2**28),
    seed=st.integers(0, 3),
)
def test_windows_are_those_of_the_array(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    chunk: int,
    block: int,
    threads: int,
    room: int,
    seed: int,
) -> None:
    plane, pixels = source(tmp_path_factory.mktemp("decoded"), shape, chunk)
    tiling = Tiling.fit(shape, 1, tile=block, block=block, target_tile=1, target_block=1)
    reader, blocks = DecodedChunks(room), list(tiling.blocks())
    np.random.default_rng(seed).shuffle(blocks)  # type: ignore[arg-type]

    def read(one: Block) -> None:
        y, x = tiling.source(one)
        found = reader.read(plane, (y, x), tiling.readers)
        np.testing.assert_array_equal(found, pixels[:, y.slice, x.slice])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, blocks))
    assert not reader._kept and not reader._bytes  # all who need a chunk have read it


@given(
    chunk=st.integers(10, 40),
    block=st.integers(12, 50),
    threads=st.sampled_from((1, 4)),
    room=st.integers(0, 20_000),
    missing=st.sets(st.integers(0, 30)),
)
def test_what_is_kept_for_blocks_that_never_come_has_a_bound(
    tmp_path_factory: pytest.TempPathFactory,
    chunk: int,
    block: int,
    threads: int,
    room: int,
    missing: set[int],
) -> None:
    plane, pixels = source(tmp_path_factory.mktemp("bound"), (50, 60), chunk)
    tiling = Tiling.fit((50, 60), 1, tile=block, block=block, target_tile=1, target_block=1)
    reader = DecodedChunks(room)

    def read(one: Block) -> None:
        y, x = tiling.source(one)
        found = reader.read(plane, (y, x), tiling.readers)
        np.testing.assert_array_equal(found, pixels[:, y.slice, x.slice])
        with reader._lock:
            kept = [one.pixels for one in reader._kept.values() if one.bytes]
            assert reader._bytes == sum(pixels.result().nbytes for pixels in kept) <= room

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, (one for n, one in enumerate(tiling.blocks()) if n not in missing)))


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(("chunk", "block"), [(16, 32), (24, 40), (10, 64), (50, 32)])
def test_each_chunk_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, block: int, threads: int
) -> None:
    plane, _ = source(tmp_path, (200, 180), chunk)
    tiling = Tiling.fit((200, 180), 1, tile=block, block=block, target_tile=1, target_block=1)
    counts, reader = counting(monkeypatch), DecodedChunks()

    def read(one: Block) -> None:
        reader.read(plane, tiling.source(one), tiling.readers)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, tiling.blocks()))
    assert set(counts.values()) == {1} and len(counts) == -(-200 // chunk) * -(-180 // chunk)
    assert pixels_decoded(tiling, plane) == len(counts) * chunk**2


@given(
    chunk=st.integers(14, 40),
    block=st.integers(16, 60),
    room=st.integers(1, 300_000),
    threads=st.sampled_from((1, 3)),
)
def test_no_more_is_decoded_than_is_said(
    stored: Callable[[int], Plane], chunk: int, block: int, room: int, threads: int
) -> None:
    plane = stored(chunk)
    tiling = Tiling.fit((130, 150), 1, tile=block, block=block, target_tile=1, target_block=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bigunet.images.decoded.KEPT_BYTES", room)
        patch.setattr("bigunet.cutting.KEPT_BYTES", room)
        patch.setattr("bigunet.cutting.is_kept", lambda size: 16 * size <= room)
        said = pixels_decoded(tiling, plane, at_once=threads)
        counts, reader = counting(patch), DecodedChunks(room)

        def read(one: Block) -> None:
            reader.read(plane, tiling.source(one), tiling.readers)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, tiling.blocks()))
    assert sum(counts.values()) * chunk**2 <= said


def test_a_chunk_that_cannot_be_read_is_named_by_all_who_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, pixels = source(tmp_path, (64, 64), 16)
    array = zarr.open_array(Path(plane.store, plane.key), mode="r")
    chunk = Path(plane.store, plane.key, "c/0/1/1") if array.metadata.zarr_format == 3 else None
    assert chunk is not None and chunk.exists()
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:9])
    reader, window = DecodedChunks(), (Span(0, 40), Span(0, 40))
    waiting, fetch = threading.Event(), planes._fetch

    def slow(plane: Plane, y: slice, x: slice) -> Any:
        waiting.wait(1)
        return fetch(plane, y, x)

    monkeypatch.setattr(planes, "_fetch", slow)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(reader.read, plane, window, EVERYBODY) for _ in range(2)]
        waiting.set()
        for one in both:
            with pytest.raises(RunError, match=r"cannot read chunk \(0, 1, 1\)"):
                one.result()
    chunk.write_bytes(whole)
    found = reader.read(plane, window, EVERYBODY)
    np.testing.assert_array_equal(found, pixels[:, :40, :40])


def test_chunks_too_large_to_keep_are_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, pixels = source(tmp_path, (64, 64), 64)
    windows = []
    fetch = planes._fetch

    def seen(plane: Plane, y: slice, x: slice) -> Any:
        windows.append((y, x))
        return fetch(plane, y, x)

    monkeypatch.setattr(planes, "_fetch", seen)
    window = (Span(3, 20), Span(5, 9))
    found = DecodedChunks(2**17).read(plane, window, NOBODY_ELSE)
    np.testing.assert_array_equal(found, pixels[:, 3:20, 5:9])
    assert windows == [(slice(3, 20), slice(5, 9))]


def test_a_copy_for_another_process_is_empty(tmp_path: Path) -> None:
    plane, _ = source(tmp_path, (40, 40), 8)
    reader, fresh = DecodedChunks(20_000), pickle.dumps(DecodedChunks(20_000))
    reader.read(plane, (Span(0, 40), Span(0, 40)), EVERYBODY)
    assert reader._kept and pickle.dumps(reader) == fresh
    assert not pickle.loads(fresh)._kept and pickle.loads(fresh)._room == 20_000


def test_planes_are_not_mixed_up(tmp_path: Path) -> None:
    pixels = np.arange(3 * 20 * 20, dtype=np.uint16).reshape(3, 20, 20)
    slide = write_slide(tmp_path / "slide.zarr", pixels, "zyx", chunk=8, levels=1)
    reader, window = DecodedChunks(), (Span(0, 20), Span(0, 20))
    for plane, expected in zip(image_planes(open_image(slide), 0, (0,)), pixels, strict=True):
        found = reader.read(plane, window, EVERYBODY)
        np.testing.assert_array_equal(found[0], expected)
        assert replace(plane) == plane
