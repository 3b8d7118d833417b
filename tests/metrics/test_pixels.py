"""IoU and Dice of classes, and the F-score of masks, against sums over masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from bigunet.metrics.contingency import count_pairs, sum_tables
from bigunet.metrics.pixels import PixelCounts, count_classes, count_foreground
from tests.metrics.made_labels import label_pairs, mask_pairs

Pairs = tuple[np.ndarray, np.ndarray]


@given(label_pairs())
def test_classes_are_compared_mask_by_mask(pair: Pairs) -> None:
    truth, prediction = pair
    found = {one.value: one for one in count_classes(count_pairs(truth, prediction))}
    assert set(found) == set(np.unique([truth, prediction]).tolist())
    for value, one in found.items():
        t, p = truth == value, prediction == value
        assert one.iou == pytest.approx((t & p).sum() / (t | p).sum())
        assert one.dice == pytest.approx(2 * (t & p).sum() / (t.sum() + p.sum()))


def test_classes_by_hand_and_pooled() -> None:
    one = count_pairs(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    other = count_pairs(np.array([2, 2]), np.array([1, 2]))
    zero, first, second = count_classes(sum_tables([one, other]))
    assert (zero.iou, zero.dice) == (1 / 2, 2 / 3)
    assert (first.true, first.predicted, first.both, first.iou) == (3, 3, 2, 0.5)
    assert (second.value, second.iou) == (2, 0.5)


@given(mask_pairs())
def test_foreground(pair: Pairs) -> None:
    truth, prediction = pair
    counts = count_foreground(truth, prediction)
    assert counts.tp == (truth & prediction).sum()
    assert counts.fp == (~truth & prediction).sum()
    assert counts.fn == (truth & ~prediction).sum()
    assert counts + PixelCounts() == counts


def test_f_score_by_hand_and_empty() -> None:
    assert PixelCounts(tp=2, fp=1, fn=1).f_score == pytest.approx(2 / 3)
    assert PixelCounts(fp=3).f_score == 0
    assert math.isnan(PixelCounts().f_score)
