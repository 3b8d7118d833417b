"""Tables of pairs of ids, against a dictionary that counts pixel by pixel."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.metrics import contingency
from bigunet.metrics.contingency import Contingency, as_ids, count_pairs, sum_tables
from tests.metrics.made_labels import label_pairs

Pairs = tuple[np.ndarray, np.ndarray]


def as_counter(table: Contingency) -> Counter[tuple[int, int]]:
    truth, prediction, pixels = table.entries
    rows = zip(truth.tolist(), prediction.tolist(), strict=True)
    counted = Counter(dict(zip(rows, pixels.tolist(), strict=True)))
    assert len(counted) == table.table.nnz, "a pair stands twice"
    return counted


def brute_force(truth: np.ndarray, prediction: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter(zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True))


@given(label_pairs())
def test_pairs_are_counted_pixel_by_pixel(pair: Pairs) -> None:
    table = count_pairs(*pair)
    assert as_counter(table) == brute_force(*pair)
    assert table.pixels == pair[0].size
    assert dict(zip(table.truth_ids.tolist(), table.truth_pixels.tolist(), strict=True)) == Counter(
        pair[0].ravel().tolist()
    )
    assert table.prediction_pixels.sum() == pair[1].size


@given(label_pairs(), st.integers(1, 9), st.integers(1, 9), st.integers(0, 20), st.randoms())
def test_blocks_in_any_order_add_up_to_the_image(
    pair: Pairs, height: int, width: int, waiting: int, random: Any
) -> None:
    truth, prediction = pair
    blocks = [
        (slice(y, y + height), slice(x, x + width))
        for y in range(0, truth.shape[0], height)
        for x in range(0, truth.shape[1], width)
    ]
    random.shuffle(blocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contingency, "WAITING", waiting)
        summed = sum_tables(count_pairs(truth[block], prediction[block]) for block in blocks)
    assert as_counter(summed) == brute_force(truth, prediction)


def test_nothing_is_an_empty_table() -> None:
    empty = np.zeros((0, 5), dtype=np.uint8)
    for table in (count_pairs(empty, empty), sum_tables([])):
        assert table.pixels == 0
        assert table.truth_ids.size == table.prediction_ids.size == 0


def test_ids_of_64_bits_stay_apart() -> None:
    truth = np.array([2**63, 2**63 + 1, 2**64 - 1], dtype=np.uint64)
    table = count_pairs(truth, np.arange(3))
    assert table.truth_ids.tolist() == [2**63, 2**63 + 1, 2**64 - 1]


def test_what_cannot_be_ids_is_refused() -> None:
    assert as_ids(np.array([True, False])).tolist() == [1, 0]
    with pytest.raises(InputError, match="float64; ids and classes are integers"):
        as_ids(np.zeros(3))
    with pytest.raises(InputError, match="down to -2"):
        as_ids(np.array([1, -2]))
    with pytest.raises(InputError, match=r"the truth is \(2,\) and the prediction \(3,\)"):
        count_pairs(np.zeros(2, int), np.zeros(3, int))
