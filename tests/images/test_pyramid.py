"""Lower levels agree with dumb versions of themselves, however they are cut."""

from __future__ import annotations

import itertools
import math
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bigunet.errors import RunError
from bigunet.images import pyramid
from bigunet.images.labels import Destination, plan_destination
from bigunet.images.open import open_image
from bigunet.images.output import Output, read_window, write_window
from bigunet.images.pyramid import (
    level_shapes,
    pyramid_count,
    pyramid_tasks,
    reduce_mean,
    reduce_nearest,
    reduce_window,
)
from tests.images.stores import write_image

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7)


def dumb_mean(values: np.ndarray) -> np.ndarray:
    """Average 2 × 2 pixels one by one in fractions, half rounded up."""
    height, width = values.shape[-2:]
    found = np.zeros((*values.shape[:-2], -(-height // 2), -(-width // 2)), values.dtype)
    for place in np.ndindex(found.shape):
        *others, i, j = place
        four = values[(*others, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))].ravel()
        mean = Fraction(sum(int(v) for v in four), len(four))
        found[place] = math.floor(mean + Fraction(1, 2))
    return found


def create(
    path: Path, kind: str, size: tuple[int, int], chunk: int, region=None, shard=None
) -> Destination:
    image = open_image(write_image(path / "in.zarr", "czyx", sizes={"y": size[0], "x": size[1]}))
    destination = plan_destination(
        image,
        0,
        name="n",
        output=path / "out.zarr",
        save=(kind,),
        chunk=(chunk, chunk),
        shard=shard and (shard, shard),
        classes=3,
        region=region,
    )
    destination.create()
    return destination


def fill(output: Output, data: np.ndarray) -> None:
    (y0, y1), (x0, x1) = output.region
    for index in np.ndindex(output.planes):
        chosen = data[output.select(index, slice(y0, y1), slice(x0, x1), slice(None))]
        write_window(output, 0, index, slice(y0, y1), slice(x0, x1), chosen)


def stored(output: Output) -> list[np.ndarray]:
    paths = [output.array_path(level) for level in range(len(output.shapes))]
    return [zarr.open_array(path, mode="r")[:] for path in paths]


def random_data(shape: tuple[int, ...], top: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, shape).astype(np.uint8)


@given(st.tuples(st.integers(1, 5), st.integers(1, 300), st.integers(1, 300)), st.integers(1, 12))
def test_shapes_halve_and_never_vanish(shape, levels):
    shapes = level_shapes(shape, levels)
    assert len(shapes) == levels
    assert shapes[0] == shape
    for above, below in itertools.pairwise(shapes):
        assert below == (above[0], -(-above[1] // 2), -(-above[2] // 2))
        assert min(below) >= 1


@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.uint32]), SHAPES))
def test_mean_is_the_mean(values):
    found = reduce_mean(values)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, dumb_mean(values))


@given(hnp.arrays(np.uint64, SHAPES))
def test_nearest_keeps_ids(ids):
    found = reduce_nearest(ids)
    assert set(np.unique(found)) <= set(np.unique(ids))
    assert found.shape == level_shapes(ids.shape, 2)[1]


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint64])
def test_no_inexact_means(dtype):
    with pytest.raises(ValueError, match="not exact"):
        reduce_mean(np.zeros((2, 2), dtype))


@settings(max_examples=8)
@given(
    kind=st.sampled_from(["classes", "probabilities"]),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    chunk=st.integers(1, 20).map(lambda n: 2 * n + 1),
    side=st.sampled_from([1, 32, 64]),
    chunks=st.none() | st.integers(1, 3),
)
def test_levels_are_those_of_the_whole_image(tmp_path_factory, kind, size, chunk, side, chunks):
    path = tmp_path_factory.mktemp("pyramid")
    (output,) = create(path, kind, size, chunk, shard=chunks and chunks * chunk).outputs
    data = random_data(output.shapes[0], 3 if kind == "classes" else 256)
    fill(output, data)
    reduce = reduce_nearest if kind == "classes" else reduce_mean
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "TASK_SIDE", side)
        for level in range(1, len(output.shapes)):
            for task in reversed(list(pyramid_tasks(output, level))):
                reduce_window(output, level, *task)
    expected = data
    for found in stored(output):
        np.testing.assert_array_equal(found, expected)
        expected = reduce(expected)


@settings(max_examples=60)
@given(st.data())
def test_tasks_cover_what_was_written_in_whole_units_once(data):
    size = data.draw(st.integers(1, 400))
    unit = data.draw(st.integers(1, 64))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    output = plain_output(size, unit, (start, stop))
    for level in range(1, 4):
        here = output.shapes[level][0]
        hits = np.zeros(here, int)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pyramid, "TASK_SIDE", data.draw(st.sampled_from([1, 100])))
            patch.setattr(pyramid, "MANY_TASKS", data.draw(st.sampled_from([1, 3, 4096])))
            tasks = list(pyramid_tasks(output, level))
            assert len(tasks) == pyramid_count(output, level)
        for index, y, x in tasks:
            assert index == ()
            assert (x.start, x.stop) == (0, 1)
            assert y.start % output.unit(level)[0] == 0
            assert y.stop % output.unit(level)[0] == 0 or y.stop == here
            hits[y] += 1
        touched = np.zeros(size, bool)
        touched[start:stop] = True
        for _ in range(level):
            touched = np.array([touched[i : i + 2].any() for i in range(0, len(touched), 2)])
        assert hits.max() == 1
        assert (hits[touched] == 1).all()


def plain_output(size: int, unit: int, rows: tuple[int, int]) -> Output:
    from bigunet.images.ngff import Axis

    return Output(
        kind="classes",
        path=Path("a"),
        final=Path("a"),
        mark=Path("m"),
        axes=(Axis(name="y", type="space"), Axis(name="x", type="space")),
        shapes=level_shapes((size, 1), 4),
        chunk=(unit, 1),
        dtype="uint8",
        scales=((1.0, 1.0),) * 4,
        translation=(0.0, 0.0),
        region=(rows, (0, 1)),
        zarr_format=3,
    )


def test_zero_windows_write_no_file(tmp_path):
    (output,) = create(tmp_path, "classes", (40, 40), 8).outputs
    data = np.zeros(output.shapes[0], np.uint8)
    data[1, 0, 0] = 1
    fill(output, data)
    wrote = [reduce_window(output, 1, *task) for task in pyramid_tasks(output, 1)]
    assert sum(wrote) == 1
    assert [p for p in (output.array_path(1) / "c").rglob("*") if p.is_file()] == [
        output.array_path(1) / "c" / "1" / "0" / "0"
    ]


def test_a_region_makes_the_same_ids_below_as_the_whole(tmp_path):
    whole = create(tmp_path / "a", "classes", (50, 37), 8).outputs[0]
    data = random_data(whole.shapes[0], 3)
    region = (slice(11, 30), slice(5, 21))
    part = create(tmp_path / "b", "classes", (50, 37), 8, region).outputs[0]
    outside = np.ones(data.shape, bool)
    outside[:, 11:30, 5:21] = False
    fill(whole, np.where(outside, 0, data).astype(np.uint8))
    fill(part, data)
    for output in (whole, part):
        for level in (1, 2):
            for task in pyramid_tasks(output, level):
                reduce_window(output, level, *task)
    for a, b in zip(stored(whole), stored(part), strict=True):
        np.testing.assert_array_equal(a, b)


def test_tasks_and_outputs_are_small(tmp_path):
    (output,) = create(tmp_path, "probabilities", (50, 37), 8).outputs
    task = (output, 1, *next(pyramid_tasks(output, 1)))
    assert len(pickle.dumps(task)) < 3000
    assert pickle.loads(pickle.dumps(task)) == task


def test_damaged_levels_are_an_error_with_a_place(tmp_path):
    (output,) = create(tmp_path, "classes", (40, 40), 8).outputs
    fill(output, np.ones(output.shapes[0], np.uint8))
    file = output.array_path(0) / "c" / "1" / "0" / "0"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(RunError, match=r"cannot read .*0, rows 0:40, columns 0:38, plane z=1: "):
        read_window(output, 0, (1,), slice(0, 40), slice(0, 38))
    (task,) = [task for task in pyramid_tasks(output, 1) if task[0] == (1,)]
    with pytest.raises(RunError, match="cannot read"):
        reduce_window(output, 1, *task)
