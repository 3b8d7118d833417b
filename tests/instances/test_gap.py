"""The gap is undone between two objects, nowhere else, and looks no further than its width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from bigunet.instances.gap import close_gap
from bigunet.metrics.objects import ObjectCounts
from bigunet.training.targets import separate
from tests.instances.nuclei import annotated_nuclei, score
from tests.instances.routes import dumb_close_gap

GAPS = st.integers(0, 4)


@st.composite
def planes(draw: st.DrawFn, dtype: type = np.int32) -> np.ndarray:
    """Draw ids that lie thinly enough for gaps between them."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=9))
    noise = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.nothing()))
    return ((noise % 16 < draw(st.integers(1, 15))) * (1 + noise // 16 % 4)).astype(dtype)


@given(planes(), GAPS)
def test_the_law(ids, gap):
    np.testing.assert_array_equal(close_gap(ids, gap), dumb_close_gap(ids, gap))


@given(planes(), GAPS, st.integers(0, 8), st.integers(0, 8))
def test_a_pixel_depends_on_the_gap_around_it_only(ids, gap, y, x):
    y, x = y % ids.shape[-2], x % ids.shape[-1]
    top, left = max(0, y - gap), max(0, x - gap)
    window = ids[..., top : y + gap + 1, left : x + gap + 1]
    found = close_gap(window, gap)[..., y - top, x - left]
    np.testing.assert_array_equal(found, close_gap(ids, gap)[..., y, x])


@given(planes(), GAPS)
def test_objects_only_grow(ids, gap):
    before = ids.copy()
    closed = close_gap(ids, gap)
    np.testing.assert_array_equal(ids, before)
    np.testing.assert_array_equal(closed[ids != 0], ids[ids != 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_types_stay_and_large_ids_are_kept(dtype):
    most = np.iinfo(dtype).max
    closed = close_gap(np.array([[1, 0, 0, most]], dtype), 2)
    assert closed.dtype == dtype and closed.tolist() == [[1, 1, most, most]]


@pytest.mark.parametrize(
    ("row", "gap", "expected"),
    [
        ("1.2", 1, "112"),  # a tie: the lower id
        ("2.1", 1, "211"),
        ("1..2", 1, "1..2"),
        ("1..2", 2, "1122"),
        ("1...2", 2, "1...2"),
        ("1...2", 3, "11122"),
        ("1..1", 2, "1..1"),  # one object has no gap with itself
        ("..1..", 4, "..1.."),
    ],
)
def test_rows(row, gap, expected):
    ids = np.array([[int(c) for c in row.replace(".", "0")]])
    found = "".join(str(i) for i in close_gap(ids, gap)[0]).replace("0", ".")
    assert found == expected


def test_straight_touches_come_back():
    ids = np.repeat(np.arange(1, 5), 6)[None].repeat(5, axis=0)
    for stripes in (ids, ids.T):
        np.testing.assert_array_equal(close_gap(separate(stripes, 2), 2), stripes)


def test_perfect_predictions_of_real_nuclei(shared_data: Path):
    apart, undone = ObjectCounts(), ObjectCounts()
    for truth in annotated_nuclei(shared_data, every=2):
        found, _ = ndimage.label(separate(truth, 2))
        apart += score(truth, found)
        undone += score(truth, close_gap(found, 2))
    assert undone.ap[0] >= apart.ap[0] > 0.98
    assert undone.ap[8] > 0.96 > 0.93 > apart.ap[8]
