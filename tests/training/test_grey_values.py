"""Variations of grey values and colours, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.training.grey_values import (
    add_noise,
    blur,
    jitter_stains,
    rotate_hue,
    vary_contrast,
)


def tile(channels=3, side=16, seed=0):
    return np.random.default_rng(seed).uniform(0.01, 1, (channels, side, side)).astype(np.float32)


def test_contrast_is_its_formula_for_each_channel():
    values = tile(2) - 0.5
    found = vary_contrast(values, [2, 0.5], [0.1, -0.2], [1.5, 0.7])
    assert found.dtype == np.float32
    for channel, gain, offset, gamma in ((0, 2, 0.1, 1.5), (1, 0.5, -0.2, 0.7)):
        v = values[channel]
        expected = gain * np.sign(v) * np.abs(v) ** gamma + offset
        np.testing.assert_allclose(found[channel], expected, atol=1e-6)


def test_no_contrast_changes_nothing_bit_for_bit():
    np.testing.assert_array_equal(vary_contrast(tile(), 1, 0, 1), tile())


@given(st.floats(0.3, 3), st.floats(0.2, 3))
def test_contrast_keeps_the_order_of_values(gain, gamma):
    values = np.linspace(-1, 1, 40, dtype=np.float32).reshape(1, 5, 8)
    assert (np.diff(vary_contrast(values, gain, 0, gamma).ravel()) >= 0).all()


def test_noise_has_its_standard_deviation_and_no_mean():
    found = add_noise(tile(side=200), np.random.default_rng(0), 0.05) - tile(side=200)
    assert found.dtype == np.float32
    assert found.std() == pytest.approx(0.05, rel=0.02)
    assert abs(found.mean()) < 0.001
    channels = found.reshape(3, -1)
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.03


def test_blur_of_a_point_is_a_gaussian():
    point = np.zeros((1, 31, 31), np.float32)
    point[0, 15, 15] = 1
    y, x = np.mgrid[-15:16, -15:16]
    expected = np.exp(-(y**2 + x**2) / (2 * 1.5**2)) / (2 * np.pi * 1.5**2)
    np.testing.assert_allclose(blur(point, 1.5)[0], expected, atol=1e-3)


@given(st.floats(0, 2))
def test_blur_keeps_flat_areas_and_mixes_no_channels(sigma):
    flat = np.ones((2, 9, 9), np.float32) * np.array([1, 3], np.float32)[:, None, None]
    np.testing.assert_allclose(blur(flat, sigma), flat, rtol=1e-5)


@given(st.floats(-4, 4))
def test_hue_leaves_grey_and_brightness_and_can_be_turned_back(angle):
    grey = np.broadcast_to(tile(1), (3, 16, 16))
    np.testing.assert_allclose(rotate_hue(grey, angle), grey, atol=1e-5)
    found = rotate_hue(tile(), angle)
    np.testing.assert_allclose(found.sum(0), tile().sum(0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.linalg.norm(tile(), axis=0), 1e-4)
    np.testing.assert_allclose(rotate_hue(found, -angle), tile(), atol=1e-5)


def test_a_third_of_a_turn_exchanges_the_channels():
    found = rotate_hue(tile(), 2 * np.pi / 3)
    np.testing.assert_allclose(found, np.roll(tile(), 1, axis=0), atol=1e-5)


def test_unchanged_stains_are_the_same_light():
    np.testing.assert_allclose(jitter_stains(tile(), 1, 0), tile(), atol=1e-4)


def test_twice_every_stain_is_twice_the_density():
    np.testing.assert_allclose(jitter_stains(tile(), 2, 0), tile() ** 2, atol=1e-4)


def test_one_stain_changes_along_its_own_colour():
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    amounts = np.random.default_rng(0).uniform(0, 0.8, (3, 5, 6))
    light = np.exp(-np.einsum("sc,syx->cyx", stains, amounts)).astype(np.float32)
    found = jitter_stains(light, [1.5, 1, 1], [0, 0.2, 0])
    changed = amounts * np.array([1.5, 1, 1])[:, None, None]
    changed[1] += 0.2
    expected = np.exp(-np.einsum("sc,syx->cyx", stains, changed))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_white_stays_white_and_black_stays_finite():
    for value in (1.0, 0.0, -0.3):
        light = np.full((3, 4, 4), value, np.float32)
        found = jitter_stains(light, [1.2, 0.8, 1.1], 0)
        assert np.isfinite(found).all() and found.dtype == np.float32
    np.testing.assert_allclose(jitter_stains(np.ones((3, 2, 2), np.float32), 2, 0), 1, atol=1e-6)
