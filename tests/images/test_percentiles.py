"""Percentiles by mid-ranks, against the table of all values."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bigunet.images.percentiles import percentile_of_sorted
from tests.images.made_intensity import oracle_percentiles


@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=60),
    st.tuples(st.floats(0, 100), st.floats(0, 100)),
)
def test_percentiles_agree_with_the_table_of_all_values(values, qs):
    ordered = np.sort(np.asarray(values, np.int8))
    found = [percentile_of_sorted(ordered, q) for q in qs]
    np.testing.assert_allclose(found, oracle_percentiles(ordered, qs), rtol=1e-9, atol=1e-6)


@given(st.integers(1, 300), st.floats(0, 100))
def test_percentiles_of_different_values_are_numpys_hazen(count, q):
    ordered = np.sort(np.random.default_rng(count).normal(size=count))
    expected = np.percentile(ordered, q, method="hazen")
    np.testing.assert_allclose(percentile_of_sorted(ordered, q), expected, rtol=1e-9, atol=1e-9)
