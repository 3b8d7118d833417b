"""Runs, positions and structures agree with pixels looked at one by one."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bigunet.instances.neighbours import (
    find_runs,
    group_pairs,
    offset_step,
    overlapping_runs,
    position_steps,
    positions,
)
from tests.instances.masks import cut_masks

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)


@st.composite
def apart(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw sorted intervals that have nothing in common."""
    ends = sorted(draw(st.lists(st.integers(-20, 60), max_size=16, unique=True)))
    ends = ends[: len(ends) // 2 * 2]
    return np.array(ends[::2], dtype=np.int64), np.array(ends[1::2], dtype=np.int64)


@given(apart(), apart(), st.randoms())
def test_overlaps_are_all_there_is_in_common(first, second, random):
    order = list(range(len(first[0])))
    random.shuffle(order)
    first = first[0][order], first[1][order]
    found = set(zip(*(part.tolist() for part in overlapping_runs(first, second)), strict=True))
    places = itertools.product(range(len(first[0])), range(len(second[0])))
    assert found == {
        (i, j) for i, j in places if first[0][i] < second[1][j] and second[0][j] < first[1][i]
    }


@given(SHAPES)
def test_steps_lead_to_neighbours_and_nowhere_else(shape):
    steps = position_steps(shape)
    every = positions(np.arange(np.prod(shape)), shape, (0,) * len(shape), steps)
    assert (np.diff(every) > 0).all()
    at = dict(zip(np.ndindex(shape), every.tolist(), strict=True))
    taken = set(at.values())
    for pixel, place in at.items():
        for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
            there = tuple(p + o for p, o in zip(pixel, offset, strict=True))
            moved = place + offset_step(offset, steps)
            assert at[there] == moved if there in at else moved not in taken


@given(st.data())
def test_a_part_lies_where_it_lies_in_the_whole(data):
    shape = data.draw(SHAPES)
    origin = [data.draw(st.integers(0, size - 1)) for size in shape]
    part = tuple(data.draw(st.integers(1, n - o)) for n, o in zip(shape, origin, strict=True))
    every = np.arange(np.prod(shape)).reshape(shape)
    expected = every[tuple(slice(o, o + n) for o, n in zip(origin, part, strict=True))]
    plain = [stride // every.itemsize for stride in every.strides]
    found = positions(np.arange(expected.size), part, origin, plain)
    assert found.tolist() == expected.ravel().tolist()


@given(cut_masks(values=3))
def test_runs_end_where_values_change_or_lines_end(mask):
    values = mask.compute(scheduler="synchronous")
    found = []
    for line in values.reshape(-1, values.shape[-1]):
        found += [len(list(run)) for _, run in itertools.groupby(line.tolist())]
    start, length = find_runs(values)
    assert length.tolist() == found
    assert start.tolist() == [0, *np.cumsum(found)[:-1]]
    assert find_runs(values, joined=False)[0].size == values.size


def test_groups_follow_chains():
    groups = group_pairs(np.array([0, 4, 2]), np.array([4, 2, 2]), 6)
    assert groups[0] == groups[4] == groups[2]
    assert len(set(groups[[0, 1, 3, 5]].tolist())) == 4
