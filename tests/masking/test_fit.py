"""Labels that do not lie on the slide are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bigunet.errors import InputError, NotFoundError
from bigunet.images.open import open_image
from bigunet.masking.fit import Grid, pixel_ratio, same_field
from bigunet.masking.plan import plan_mask
from tests.masking.made_masks import slide_with

ONES = np.ones((16, 16), np.uint8)


def refusal(path: Path, wanted: str = "roi", kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as refused:
        plan_mask(open_image(path), 0, wanted)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_label_that_does_not_cover_the_slide_names_both_sizes(tmp_path: Path) -> None:
    line = refusal(slide_with(tmp_path / "a.zarr", (64, 100), ONES, 0.5))
    assert "labels/roi covers 16 × 16 px at (0, 0)" in line
    assert "has 64 × 100 px" in line


def test_a_label_whose_pixel_size_is_not_said_covers_too_much(tmp_path: Path) -> None:
    # 32 pixels of 0.5 µm are 16 µm, and so are 16 pixels of 1 µm; 4 µm are too many.
    assert "covers 128 × 128 px" in refusal(slide_with(tmp_path / "a.zarr", (32, 32), ONES, 4.0))


def test_planes_that_do_not_fit(tmp_path: Path) -> None:
    label = np.ones((3, 16, 16), np.uint8)
    path = slide_with(tmp_path / "a.zarr", (5, 16, 16), label, 0.5, axes="zyx", label_axes="zyx")
    assert "3 planes along z and the level that is segmented has 5" in refusal(path)
    path = slide_with(tmp_path / "b.zarr", (16, 16), label, 0.5, label_axes="tyx")
    assert "3 planes along t and the level that is segmented has 1" in refusal(path)


def test_a_label_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    path = slide_with(tmp_path / "a.zarr", (16, 16), ONES, 0.5)
    assert refusal(path, "rio", NotFoundError).endswith("has no labels 'rio': it has roi")


def grid(size: int, scale: float, start: float = 0.0) -> Grid:
    return Grid(shape=(size, size), scale=(scale, scale), start=(start, start))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (grid(439, 1), grid(219, 2), True),  # rounded down
        (grid(439, 1), grid(110, 4), True),  # rounded up
        (grid(439, 1), grid(109, 4, 1.5), True),  # first pixels' centres as translations
        (grid(439, 1), grid(108, 4), False),
        (grid(439, 1), grid(110, 4, 40.0), False),
        (grid(1000, 0.325), grid(500, 0.65), True),
        (grid(100, 0.5), grid(100, 7.0, 3.0), True),  # the same pixels, whatever is said
    ],
)
def test_levels_cover_the_same_field_up_to_a_pixel(one: Grid, other: Grid, same: bool) -> None:
    assert same_field(one, other) == same_field(other, one) == same


def test_ratios_are_exact() -> None:
    assert pixel_ratio(grid(600, 0.325), grid(300, 0.65)) == (1 / 2, 1 / 2)
    assert pixel_ratio(grid(300, 0.3), grid(900, 0.1)) == (3, 3)
    assert pixel_ratio(grid(300, 0.3), grid(300, 7.0)) == (1, 1)
