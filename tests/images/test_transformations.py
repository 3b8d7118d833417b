"""Units of length, and scales made of shapes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.images.transformations import micrometres, relative_scales


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        *[("micrometer", 1.0), ("nanometer", 1e-3), ("millimeter", 1e3), ("angstrom", 1e-4)],
        *[("µm", 1.0), ("μm", 1.0), ("um", 1.0), ("micron", 1.0), ("Micrometers", 1.0)],
        *[("micrometre", 1.0), ("inch", 25_400.0)],
        *[(None, None), ("", None), ("pixel", None), ("second", None)],
    ],
)
def test_units_of_length(unit: str | None, value: float | None) -> None:
    assert micrometres(unit) == value


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=3),
    st.sampled_from([2, 3, 4]),
    st.sampled_from([lambda n, f: n // f, lambda n, f: -(-n // f)]),
    st.integers(1, 4),
)
def test_relative_scales_find_the_factor_whichever_way_it_was_rounded(
    shape: list[int], factor: int, rounded: Any, count: int
) -> None:
    shapes = [[max(1, rounded(n, factor**i)) for n in shape] for i in range(count)]
    for i, scales in enumerate(relative_scales(shapes)):
        for n, small, found in zip(shape, shapes[i], scales, strict=True):
            assert found == factor**i or n < 2 * factor ** (2 * i) or small == 1


def test_relative_scales_keep_an_odd_ratio() -> None:
    assert relative_scales([(10, 100), (10, 70)])[1] == (1.0, pytest.approx(100 / 70))
