"""Matches of objects, against assignment by SciPy on dense tables and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from scipy.optimize import linear_sum_assignment

from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.objects import (
    IOU_THRESHOLDS,
    ObjectCounts,
    count_matches,
    count_objects,
)
from bigunet.metrics.touching import touching_pairs
from tests.metrics.made_labels import label_pairs

Pairs = tuple[np.ndarray, np.ndarray]


def counted(truth: np.ndarray, prediction: np.ndarray) -> ObjectCounts:
    touching = touching_pairs(truth) if truth.ndim == 2 else None
    return count_objects(count_pairs(truth, prediction), touching)


def dense_iou(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """IoU of every true with every predicted object, mask by mask."""
    trues = [truth == i for i in np.unique(truth) if i]
    founds = [prediction == i for i in np.unique(prediction) if i]
    iou = [[(t & f).sum() / (t | f).sum() for f in founds] for t in trues]
    return np.array(iou).reshape(len(trues), len(founds))


@given(label_pairs())
def test_matches_are_those_of_optimal_assignment(pair: Pairs) -> None:
    iou, counts = dense_iou(*pair), counted(*pair)
    assert (counts.true, counts.predicted) == iou.shape
    for threshold, tp in zip(IOU_THRESHOLDS, counts.matches, strict=True):
        good = iou >= threshold
        rows, columns = linear_sum_assignment(good, maximize=True)
        assert tp == good[rows, columns].sum()


@given(label_pairs())
def test_panoptic_quality_and_seg_are_sums_over_masks(pair: Pairs) -> None:
    iou, counts = dense_iou(*pair), counted(*pair)
    matched = iou[iou > 0.5]
    fp, fn = iou.shape[1] - matched.size, iou.shape[0] - matched.size
    if sum(iou.shape):
        expected = matched.sum() / (matched.size + fp / 2 + fn / 2)
        assert counts.panoptic_quality == pytest.approx(expected)
    truth, prediction = pair
    seg = []
    for i in np.unique(truth[truth != 0]):
        mask, score = truth == i, 0.0
        for j in np.unique(prediction[prediction != 0]):
            found = prediction == j
            if 2 * (mask & found).sum() > mask.sum():
                score = (mask & found).sum() / (mask | found).sum()
        seg.append(score)
    assert counts.seg == pytest.approx(np.mean(seg) if seg else math.nan, nan_ok=True)


@given(label_pairs())
def test_a_perfect_prediction_scores_one(pair: Pairs) -> None:
    counts = counted(pair[0], pair[0].astype(np.int64) * 3)
    if counts.true:
        assert counts.ap == counts.f1 == (1.0,) * 10
        assert counts.panoptic_quality == counts.seg == counts.mean_ap == 1
    assert counts.merged == 0


@given(label_pairs(), label_pairs())
def test_images_side_by_side_add_up(one: Pairs, other: Pairs) -> None:
    apart = [a.astype(np.int64) + 50 * (a > 0) for a in other]
    together = [
        np.concatenate([a.ravel(), b.ravel()]).astype(np.int64)
        for a, b in zip(one, apart, strict=True)
    ]
    flat = [[a.ravel() for a in pair] for pair in (one, other)]
    pooled = counted(*flat[0]) + counted(*flat[1])
    expected = counted(*together)
    assert pooled.matches == expected.matches
    assert pooled.seg == pytest.approx(expected.seg, nan_ok=True)
    assert pooled.panoptic_quality == pytest.approx(expected.panoptic_quality, nan_ok=True)


def test_scores_by_hand() -> None:
    """Three true objects: one found with IoU 3/4, one with 1/2, one missed; one invented."""
    truth = np.array([1, 1, 1, 1, 2, 2, 0, 3, 0])
    found = np.array([5, 5, 5, 0, 6, 0, 0, 0, 7])
    counts = counted(truth, found)
    assert counts.matches == (2, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    assert counts.ap[0] == 2 / (2 + 1 + 1)
    assert counts.f1[0] == 4 / 6
    assert counts.ap[5] == 1 / (1 + 2 + 2)
    assert counts.mean_ap == pytest.approx((0.5 + 5 * 0.2) / 10)
    # Above 1/2 there is the first alone; half of the second is not more than half.
    assert counts.panoptic_quality == pytest.approx(0.75 / (1 + 1 + 1))
    assert counts.seg == pytest.approx(0.75 / 3)


def test_thresholds_are_met_exactly() -> None:
    """11 of 20 pixels are an IoU of 0.55, 12 of 20 one of 0.6."""
    for common, matches in ((11, 2), (12, 3), (19, 10)):
        truth = np.ones(20, int)
        found = (np.arange(20) < common).astype(int)
        assert sum(counted(truth, found).matches) == matches


@pytest.mark.parametrize("flipped", [False, True])
def test_two_halves_of_one_object_are_one_match(flipped: bool) -> None:
    pair = np.array([1, 1, 1, 1]), np.array([1, 1, 2, 2])
    counts = counted(*(pair[::-1] if flipped else pair))
    assert counts.matches[:2] == (1, 0)
    assert counts.overlapping == 0


def test_empty_images() -> None:
    nothing, something = np.zeros((3, 3), int), np.eye(3, dtype=int)
    neither = counted(nothing, nothing)
    assert all(math.isnan(x) for x in (*neither.ap, neither.panoptic_quality, neither.seg))
    invented = counted(nothing, something)
    assert (invented.ap[0], invented.f1[0], invented.panoptic_quality) == (0, 0, 0)
    assert math.isnan(invented.seg)
    missed = counted(something, nothing)
    assert (missed.ap[0], missed.f1[0], missed.panoptic_quality, missed.seg) == (0, 0, 0, 0)
    assert (missed + neither).ap == missed.ap, "an image without objects changes nothing"
    assert math.isnan(missed.merged_share)


def test_matches_below_one_half_are_not_unique() -> None:
    ids = np.ones(1, dtype=np.uint64)
    with pytest.raises(ValueError, match="matches are unique"):
        count_matches(ids, ids, np.ones(1), 0.4)
