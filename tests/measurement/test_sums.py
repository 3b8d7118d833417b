from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops

from bigunet.measurement.sums import Intensities, ShapeSums

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
PLACES = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))


@given(mask=MASKS, low=PLACES, cut=st.integers(1, 12), seed=st.integers(0, 99))
def test_sums_of_pieces_are_the_properties_of_the_whole(
    mask: np.ndarray, low: tuple[int, int], cut: int, seed: int
) -> None:
    assume(mask.any())
    pixels = np.random.default_rng(seed).integers(0, 2**16, (*mask.shape, 2), dtype=np.uint16)
    shape, intensities = ShapeSums(), Intensities(2)
    for y in range(0, mask.shape[0], cut):
        piece = mask[y : y + cut]
        shape.add(piece, (low[0] + y, low[1]))
        if piece.any():
            intensities.add(pixels[y : y + cut][piece])
    whole = regionprops(mask.astype(np.uint8), pixels, offset=low)[0]
    box = whole.image.shape
    found = shape.values(box) | intensities.values()
    assert shape.area == whole.area
    np.testing.assert_allclose(shape.centroid, whole.centroid, rtol=1e-12)
    tensor = whole.inertia_tensor
    for name, values in found.items():
        if name == "orientation" and np.allclose(tensor, np.eye(2) * tensor[0, 0], atol=1e-9):
            continue  # a region without a long axis has no orientation
        expected = np.ravel(whole[name])
        if name == "orientation":
            # Of an axis, so of period π; scikit-image's rounding gives a level one either end.
            values, expected = [0.0], np.sin(np.subtract(values, expected))
        # The roots of numbers near 0 have half of their digits.
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-6, err_msg=name)


def test_a_region_without_a_long_axis_is_oriented_as_scikit_image_says() -> None:
    for mask in (np.ones((1, 1)), np.ones((4, 4)), np.eye(3), np.eye(3)[::-1]):
        shape = ShapeSums()
        shape.add(mask.astype(bool), (0, 0))
        whole = regionprops(mask.astype(np.uint8))[0]
        assert shape.values(mask.shape)["orientation"] == [whole.orientation]


def test_a_level_axis_is_at_a_right_angle_to_the_rows_and_never_at_minus_one() -> None:
    wide = np.array([[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]], bool)
    for mask in (wide, wide[::-1], np.ones((2, 3), bool)):
        shape = ShapeSums()
        shape.add(mask, (0, 0))
        assert shape.values(mask.shape)["orientation"] == [np.pi / 2]
