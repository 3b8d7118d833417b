"""Warping: simple points against components, the queue against plain passes, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from bigunet.metrics.warping import RING, WarpingCounts, count_warping, is_simple, warp
from tests.metrics.made_labels import mask_pairs

Pairs = tuple[np.ndarray, np.ndarray]
EIGHT = np.ones((3, 3))


def patch(code: int, middle: bool) -> np.ndarray:
    found = np.zeros((3, 3), dtype=bool)
    found[1, 1] = middle
    for k, (dy, dx) in enumerate(RING):
        found[1 + dy, 1 + dx] = code >> k & 1
    return found


def topology(mask: np.ndarray) -> tuple[int, int]:
    """Count 4-connected objects and 8-connected parts of background, which reaches around."""
    background = np.pad(~mask, 1, constant_values=True)
    return ndimage.label(mask)[1], ndimage.label(background, EIGHT)[1]


@pytest.mark.parametrize("code", range(256))
def test_simple_points_have_one_part_of_each_around(code: int) -> None:
    around = patch(code, middle=False)
    objects = ndimage.label(around)[0]
    sides = {objects[0, 1], objects[1, 0], objects[1, 2], objects[2, 1]} - {0}
    outside = ~around
    outside[1, 1] = False
    background = ndimage.label(outside, EIGHT)[1]
    assert is_simple(code) == (len(sides) == 1 and background == 1)


def plain_passes(truth: np.ndarray, prediction: np.ndarray, sureness: np.ndarray) -> np.ndarray:
    """Pass after pass over all pixels that differ, the surest first, until nothing changes."""
    warped = np.pad(truth, 1)
    target = np.pad(prediction, 1)
    changed = True
    while changed:
        changed = False
        places = np.argwhere(warped != target)
        order = np.argsort([-sureness[y - 1, x - 1] for y, x in places], kind="stable")
        for y, x in places[order]:
            code = sum(int(warped[y + dy, x + dx]) << k for k, (dy, dx) in enumerate(RING))
            if is_simple(code):
                warped[y, x] = target[y, x]
                changed = True
    return warped[1:-1, 1:-1]


@given(mask_pairs(), st.integers(0, 2**32 - 1), st.sampled_from([2, 1000]))
def test_warping_is_plain_passes(pair: Pairs, seed: int, values: int) -> None:
    sureness = np.random.default_rng(seed).integers(0, values, pair[0].shape)
    np.testing.assert_array_equal(warp(*pair, sureness), plain_passes(*pair, sureness))
    flat = np.zeros(pair[0].shape)
    np.testing.assert_array_equal(warp(*pair), plain_passes(*pair, flat))


@given(mask_pairs())
def test_warping_keeps_the_topology_and_changes_only_what_differs(pair: Pairs) -> None:
    truth, prediction = pair
    warped = warp(truth, prediction)
    assert topology(warped) == topology(truth)
    np.testing.assert_array_equal(warped[truth == prediction], truth[truth == prediction])


@given(mask_pairs())
def test_an_error_needs_a_difference(pair: Pairs) -> None:
    truth, prediction = pair
    assert count_warping(truth, truth) == WarpingCounts(pixels=truth.size)
    counts = count_warping(truth, prediction)
    assert counts.mergers + counts.splits <= counts.mismatches <= (truth != prediction).sum()


def two_cells(gap: int = 1) -> np.ndarray:
    mask = np.zeros((9, 20 + gap), dtype=bool)
    mask[2:7, 2:10] = mask[2:7, 10 + gap : 18 + gap] = True
    return mask


def test_borders_that_moved_are_no_error() -> None:
    truth = two_cells()
    moved = np.roll(truth, 1, axis=0)
    moved[2:7, 2] = False
    counts = count_warping(truth, moved)
    assert (truth != moved).any()
    assert (counts.mismatches, counts.error) == (0, 0)


def test_a_merger_is_the_pixels_between() -> None:
    """The border of five pixels is filled: it thins to one pixel a row, which has to stay."""
    truth, merged = two_cells(), two_cells()
    merged[2:7, 10] = True
    counts = count_warping(truth, merged)
    assert (counts.mismatches, counts.mergers, counts.splits) == (5, 5, 0)
    assert counts.error == 5 / truth.size
    thin = two_cells()
    thin[4, 10] = True
    assert count_warping(truth, thin).mergers == 1


def test_a_split_is_the_pixels_that_are_missing() -> None:
    merged, truth = two_cells(), two_cells()
    truth[2:7, 10] = True
    counts = count_warping(truth, merged)
    # Four of the five can be nibbled away; the last one holds the two together.
    assert (counts.mismatches, counts.mergers, counts.splits) == (1, 0, 1)


def test_objects_and_holes_that_come_or_go_are_no_splits_or_mergers() -> None:
    truth = two_cells()
    other = truth.copy()
    other[0, 0] = True  # a new object
    other[4, 5] = False  # a new hole
    for pair in ((truth, other), (other, truth)):
        counts = count_warping(*pair)
        assert (counts.mismatches, counts.mergers, counts.splits) == (2, 0, 0)


@pytest.mark.parametrize(("side", "splits"), [(12, 0), (60, 1)])
def test_a_detour_is_followed_for_twenty_pixels(side: int, splits: int) -> None:
    """A ring that is cut once hangs together around the hole, if that is near."""
    ring = np.zeros((side + 4, side + 4), dtype=bool)
    ring[2:-2, 2:-2] = True
    ring[3:-3, 3:-3] = False
    cut = ring.copy()
    cut[2, side // 2] = False
    counts = count_warping(ring, cut)
    assert (counts.mismatches, counts.mergers, counts.splits) == (1, 0, splits)


def test_counts_add_up_and_nothing_is_nan() -> None:
    one = WarpingCounts(pixels=10, mismatches=3, mergers=1, splits=1)
    assert (one + one).error == one.error == 0.2
    assert math.isnan(WarpingCounts().error)
