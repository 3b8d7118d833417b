"""Rules that cannot be meant are refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from bigunet.errors import InputError
from bigunet.instances.rules import Rules


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": -1}, "gap -1: a whole number of pixels from 0"),
        ({"gap": 1.5}, "gap 1.5"),
        ({"min_area": True}, "min_area True"),
        ({"min_area": -3}, "min_area -3"),
        ({"max_area": 0}, "max_area 0: a whole number of pixels from 1"),
        ({"min_area": 9, "max_area": 8}, "min_area 9 is above max_area 8"),
        ({"split": "shape", "max_diameter": 9}, "split 'shape': only 'distance'"),
        ({"split": "distance"}, "split 'distance' with max_diameter None: give both or neither"),
        ({"max_diameter": 9}, "split None with max_diameter 9"),
        ({"split": "distance", "max_diameter": 0}, "max_diameter 0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Rules(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "refine", "ring", "halo"),
    [
        ({}, False, 0, 0),
        ({"min_area": 5, "max_area": 9}, False, 0, 0),
        ({"gap": 2}, True, 2, 0),
        ({"fill_holes": True}, True, 1, 0),
        ({"gap": 2, "fill_holes": True}, True, 3, 0),
        ({"split": "distance", "max_diameter": 40}, False, 0, 40),
    ],
)
def test_what_a_block_has_to_see(options, refine, ring, halo):
    rules = Rules(**options)
    assert (rules.refine, rules.ring, rules.halo) == (refine, ring, halo)


def test_sizes_are_inclusive():
    kept = Rules(min_area=2, max_area=4).kept(np.arange(7))
    assert np.flatnonzero(kept).tolist() == [2, 3, 4]
