"""No two tasks write the same Zarr object, and what cannot be written is said."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from bigunet.errors import RunError
from bigunet.geometry import Span
from bigunet.images.labels import plan_destination
from bigunet.images.open import open_image
from bigunet.images.output import Output, assert_disjoint_writes, read_window, write_window
from tests.images.stores import write_image

SIZE = (50, 37)


@pytest.fixture(params=["0.4", "0.5"])
def output(tmp_path: Path, request: pytest.FixtureRequest) -> Output:
    return make_output(tmp_path, request.param)


def make_output(path: Path, version: str = "0.5", axes: str = "tczyx", **options: Any) -> Output:
    image = open_image(write_image(path / "in.zarr", axes, version))
    destination = plan_destination(image, 0, name="n", chunk=(8, 16), classes=2, **options)
    destination.create()
    return destination.outputs[0]


def cut(start: int, stop: int, step: int) -> list[slice]:
    """Cut [start, stop) where multiples of `step` lie."""
    edges = [start, *range((start // step + 1) * step, stop, step), stop]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def test_windows_of_all_planes_come_back(output):
    data = np.random.default_rng(0).integers(0, 5, (2, 2, *SIZE)).astype(np.uint8)
    for index in np.ndindex(2, 2):
        for y in cut(0, 50, 16):
            for x in cut(0, 37, 16):
                write_window(output, 0, index, y, x, data[index][y, x])
    np.testing.assert_array_equal(zarr.open_array(output.array_path(0), mode="r")[:], data)
    found = read_window(output, 0, (1, 0), slice(3, 20), slice(30, 37))
    np.testing.assert_array_equal(found, data[1, 0, 3:20, 30:37])


@pytest.mark.parametrize(
    ("y", "x"),
    [
        (slice(0, 9), slice(0, 16)),
        (slice(4, 8), slice(0, 16)),
        (slice(0, 8), slice(0, 36)),
        (slice(0, 8), slice(1, 37)),
        (slice(0, 58), slice(0, 37)),
        (slice(8, 8), slice(0, 37)),
        (slice(-8, 8), slice(0, 37)),
    ],
)
def test_no_window_is_cut_inside_a_unit(tmp_path, y, x):
    output = make_output(tmp_path, axes="yx")
    data = np.zeros((abs(y.stop - y.start), x.stop - x.start), np.uint8)
    with pytest.raises(ValueError, match="not cut at its write units"):
        write_window(output, 0, (), y, x, data)
    with pytest.raises(ValueError, match="not cut at its write units"):
        assert_disjoint_writes(output, [Span(y.start, y.stop)], [Span(x.start, x.stop)])


@settings(max_examples=100)
@given(st.data())
def test_windows_of_a_region_touch_each_object_once(tmp_path_factory, data):
    start = data.draw(st.tuples(st.integers(0, 49), st.integers(0, 36)))
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, SIZE, strict=True)]
    k = data.draw(st.integers(1, 3))
    region = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    output = replace(PLAIN, region=tuple((s.start, s.stop) for s in region))
    rows, columns = spans(cut(start[0], stop[0], 8 * k)), spans(cut(start[1], stop[1], 16))
    assert_disjoint_writes(output, data.draw(st.permutations(rows)), columns)
    windows = itertools.product(rows, columns)
    touched = [(i, j) for y, x in windows for i in objects(y, 8) for j in objects(x, 16)]
    assert len(touched) == len(set(touched))
    with pytest.raises(ValueError, match="two tasks would write rows"):
        assert_disjoint_writes(output, [*rows, data.draw(st.sampled_from(rows))], columns)
    with pytest.raises(ValueError, match="two tasks would write columns"):
        assert_disjoint_writes(output, rows, [data.draw(st.sampled_from(columns)), *columns])
    cut_rows = data.draw(st.sampled_from(rows))
    inner = [e for e in range(cut_rows.start + 1, cut_rows.stop) if e % 8]
    if inner:
        first = Span(cut_rows.start, data.draw(st.sampled_from(inner)))
        with pytest.raises(ValueError, match="not cut"):
            assert_disjoint_writes(output, [first], columns)


def spans(parts: list[slice]) -> list[Span]:
    return [Span(part.start, part.stop) for part in parts]


def objects(part: Span, unit: int) -> range:
    return range(part.start // unit, (part.stop - 1) // unit + 1)


def plain() -> Output:
    from tests.images.test_pyramid import plain_output

    output = plain_output(50, 8, (0, 50))
    return replace(output, shapes=((50, 37),), chunk=(8, 16), region=((0, 50), (0, 37)))


PLAIN = plain()


def test_a_region_is_written_inside_only(tmp_path):
    region = (slice(11, 30), slice(5, 21))
    output = make_output(tmp_path, axes="yx", region=region)
    for y in cut(11, 30, 8):
        for x in cut(5, 21, 16):
            write_window(output, 0, (), y, x, np.ones((y.stop - y.start, x.stop - x.start), "u1"))
    expected = np.zeros(SIZE)
    expected[11:30, 5:21] = 1
    np.testing.assert_array_equal(zarr.open_array(output.array_path(0), mode="r")[:], expected)
    with pytest.raises(ValueError, match="the run's region 11:30"):
        write_window(output, 0, (), slice(8, 16), slice(5, 16), np.ones((8, 11), "u1"))


SHARD = (16, 32)


def test_a_shard_is_a_unit(tmp_path):
    output = make_output(tmp_path, axes="yx", shard=SHARD)
    with pytest.raises(ValueError, match="not cut at its write units"):
        write_window(output, 0, (), slice(0, 8), slice(0, 32), np.zeros((8, 32), np.uint8))
    data = np.random.default_rng(0).integers(1, 5, SIZE).astype(np.uint8)
    for y, x in itertools.product(cut(0, 50, 16), cut(0, 37, 32)):
        write_window(output, 0, (), y, x, data[y, x])
    array = zarr.open_array(output.array_path(0), mode="r")
    assert (array.chunks, array.shards) == ((8, 16), SHARD)
    np.testing.assert_array_equal(array[:], data)
    assert len(stored_files(output)) == 4 * 2


@settings(max_examples=25)
@given(st.data())
def test_damaged_shards_are_written_anew(tmp_path_factory, data):
    output = make_output(tmp_path_factory.mktemp("shards"), axes="yx", shard=SHARD)
    y, x = slice(32, 50), slice(0, 37)
    pixels = np.random.default_rng(0).integers(0, 5, (18, 37)).astype(np.uint8)
    write_window(output, 0, (), y, x, pixels)
    before = stored_files(output)
    path = data.draw(st.sampled_from(sorted(before)))
    content = bytearray(before[path])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    write_window(output, 0, (), y, x, pixels)
    assert stored_files(output) == before


def test_what_a_region_does_not_cover_is_not_thrown_away(tmp_path):
    output = make_output(tmp_path, axes="yx", shard=SHARD, region=(slice(0, 20), slice(0, 37)))
    window = slice(16, 20), slice(0, 32)
    write_window(output, 0, (), *window, np.ones((4, 32), np.uint8))
    ((path, content),) = stored_files(output).items()
    path.write_bytes(content[:-1])
    with pytest.raises(RunError, match="cannot write"):
        write_window(output, 0, (), *window, np.ones((4, 32), np.uint8))
    assert path.read_bytes() == content[:-1]


def test_a_full_disk_costs_no_shard_that_is_there(tmp_path, monkeypatch):
    output = make_output(tmp_path, axes="yx", shard=SHARD)
    window = slice(0, 16), slice(0, 32)
    write_window(output, 0, (), *window, np.ones(SHARD, np.uint8))
    before = stored_files(output)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zarr.storage._local._put", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_window(output, 0, (), *window, np.full(SHARD, 2, np.uint8))
    assert stored_files(output) == before and len(before) == 1


def stored_files(output: Output) -> dict[Path, bytes]:
    folder = output.array_path(0) / "c"
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_threads_lose_nothing(tmp_path):
    output = make_output(tmp_path, axes="yx")
    windows = [(y, x) for y in cut(0, 50, 8) for x in cut(0, 37, 16)]
    data = np.random.default_rng(1).integers(1, 255, SIZE).astype(np.uint8)
    threads = [
        threading.Thread(target=write_window, args=(output, 0, (), *w, data[w])) for w in windows
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(zarr.open_array(output.array_path(0), mode="r")[:], data)


def test_data_and_planes_must_fit(tmp_path):
    output = make_output(tmp_path, axes="zyx")
    with pytest.raises(ValueError, match="do not fit"):
        write_window(output, 0, (0,), slice(0, 8), slice(0, 16), np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="does not fit the axes zyx"):
        write_window(output, 0, (), slice(0, 8), slice(0, 16), np.zeros((8, 16), np.uint8))


def test_a_full_disk_is_named(output, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zarr.storage._local._put", full)
    with pytest.raises(RunError) as caught:
        write_window(output, 0, (1, 0), slice(8, 16), slice(0, 16), np.ones((8, 16), np.uint8))
    assert str(caught.value) == (
        f"cannot write {output.array_path(0)}, rows 8:16, columns 0:16, plane t=1 z=0: "
        "No space left on device"
    )
    assert caught.value.exit_code == 1


def test_a_run_that_lost_its_place_writes_no_more(output):
    output.mark.unlink()
    with pytest.raises(RunError, match="taken over by another run"):
        write_window(output, 0, (0, 0), slice(0, 8), slice(0, 16), np.ones((8, 16), np.uint8))


def test_outputs_travel(output):
    assert pickle.loads(pickle.dumps(output)) == output
    assert len(pickle.dumps(output)) < 3000
