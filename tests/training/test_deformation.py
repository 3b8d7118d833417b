"""The paper's deformation, against closed forms and a version that goes pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.training.deformation import (
    cubic_weights,
    draw_linear,
    draw_origin,
    elastic_field,
    tile_map,
)

SEEDS = st.integers(0, 2**32 - 1)


def keys(x: float) -> float:
    """Keys 1981, equation 15."""
    x = abs(x)
    if x <= 1:
        return 3 / 2 * x**3 - 5 / 2 * x**2 + 1
    return -1 / 2 * x**3 + 5 / 2 * x**2 - 4 * x + 2 if x < 2 else 0.0


def bicubic(nodes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Interpolate a grid pixel by pixel, its edge repeated once on every side."""
    padded = np.pad(nodes, 2, mode="edge")
    result = np.zeros(shape)
    for y, x in np.ndindex(shape):
        at = [p * (n - 1) / (s - 1) for p, s, n in zip((y, x), shape, nodes.shape, strict=True)]
        result[y, x] = sum(
            keys(at[0] - (i - 2)) * keys(at[1] - (j - 2)) * padded[i, j]
            for i, j in np.ndindex(padded.shape)
        )
    return result


@given(st.integers(2, 12), st.integers(2, 12), st.integers(2, 5), SEEDS)
def test_the_field_is_bicubic_interpolation_of_normal_nodes(height, width, grid, seed):
    field = elastic_field((height, width), np.random.default_rng(seed), 7.0, grid)
    nodes = np.random.default_rng(seed).normal(0, 7, (2, grid, grid))
    for part, expected in zip(field, nodes, strict=True):
        np.testing.assert_allclose(part, bicubic(expected, (height, width)), atol=1e-9)


def test_the_nodes_of_the_paper_have_a_standard_deviation_of_10_pixels():
    rng = np.random.default_rng(0)
    fields = np.stack([elastic_field((9, 13), rng) for _ in range(4000)])
    at_nodes = fields[:, :, ::4, ::6]
    assert at_nodes.shape[2:] == (3, 3)
    np.testing.assert_allclose(at_nodes.std(0), 10, rtol=0.06)
    np.testing.assert_allclose(at_nodes.mean(0), 0, atol=0.7)
    flat = at_nodes.reshape(4000, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(18)).max() < 0.08


def test_the_field_is_smooth_and_never_folds_a_tile_of_the_paper_s_size():
    rng = np.random.default_rng(0)
    for _ in range(20):
        step_y, step_x = np.gradient(elastic_field((572, 572), rng), axis=(1, 2))
        jacobian = (1 + step_y[0]) * (1 + step_x[1]) - step_x[0] * step_y[1]
        assert jacobian.min() > 0


@given(st.integers(1, 40), st.integers(2, 6))
def test_weights_sum_to_1_and_are_symmetric(size, nodes):
    weights = cubic_weights(size, nodes)
    np.testing.assert_allclose(weights.sum(1), 1)
    if size > 1:
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)


@given(st.integers(2, 6), st.integers(1, 9))
def test_at_a_node_the_node_has_all_weight(nodes, spacing):
    weights = cubic_weights((nodes - 1) * spacing + 1, nodes)
    np.testing.assert_allclose(weights[::spacing], np.eye(nodes), atol=1e-12)


def test_between_inner_nodes_a_straight_line_stays_one():
    weights = cubic_weights(51, 6)
    np.testing.assert_allclose((weights @ np.arange(6.0))[10:41], np.linspace(1, 4, 31))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), SEEDS)
def test_a_tile_lies_in_a_larger_image_and_around_a_smaller_one(height, width, size, seed):
    origin = draw_origin((height, width), size, np.random.default_rng(seed))
    for start, side in zip(origin, (height, width), strict=True):
        inside = 0 <= start and start + size <= side
        around = start <= 0 and side <= start + size
        assert inside or around


def test_every_place_is_as_likely():
    rng = np.random.default_rng(0)
    drawn = [draw_origin((12, 5), 8, rng) for _ in range(4000)]
    for starts, possible in zip(zip(*drawn, strict=True), (range(5), range(-3, 1)), strict=True):
        counts = [starts.count(p) for p in possible]
        assert sum(counts) == 4000 and min(counts) > 0.85 * 4000 / len(possible)


@given(SEEDS, st.floats(1, 3))
def test_rotations_keep_angles_and_scale_within_bounds(seed, scale):
    linear = draw_linear(np.random.default_rng(seed), rotation="any", flip=True, scale=scale)
    square = linear @ linear.T
    np.testing.assert_allclose(square, square[0, 0] * np.eye(2), atol=1e-9)
    assert scale**-2 - 1e-9 <= square[0, 0] <= scale**2 + 1e-9


def test_quarters_and_flips_are_the_8_symmetries_in_whole_numbers():
    rng = np.random.default_rng(0)
    drawn = [draw_linear(rng, rotation="quarter", flip=True, scale=1) for _ in range(200)]
    assert len({tuple(m.ravel().tolist()) for m in drawn}) == 8
    assert all((m == np.rint(m)).all() and abs(np.linalg.det(m)) == 1 for m in drawn)


def test_half_of_the_tiles_are_mirrored_and_angles_are_uniform():
    rng = np.random.default_rng(0)
    drawn = [draw_linear(rng, rotation="any", flip=True, scale=1) for _ in range(4000)]
    mirrored = np.array([np.linalg.det(m) < 0 for m in drawn])
    assert abs(mirrored.mean() - 0.5) < 0.03
    turned = [np.arctan2(m[1, 0], m[0, 0]) for m in drawn]
    counts, _ = np.histogram(turned, 8, (-np.pi, np.pi))
    assert counts.min() > 0.85 * 500


def test_nothing_drawn_is_nothing_changed():
    linear = draw_linear(np.random.default_rng(0), rotation="none", flip=False, scale=1)
    np.testing.assert_array_equal(linear, np.eye(2))


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9), st.integers(0, 5))
def test_the_identity_is_the_tile_and_its_margin_in_whole_numbers(y, x, size, margin):
    places = tile_map((y, x), size, margin, np.eye(2))
    around = size + 2 * margin
    expected = np.mgrid[y - margin : y - margin + around, x - margin : x - margin + around]
    np.testing.assert_array_equal(places, expected)


@given(SEEDS, st.integers(1, 6), st.integers(0, 3))
def test_a_map_is_its_formula_for_every_pixel(seed, size, margin):
    rng = np.random.default_rng(seed)
    linear, side = rng.normal(size=(2, 2)), size + 2 * margin
    field = rng.normal(size=(2, side, side))
    places = tile_map((4, -3), size, margin, linear, field)
    middle = np.array([4, -3]) + (size - 1) / 2
    for y, x in np.ndindex(side, side):
        offset = np.array([y, x]) - (side - 1) / 2
        np.testing.assert_allclose(
            places[:, y, x], middle + linear @ offset + field[:, y, x], atol=1e-9
        )


@pytest.mark.parametrize("seed", range(3))
def test_chance_can_be_repeated(seed):
    first, second = (elastic_field((20, 30), np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
