"""Pixels and ids from places, against versions that go pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.geometry import mirror_indices
from bigunet.training.warping import mirror_index, warp_ids, warp_image

SEEDS = st.integers(0, 2**32 - 1)


def scene(seed: int, channels: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return image, ids, what is known, and places far beyond the image's end."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 8, 2)
    image = rng.random((channels, height, width), dtype=np.float32)
    ids = rng.integers(0, 5, (height, width), dtype=np.int32)
    places = rng.uniform(-20, 25, (2, 4, 6))
    return image, ids, rng.random((height, width)) < 0.8, places


def mirrored(index: int, size: int) -> int:
    return mirror_indices(index, index + 1, size)[0]


def linear_at(plane: np.ndarray, y: float, x: float) -> float:
    """Interpolate between four pixels of the plane mirrored without end."""
    top, left = int(np.floor(y)), int(np.floor(x))
    value = 0.0
    for row, by_row in ((top, top + 1 - y), (top + 1, y - top)):
        for column, by_column in ((left, left + 1 - x), (left + 1, x - left)):
            pixel = plane[mirrored(row, plane.shape[0]), mirrored(column, plane.shape[1])]
            value += by_row * by_column * float(pixel)
    return value


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(1, 20))
def test_indices_are_mirrored_as_in_segmentation(start, length, size):
    indices = np.arange(start, start + length)
    assert mirror_index(indices, size).tolist() == mirror_indices(start, start + length, size)


@given(SEEDS)
def test_pixels_are_interpolated_in_the_mirrored_image(seed):
    image, _, _, places = scene(seed)
    found = warp_image(image, places, 1)
    assert found.dtype == np.float32
    for c, y, x in np.ndindex(found.shape):
        assert found[c, y, x] == pytest.approx(linear_at(image[c], *places[:, y, x]), abs=1e-5)


@given(SEEDS)
def test_ids_are_those_of_the_nearest_pixel_and_valid_inside_only(seed):
    _, ids, known, places = scene(seed)
    found, valid = warp_ids(ids, known, places)
    assert found.dtype == np.int32 and valid.dtype == bool
    for y, x in np.ndindex(found.shape):
        row, column = (int(np.floor(p + 0.5)) for p in places[:, y, x])
        at = mirrored(row, ids.shape[0]), mirrored(column, ids.shape[1])
        assert found[y, x] == ids[at]
        assert valid[y, x] == (at == (row, column) and known[at])


@pytest.mark.parametrize("order", [1, 3])
@given(seed=SEEDS)
def test_whole_places_copy_pixels_bit_for_bit(order, seed):
    image, ids, known, places = scene(seed)
    whole = np.rint(places)
    rows, columns = whole.astype(int)
    padded = np.pad(image, [(0, 0), (30, 30), (30, 30)], mode="symmetric")
    np.testing.assert_array_equal(
        warp_image(image, whole, order), padded[:, rows + 30, columns + 30]
    )
    found, _ = warp_ids(ids, known, whole)
    expected = np.pad(ids, 30, mode="symmetric")[rows + 30, columns + 30]
    np.testing.assert_array_equal(found, expected)


@given(SEEDS)
def test_pixels_and_ids_follow_one_map(seed):
    # Two cells side by side, shown as an image of their own ids.
    ids = np.ones((12, 12), np.int32)
    ids[:, 6:] = 2
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 11, (2, 9, 9))
    found, _ = warp_ids(ids, np.ones_like(ids, bool), places)
    shown = warp_image(ids[None].astype(np.float32), places, 1)[0]
    np.testing.assert_array_equal(found[shown != 1.5], np.rint(shown[shown != 1.5]))


def test_cubic_is_closer_to_a_smooth_image_than_linear():
    y, x = np.mgrid[:40, :40]
    image = np.sin(y / 2)[None].astype(np.float32) * np.cos(x / 3)
    places = np.random.default_rng(0).uniform(10, 30, (2, 20, 20))
    truth = np.sin(places[0] / 2) * np.cos(places[1] / 3)
    linear, cubic = (np.abs(warp_image(image, places, k)[0] - truth).max() for k in (1, 3))
    assert cubic < linear / 10
