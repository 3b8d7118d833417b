"""Objects or classes: clear cases are read, others are refused with both readings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.metrics.kinds import choose_kind, gather_evidence
from bigunet.metrics.sources import Stored
from tests.metrics.made_labels import label_pairs

Pairs = tuple[np.ndarray, np.ndarray]


def kind(*planes: np.ndarray) -> str:
    return choose_kind(gather_evidence(Stored(plane) for plane in planes), "mask.png")


def grid(values: int, repeat: int = 1) -> np.ndarray:
    """Squares of 1 … values apart from each other, each `repeat` times."""
    image = np.zeros((5, 4 * values * repeat), dtype=np.uint16)
    for k in range(values * repeat):
        image[1:4, 4 * k + 1 : 4 * k + 4] = k % values + 1
    return image


def test_clear_cases() -> None:
    assert kind(grid(12)) == "instances"
    assert kind(grid(1, repeat=9)) == "classes"
    assert kind(grid(1, repeat=9) * 255) == "classes"
    assert kind(grid(3, repeat=4)) == "classes"
    assert kind(grid(2).astype(np.uint32) * 3000) == "instances"
    assert kind(np.zeros((4, 4), dtype=np.uint8)) == "classes"
    assert kind(np.zeros((4, 4), np.uint8), grid(1), grid(7), grid(2)) == "instances"


def test_what_may_be_both_is_refused_with_both_readings() -> None:
    with pytest.raises(InputError) as caught:
        kind(grid(3))
    message = str(caught.value)
    assert message.startswith("mask.png holds the values 1, 2, 3 in 3 regions")
    assert "--kind instances reads 3 objects" in message
    assert "--kind classes reads 3 classes" in message


@given(label_pairs())
def test_regions_are_components_of_equal_values(pair: Pairs) -> None:
    labels = pair[0]
    expected = sum(ndimage.label(labels == value)[1] for value in np.unique(labels) if value)
    evidence = gather_evidence([Stored(labels)])
    assert evidence.parts == expected
    assert evidence.occurrences == len(evidence.values) == np.unique(labels[labels > 0]).size
