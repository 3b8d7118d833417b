"""Touching pairs, against a walk over all neighbours, and those that are merged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.metrics import touching
from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.touching import TouchingBlocks, holders, merged_pairs, touching_pairs
from tests.metrics.made_labels import label_pairs

Pairs = tuple[np.ndarray, np.ndarray]


def brute_force(labels: np.ndarray) -> set[tuple[int, int]]:
    height, width = labels.shape
    found = set()
    for y in range(height):
        for x in range(width):
            for near in ((y + 1, x), (y, x + 1)):
                if near[0] < height and near[1] < width:
                    pair = sorted((int(labels[y, x]), int(labels[near])))
                    if pair[0] and pair[0] != pair[1]:
                        found.add((pair[0], pair[1]))
    return found


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    rows = [tuple(row) for row in pairs.tolist()]
    assert len(rows) == len(set(rows))
    return set(rows)


@given(label_pairs())
def test_pairs_are_four_neighbours(pair: Pairs) -> None:
    assert as_set(touching_pairs(pair[0])) == brute_force(pair[0])


@given(label_pairs(), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
def test_pairs_across_blocks_are_found(pair: Pairs, height: int, width: int, waiting: int) -> None:
    labels = pair[0]
    blocks = TouchingBlocks(labels.shape[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(touching, "WAITING", waiting)
        for y in range(0, labels.shape[0], height):
            for x in range(0, labels.shape[1], width):
                stop = min(x + width, labels.shape[1])
                blocks.add(slice(x, stop), labels[y : y + height, x:stop])
    assert as_set(blocks.pairs) == brute_force(labels)


@given(label_pairs())
def test_merged_is_most_of_both(pair: Pairs) -> None:
    truth, prediction = pair
    pairs = touching_pairs(truth)
    merged = merged_pairs(pairs, count_pairs(truth, prediction))
    for (a, b), found in zip(pairs.tolist(), merged.tolist(), strict=True):
        held = [
            any(
                2 * ((truth == i) & (prediction == j)).sum() > (truth == i).sum()
                and 2 * ((truth == k) & (prediction == j)).sum() > (truth == k).sum()
                for j in np.unique(prediction)
                if j
            )
            for i, k in ((a, b),)
        ]
        assert found == held[0]


@pytest.mark.parametrize(
    ("prediction", "merged"),
    [
        ([7, 7, 7, 7], True),
        ([7, 7, 8, 8], False),
        ([7, 7, 7, 8], False),  # half of the second is not most of it
        ([0, 0, 0, 0], False),  # background holds both
        ([7, 0, 0, 7], False),
    ],
)
def test_a_pair_by_hand(prediction: list[int], merged: bool) -> None:
    truth, found = np.array([[1, 1, 2, 2]]), np.array([prediction])
    pairs = touching_pairs(truth)
    assert pairs.tolist() == [[1, 2]]
    assert merged_pairs(pairs, count_pairs(truth, found)).tolist() == [merged]


def test_corners_do_not_touch() -> None:
    assert touching_pairs(np.array([[1, 0], [0, 2]])).size == 0


def test_holders() -> None:
    table = count_pairs(np.array([0, 1, 1, 1, 2, 2]), np.array([4, 4, 4, 0, 4, 0]))
    assert holders(table).tolist() == [4, 4, 0]
