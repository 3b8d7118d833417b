"""Tissue is found on dark and on bright ground, and is a function of the slide alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage

from bigunet.images.open import open_image
from bigunet.images.sample import write_sample
from bigunet.masking import tissue
from bigunet.masking.tissue import choose_look, find_cells
from tests.images.labelled_images import write_image
from tests.masking.made_masks import nuclei, tissue_slide
from tests.slides import write_slide


def pixels_of(path: Path, look: int = 0) -> np.ndarray:
    """The found cells as pixels of the level."""
    image = open_image(path)
    cells, side = find_cells(image, look)
    height, width = image.levels[look].shape[-2:]
    return cells.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]


def test_nuclei_and_their_margin_are_inside_and_dark_ground_is_not(tmp_path: Path) -> None:
    inside = pixels_of(tissue_slide(tmp_path / "a.zarr"))
    bright = nuclei(640) > 700
    margin = ndimage.binary_dilation(bright, iterations=6)  # 24 of 25 µm
    assert inside[margin].all()
    assert not inside[:, 400:].any()


@pytest.mark.parametrize("black", [0, 3])
def test_stained_tissue_on_glass_in_a_black_surrounding(tmp_path: Path, black: int) -> None:
    rng = np.random.default_rng(0)
    slide = 240 + rng.normal(0, 1.5, (3, 600, 800))
    stained = np.zeros((600, 800), dtype=bool)
    stained[200:350, 150:400] = True
    texture = ndimage.gaussian_filter(rng.normal(0, 1, (600, 800)), 2)
    slide[:, stained] -= np.array([40, 110, 60])[:, None] + 150 * texture[stained]
    slide[:, :, 650:] = rng.integers(0, black + 1, (3, 600, 150))
    path = write_slide(
        tmp_path / "a.zarr",
        slide.clip(0, 255).astype(np.uint8),
        "cyx",
        pixel_size=4.0,
        levels=1,
        chunk=400,
    )
    inside = pixels_of(path)
    assert inside[stained].all()
    far = ~ndimage.binary_dilation(stained, iterations=40)
    assert not inside[far].any()


def test_holes_are_filled_and_specks_dropped(tmp_path: Path) -> None:
    image = np.full((700, 700), 200.0)
    image[100:500, 100:500] += np.random.default_rng(0).normal(0, 300, (400, 400))
    image[220:280, 220:280] = 200  # a hole of 240 µm
    image[300:480, 300:480] = 200  # one of 720 µm
    image[600, 600] += 4000  # a pixel
    path = write_slide(
        tmp_path / "a.zarr",
        image.clip(0).astype(np.uint16)[None],
        "cyx",
        pixel_size=4.0,
        levels=1,
        chunk=400,
    )
    inside = pixels_of(path)
    assert inside[220:280, 220:280].all()
    assert not inside[380:400, 380:400].any()
    # At 4 µm a pixel may be a nucleus; at 0.5 µm it is a speck.
    assert inside[600, 600]
    fine = write_slide(
        tmp_path / "b.zarr", image.clip(0).astype(np.uint16)[None], "cyx", levels=1, chunk=400
    )
    assert not pixels_of(fine)[590:610, 590:610].any()


@pytest.mark.parametrize("chunk", [37, 100, 512])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_chunks_change_nothing(tmp_path: Path, chunk: int, version: str) -> None:
    one = pixels_of(tissue_slide(tmp_path / "a.zarr", 300, chunk=64))
    other = tissue_slide(tmp_path / "b.zarr", 300, chunk=chunk, version=version)
    assert np.array_equal(pixels_of(other), one)


def test_windows_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 300)
    one = pixels_of(path)
    for window in (60, 100):
        monkeypatch.setattr(tissue, "WINDOW", window)
        assert np.array_equal(pixels_of(path), one)


def test_all_planes_and_channels_count(tmp_path: Path) -> None:
    slide = np.full((2, 2, 400, 400), 50, np.uint16)
    slide[0, 0, 100:110, 100:110] = 900
    slide[1, 1, 300:310, 300:310] = 9000
    inside = pixels_of(write_slide(tmp_path / "a.zarr", slide, "czyx", pixel_size=4.0, chunk=400))
    assert inside[100:110, 100:110].all()
    assert inside[300:310, 300:310].all()
    assert not inside[200:210].any()


def test_nothing_is_seen_on_flat_ground_or_where_nothing_is_finite(tmp_path: Path) -> None:
    flat = np.full((1, 60, 60), 7.0, np.float32)
    assert not pixels_of(write_slide(tmp_path / "a.zarr", flat, "cyx")).any()
    assert not pixels_of(write_slide(tmp_path / "b.zarr", flat * np.nan, "cyx")).any()


def test_pixels_without_data_hide_nothing(tmp_path: Path) -> None:
    slide = nuclei(300).astype(np.float32)[None]
    slide[:, :, 250:] = np.nan
    slide[0, 17] = np.inf
    inside = pixels_of(write_slide(tmp_path / "a.zarr", slide, "cyx", pixel_size=4.0))
    assert inside[nuclei(300) > 700].all()
    assert not inside[:, 260:].any()


def test_no_nucleus_of_the_sample_is_lost(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "a.zarr", 1200, seed=1)
    inside = pixels_of(path)
    truth = zarr.open_array(path / "labels/truth/0", mode="r")[:]
    assert inside[truth > 0].all()
    assert 0.2 < inside.mean() < 0.95


def levels(tmp_path: Path, *levels: tuple[int, float], unit: str | None = "micrometer") -> Path:
    shapes = [(size, size) for size, _ in levels]
    return write_image(tmp_path / "a.zarr", list(shapes), "yx", [(s, s) for _, s in levels], unit)


PYRAMID = [(32768, 0.25), (16384, 0.5), (8192, 1.0), (4096, 2.0), (2048, 4.0), (1024, 8.0)]


def test_the_coarsest_level_that_still_shows_nuclei_is_looked_at(tmp_path: Path) -> None:
    image = open_image(levels(tmp_path, *PYRAMID))
    assert [choose_look(image, level) for level in range(6)] == [4] * 6


def test_pixels_are_never_larger_than_a_nucleus(tmp_path: Path) -> None:
    image = open_image(levels(tmp_path, *((2 * n, 2 * s) for n, s in PYRAMID)))
    assert choose_look(image, 0) == 3


def test_small_slides_are_looked_at_on_their_finest_level(tmp_path: Path) -> None:
    assert choose_look(open_image(levels(tmp_path, (500, 1.0), (250, 2.0))), 1) == 0


def test_without_a_unit_pixels_count_as_those_of_a_scan(tmp_path: Path) -> None:
    image = open_image(levels(tmp_path, *((n, s * 400) for n, s in PYRAMID), unit=None))
    assert choose_look(image, 0) == 3


def test_levels_that_cover_something_else_are_left_alone(tmp_path: Path) -> None:
    image = open_image(levels(tmp_path, (16384, 0.5), (8192, 1.0), (4096, 3.0)))
    assert choose_look(image, 0) == 1
    assert choose_look(image, 2) == 2
