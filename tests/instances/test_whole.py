from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bigunet.errors import RunError
from bigunet.instances.whole import Parts, cut_objects, find_parts, merge_parts

TYPES = st.sampled_from(["uint8", "int16", "int32", "uint64"])
LABELS = TYPES.flatmap(
    lambda dtype: arrays(
        dtype, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4)
    )
)


def brute_force(labels: np.ndarray, origin: tuple[int, int]) -> dict[int, tuple[object, ...]]:
    found = {}
    for number in set(labels.ravel().tolist()) - {0}:
        pixels = np.argwhere(labels == number) + origin
        high = pixels.max(axis=0) + 1
        found[number] = (*map(tuple, (pixels[0], pixels.min(axis=0), high)), len(pixels))
    return found


def as_dict(parts: Parts) -> dict[int, tuple[object, ...]]:
    rows = zip(parts.ids, parts.first, parts.low, parts.high, parts.area, strict=True)
    return {int(i): (tuple(f), tuple(low), tuple(high), a) for i, f, low, high, a in rows}


@given(labels=LABELS, origin=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_parts_are_those_of_brute_force(labels: np.ndarray, origin: tuple[int, int]) -> None:
    parts = find_parts(labels, origin)
    assert as_dict(parts) == brute_force(labels, origin)
    assert parts.ids.dtype.kind == "u" and (np.diff(parts.ids.astype(int)) > 0).all()


@given(labels=LABELS, cut=st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_merged_parts_are_those_of_the_whole(labels: np.ndarray, cut: tuple[int, int]) -> None:
    y, x = cut
    corners = [(0, 0), (0, x), (y, 0), (y, x)]
    quarters = [labels[:y, :x], labels[:y, x:], labels[y:, :x], labels[y:, x:]]
    parts = [find_parts(q, c) for q, c in zip(quarters, corners, strict=True) if q.size]
    assert as_dict(merge_parts(parts)) == brute_force(labels, (0, 0))


@given(labels=LABELS)
def test_objects_put_back_are_the_label(labels: np.ndarray) -> None:
    padded = np.pad(labels, ((2, 1), (1, 3)))
    back = np.zeros_like(padded)
    for one in cut_objects(labels, (2, 1), find_parts(labels, (2, 1)), (7,)):
        assert one.plane == (7,) and tuple(np.argwhere(padded == one.id)[0]) == one.first
        assert one.mask.any(axis=0)[[0, -1]].all() and one.mask.any(axis=1)[[0, -1]].all()
        back[one.window][one.mask] += one.id
    assert (back == padded).all()


def test_the_largest_id_and_its_neighbour_are_told_apart() -> None:
    labels = np.array([[2**64 - 1, 2**64 - 2]], dtype=np.uint64)
    parts = find_parts(labels)
    assert parts.ids.tolist() == [2**64 - 2, 2**64 - 1]
    masks = [one.mask.tolist() for one in cut_objects(labels, (0, 0), parts, ())]
    assert masks == [[[True]], [[True]]]


def test_a_negative_id_is_named_with_its_place() -> None:
    with pytest.raises(RunError, match=r"id -3 at row 11, column 22 is negative"):
        find_parts(np.array([[0, 1, 1], [0, 1, -3]], dtype=np.int16), (10, 20))
