"""Rand, V_Rand and V_Info, against pairs that are counted one by one and scikit-image."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from skimage.metrics import adapted_rand_error, variation_of_information

from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.partitions import Partition, compare_partitions
from tests.metrics.made_labels import label_pairs

Pairs = tuple[np.ndarray, np.ndarray]


def compared(truth: np.ndarray, prediction: np.ndarray) -> Partition:
    return compare_partitions(count_pairs(truth, prediction))


def with_lonely_background(prediction: np.ndarray) -> np.ndarray:
    """Give each background pixel an id of its own, which other implementations need."""
    alone = prediction.astype(np.int64)
    alone[alone == 0] = np.arange(100, 100 + np.count_nonzero(alone == 0))
    return alone


@given(label_pairs())
def test_rand_is_counted_over_pairs_of_pixels(pair: Pairs) -> None:
    inside = pair[0] != 0
    truth, prediction = pair[0][inside], with_lonely_background(pair[1])[inside]
    both = joined_true = joined_found = 0
    for i, j in itertools.combinations(range(truth.size), 2):
        same_true, same_found = truth[i] == truth[j], prediction[i] == prediction[j]
        both += same_true and same_found
        joined_true += same_true
        joined_found += same_found
    scores = compared(*pair)
    assert scores.pixels == truth.size
    if joined_true + joined_found:
        assert scores.rand_f_score == pytest.approx(2 * both / (joined_true + joined_found))
    if joined_true:
        assert scores.rand_recall == pytest.approx(both / joined_true)
    if joined_found:
        assert scores.rand_precision == pytest.approx(both / joined_found)


@given(label_pairs())
def test_scores_are_those_of_scikit_image(pair: Pairs) -> None:
    truth, prediction = pair[0].astype(np.int64), with_lonely_background(pair[1])
    scores = compared(*pair)
    inside = truth != 0
    assume(inside.any())
    if not (math.isnan(scores.rand_precision) or math.isnan(scores.rand_recall)):
        # What it calls precision divides by the pairs of the truth, which is recall here.
        error, recall, precision = adapted_rand_error(truth, prediction, ignore_labels=(0,))
        assert scores.rand_precision == pytest.approx(precision)
        assert scores.rand_recall == pytest.approx(recall)
        if precision + recall:
            assert 1 - scores.rand_f_score == pytest.approx(error)
    # I = (H(T) + H(S) − VI) / 2, with VI from scikit-image on the foreground alone.
    split, merge = variation_of_information(truth[inside], prediction[inside])
    entropy = sum(
        -sum(p * math.log2(p) for p in np.unique(ids, return_counts=True)[1] / ids.size)
        for ids in (truth[inside], prediction[inside])
    )
    if entropy > 1e-9:
        expected = (entropy - split - merge) / entropy
        assert scores.v_info == pytest.approx(expected, abs=1e-9)


@given(label_pairs(), label_pairs())
def test_images_side_by_side_add_up(one: Pairs, other: Pairs) -> None:
    """Pooled scores are those of one image that holds both, no object in common."""
    apart = [a.astype(np.int64) + 50 * (a > 0) for a in other]
    together = [
        np.concatenate([a.ravel(), b.ravel()]).astype(np.int64)
        for a, b in zip(one, apart, strict=True)
    ]
    pooled, expected = compared(*one) + compared(*other), compared(together[0], together[1])
    for name in ("rand_f_score", "v_rand", "v_info"):
        assert getattr(pooled, name) == pytest.approx(getattr(expected, name), nan_ok=True)


def test_a_merger_and_a_split_by_hand() -> None:
    truth, prediction = np.array([1, 1, 2, 2]), np.array([5, 5, 5, 5])
    merger, split = compared(truth, prediction), compared(prediction, truth)
    # 6 pairs are joined by the one object, 2 of them rightly.
    assert (merger.rand_precision, merger.rand_recall) == (pytest.approx(1 / 3), 1)
    assert (split.rand_precision, split.rand_recall) == (1, pytest.approx(1 / 3))
    assert merger.rand_f_score == split.rand_f_score == 0.5
    # Σ p² = 2² + 2², against 2² + 2² and 4².
    assert merger.v_rand == split.v_rand == pytest.approx(2 * 8 / (8 + 16))
    # One of the two has no information.
    assert merger.v_info == split.v_info == pytest.approx(0)


def test_background_of_the_truth_does_not_count_and_that_of_the_prediction_is_alone() -> None:
    truth, prediction = np.array([0, 0, 1, 1, 1]), np.array([7, 7, 7, 0, 0])
    scores = compared(truth, prediction)
    assert scores.pixels == 3
    assert scores.rand_recall == 0  # none of 3 pairs: the two background pixels are not joined
    assert scores.v_rand == pytest.approx(2 * 3 / (9 + 3))


def test_perfect_and_empty_images() -> None:
    truth = np.array([1, 1, 2, 3, 0])
    perfect = compared(truth, truth)
    assert (perfect.rand_f_score, perfect.v_rand) == (1, 1)
    assert perfect.v_info == pytest.approx(1)
    whole = compared(np.ones(4, int), np.ones(4, int))
    assert (whole.rand_f_score, whole.v_rand, whole.v_info) == (1, 1, 1)
    dots = compared(np.arange(1, 4), np.arange(1, 4))
    assert dots.rand_f_score == 1
    empty = compared(np.zeros(4, int), np.arange(4))
    assert all(math.isnan(x) for x in (empty.rand_f_score, empty.v_rand, empty.v_info))


def test_large_parts_do_not_overflow() -> None:
    side = 4_000_000_000
    table = count_pairs(np.array([1]), np.array([1]))
    table.table.data[:] = side
    scores = compare_partitions(table)
    assert scores.rand_f_score == pytest.approx(1)
    assert scores.both_squares == float(side) ** 2
