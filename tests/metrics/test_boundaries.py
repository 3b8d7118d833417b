"""The challenge's measures over thresholds, by hand and against plain recomputation."""

from __future__ import annotations

import math
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import adapted_rand_error

from bigunet.metrics.boundaries import THRESHOLDS, components, sweep_thresholds, thin_borders
from tests.metrics.made_labels import mask_pairs

Pairs = tuple[np.ndarray, np.ndarray]


def two_cells(membrane: float) -> np.ndarray:
    """A map of two cells of 3 × 4 pixels with a membrane of one column between them."""
    found = np.ones((3, 9))
    found[:, 4] = membrane
    return found


def test_thresholds_are_those_of_the_challenge() -> None:
    assert THRESHOLDS == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_a_weak_membrane_separates_at_high_thresholds_only() -> None:
    truth = two_cells(0) > 0
    sweep = sweep_thresholds(two_cells(0.65), truth)
    assert (sweep.rand_error.value, sweep.rand_error.threshold) == (0, 0.7)
    assert (sweep.pixel_error.value, sweep.warping_error.value) == (0, 0)
    assert (sweep.v_rand.value, sweep.v_rand.threshold) == (1, 0.7)
    assert sweep.v_info.value == pytest.approx(1)
    # At 0.5 the two cells are one: 2 · C(12, 2) = 132 of C(24, 2) = 276 pairs are right.
    assert sweep.fixed.rand_error == pytest.approx(1 - 2 * 132 / (132 + 276))
    assert sweep.fixed.pixel_error == pytest.approx(1 - 2 * 24 / (24 + 27))
    assert sweep.fixed.warping.mergers == 3


def test_thinning_forgives_wide_borders() -> None:
    """A border of three pixels where the truth has one: Rand error sees it, V_Rand does not."""
    truth, wide = two_cells(0) > 0, two_cells(0)
    wide[:, 3:6] = 0
    sweep = sweep_thresholds(wide, truth)
    # 9 of 12 pixels of each cell are joined: C(9, 2) = 36 of C(12, 2) = 66 pairs.
    assert sweep.rand_error.value == pytest.approx(1 - 2 * 36 / (36 + 66))
    assert sweep.v_rand.value == 1
    assert sweep.warping_error.value == 0


@given(mask_pairs())
def test_rand_error_is_that_of_scikit_image(pair: Pairs) -> None:
    truth, prediction = pair
    sweep = sweep_thresholds(prediction.astype(float), truth, thresholds=(0.5,))
    true_parts, found = ndimage.label(truth)[0], ndimage.label(prediction)[0]
    found[found == 0] = np.arange(1000, 1000 + np.count_nonzero(found == 0))
    parts = sweep.fixed.parts
    # It divides by the pairs of either, and by precision and recall together.
    if parts.rand_precision > 0 and parts.rand_recall > 0:
        error = adapted_rand_error(true_parts, found, ignore_labels=(0,))[0]
        assert sweep.rand_error.value == pytest.approx(error)


@given(mask_pairs())
def test_a_perfect_map_has_no_error(pair: Pairs) -> None:
    truth = pair[0]
    sweep = sweep_thresholds(truth.astype(float), truth)
    assert sweep.warping_error.value == 0
    if truth.any():
        assert sweep.rand_error.value == sweep.pixel_error.value == 0
        assert sweep.v_rand.value == 1


@given(st.lists(mask_pairs(), min_size=1, max_size=3))
def test_one_threshold_is_best_for_all_images(pairs: list[Pairs]) -> None:
    rng = np.random.default_rng(0)
    sweeps = [sweep_thresholds(rng.random(t.shape), t) for t, _ in pairs]
    pooled = reduce(add, sweeps)
    for k in range(len(THRESHOLDS)):
        tp, fp, fn = (
            sum(getattr(one.counts[k].pixels, name) for one in sweeps)
            for name in ("tp", "fp", "fn")
        )
        if tp + fp + fn:
            assert pooled.counts[k].pixel_error == pytest.approx(1 - 2 * tp / (2 * tp + fp + fn))
    known = [one.pixel_error for one in pooled.counts if not math.isnan(one.pixel_error)]
    if known:
        assert pooled.pixel_error.value == min(known)


def test_nothing_to_measure() -> None:
    empty = np.zeros((3, 4), dtype=bool)
    sweep = sweep_thresholds(empty.astype(float), empty)
    for best in (sweep.rand_error, sweep.pixel_error, sweep.v_rand, sweep.v_info):
        assert math.isnan(best.value) and math.isnan(best.threshold)
    assert sweep.warping_error.value == 0
    assert not thin_borders(components(empty)).any()


def test_sweeps_of_other_thresholds_do_not_add_up() -> None:
    mask = np.ones((2, 2), dtype=bool)
    one = sweep_thresholds(mask.astype(float), mask)
    other = sweep_thresholds(mask.astype(float), mask, fixed_threshold=0.3)
    with pytest.raises(ValueError, match="different thresholds"):
        _ = one + other


def test_components_are_four_connected() -> None:
    assert components(np.eye(3, dtype=bool)).max() == 3


@given(mask_pairs())
def test_thinned_borders_go_to_the_nearest_object(pair: Pairs) -> None:
    labels = components(pair[0])
    thinned = thin_borders(labels)
    np.testing.assert_array_equal(thinned[labels > 0], labels[labels > 0])
    places = np.argwhere(labels > 0)
    for place in np.argwhere(labels == 0):
        if not len(places):
            assert thinned[tuple(place)] == 0
            continue
        distances = ((places - place) ** 2).sum(axis=1)
        nearest = {labels[tuple(p)] for p in places[distances == distances.min()]}
        assert thinned[tuple(place)] in nearest
