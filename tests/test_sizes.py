"""Sizes with and without units, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.sizes import Size, parse_area, parse_length


@given(st.integers(0, 10**6), st.sampled_from(["", "px", " px"]))
def test_pixels_are_taken_as_they_are(size: int, unit: str) -> None:
    assert parse_area("min_area", f"{size}{unit}", None) == size
    assert parse_length("max_diameter", size, 0.25) == size


@given(st.floats(0.01, 100), st.sampled_from(["um", "µm", "μm", " um"]))
def test_micrometres_go_by_the_size_of_a_pixel(pixel: float, unit: str) -> None:
    assert parse_length("x", f"12.5{unit}", pixel) == pytest.approx(12.5 / pixel)
    for square in ("2", "²"):
        assert parse_area("x", f"12.5{unit}{square}", pixel) == pytest.approx(12.5 / pixel**2)


@pytest.mark.parametrize("size", ["", "-3", "nan", "1e3", "20um", "20mm2", "2 0", -3.0, "9" * 400])
def test_what_is_no_area_is_refused(size: Size) -> None:
    with pytest.raises(InputError, match=r"min_area '.*' is no size; give pixels such as 20"):
        parse_area("min_area", size, 0.5)


def test_micrometres_without_a_unit_of_the_image_are_refused() -> None:
    with pytest.raises(InputError, match="'5um' is in micrometres, but the image does not say"):
        parse_length("max_diameter", "5um", None)
