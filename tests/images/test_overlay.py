"""Labels drawn over an image, in arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bigunet.errors import InputError
from bigunet.images.overlay import overlay
from tests.images.labelled_images import square


@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=7),
    ),
    data=st.data(),
)
@settings(deadline=None)
def test_overlay_draws_any_image(image: np.ndarray, data: st.DataObject) -> None:
    dtypes = st.sampled_from([np.uint8, np.int32, np.uint64, np.int8])
    labels = data.draw(dtypes.flatmap(lambda d: hnp.arrays(d, image.shape[-2:])))
    drawn = overlay(image, labels)
    assert drawn.shape == (*labels.shape, 3)
    assert drawn.dtype == np.uint8
    bare = overlay(image, np.zeros_like(labels))
    np.testing.assert_array_equal(drawn[labels == 0], bare[labels == 0])


def test_fill_is_translucent_and_outlines_are_not() -> None:
    labels = square(20, 20, 5, 5, 8)
    drawn = overlay(np.full((3, 20, 20), 200, np.uint8), labels, {1: (255, 0, 0)})
    np.testing.assert_array_equal(drawn[0, 0], [200, 200, 200])
    np.testing.assert_array_equal(drawn[5, 7], [255, 0, 0])
    np.testing.assert_array_equal(drawn[12, 12], [255, 0, 0])
    assert drawn[8, 8, 0] > 200 > drawn[8, 8, 1] > 0
    bare = overlay(np.full((3, 20, 20), 200, np.uint8), labels, {1: (255, 0, 0)}, outlined=False)
    np.testing.assert_array_equal(bare[5, 7], bare[8, 8])


def test_labels_of_alpha_0_are_not_drawn() -> None:
    labels = square(9, 9, 2, 2, 4)
    image = np.arange(81).reshape(9, 9)
    drawn = overlay(image, labels, {1: (255, 0, 0, 0)})
    np.testing.assert_array_equal(drawn, overlay(image, np.zeros_like(labels)))


def test_ids_have_colours_of_their_own() -> None:
    labels = np.arange(1, 101, dtype=np.uint32)[None].repeat(3, 0)
    drawn = overlay(np.zeros(labels.shape), labels)
    assert len(np.unique(drawn[1], axis=0)) > 90
    assert drawn.max(-1).min() > 100
    steps = np.abs(np.diff(drawn[1].astype(int), axis=0)).sum(-1)
    assert np.median(steps) > 100
    np.testing.assert_array_equal(drawn[:, :50], overlay(np.zeros((3, 50)), labels[:, :50]))


def test_contrast_is_robust() -> None:
    image = np.tile(np.arange(100, dtype=np.float32), (100, 1))
    image[0, 0], image[0, 1], image[0, 2] = 1e9, np.nan, np.inf
    drawn = overlay(image, np.zeros(image.shape, int))
    np.testing.assert_array_equal(drawn[..., 0], drawn[..., 2])
    assert abs(int(drawn[50, 50, 0]) - 128) < 5


def test_channels_have_their_colours() -> None:
    image = np.zeros((2, 30, 30), np.uint16)
    image[0, :10], image[1, 20:] = 500, 900
    none = np.zeros((30, 30), int)
    drawn = overlay(image, none, channel_colors=["FF0000", "0000FF"])
    np.testing.assert_array_equal(drawn[5, 5], [255, 0, 0])
    np.testing.assert_array_equal(drawn[25, 5], [0, 0, 255])
    assert overlay(image, none, channel_colors=["nonsense", None])[5, 5].any()
    rgb = np.random.default_rng(0).integers(0, 255, (3, 30, 30), np.uint8)
    np.testing.assert_array_equal(overlay(rgb, none), np.moveaxis(rgb, 0, -1))


@pytest.mark.parametrize(
    ("image", "labels", "said"),
    [
        (np.zeros((3, 4)), np.zeros((4, 3), int), r"\(3, 4\).*\(4, 3\)"),
        (np.zeros(4), np.zeros(4, int), "do not match"),
        (np.zeros((3, 4)), np.zeros((3, 4)), "float64"),
    ],
)
def test_overlay_refuses_what_does_not_fit(
    image: np.ndarray, labels: np.ndarray, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        overlay(image, labels)
