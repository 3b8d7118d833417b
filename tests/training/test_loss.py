"""The energy is equation 1 of the paper, by closed forms and by a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bigunet.training.loss import energy


def tiles(
    seed: int, shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, targets and weights, a third of which are 0."""
    rng = np.random.default_rng(seed)
    b, k, y, x = shape
    scores = torch.from_numpy(rng.normal(0, 3, shape)).to(dtype)
    target = torch.from_numpy(rng.integers(0, k, (b, y, x)))
    weights = rng.uniform(0.1, 11, (b, y, x)) * (rng.random((b, y, x)) > 1 / 3)
    return scores, target, torch.from_numpy(weights).to(dtype)


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
CASES = st.builds(tiles, st.integers(0, 2**20), SHAPES)


@given(case=CASES)
def test_energy_is_equation_1_over_valid_pixels(case) -> None:
    scores, target, weights = (tensor.numpy() for tensor in case)
    total, count = 0.0, 0
    for b, y, x in np.ndindex(target.shape):
        exponents = [math.exp(a) for a in scores[b, :, y, x]]
        p = exponents[target[b, y, x]] / sum(exponents)
        total -= weights[b, y, x] * math.log(p)
        count += weights[b, y, x] > 0
    assert energy(*case).item() == pytest.approx(total / max(count, 1), rel=1e-10, abs=1e-12)


@given(case=CASES)
def test_with_weights_of_1_it_is_the_cross_entropy(case) -> None:
    scores, target, weights = case
    found = energy(scores, target, torch.ones_like(weights))
    torch.testing.assert_close(found, functional.cross_entropy(scores, target))


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_equal_scores_have_the_energy_log_k(classes: int) -> None:
    target = torch.zeros(2, 3, 4, dtype=torch.int64)
    found = energy(torch.full((2, classes, 3, 4), 5.0), target, torch.full((2, 3, 4), 2.5))
    assert found.item() == pytest.approx(2.5 * math.log(classes), rel=1e-6)


@pytest.mark.parametrize(("margin", "expected"), [(0.0, math.log(2)), (1e4, 0.0), (-1e4, 1e4)])
def test_two_classes_have_the_energy_of_a_logistic(margin: float, expected: float) -> None:
    """Closed form log(1 + exp(−margin)), far beyond what exp can hold."""
    scores = torch.tensor([0.0, margin])[None, :, None, None]
    one = torch.ones(1, 1, 1)
    assert energy(scores, one.long(), one).item() == pytest.approx(expected)


def test_gradients_are_those_of_finite_differences() -> None:
    scores, target, weights = tiles(0, (2, 3, 4, 5))
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: energy(s, target, weights), (scores,))


@given(case=CASES)
def test_the_gradient_is_softmax_less_truth(case) -> None:
    """Closed form: dE / da_k = w · (p_k − [k = l]) / n."""
    scores, target, weights = case
    scores.requires_grad_()
    energy(scores, target, weights).backward()
    truth = functional.one_hot(target, scores.shape[1]).movedim(-1, 1)
    expected = weights[:, None] * (scores.softmax(1) - truth) / max(1, int((weights > 0).sum()))
    torch.testing.assert_close(scores.grad, expected.detach())


def test_a_tile_that_does_not_count_has_energy_0_and_gradient_0() -> None:
    scores = torch.randn(1, 2, 3, 3, requires_grad=True)
    found = energy(scores, torch.full((1, 3, 3), 255), torch.zeros(1, 3, 3))
    found.backward()
    assert found.item() == 0
    assert scores.grad is not None and not scores.grad.any()


@given(case=CASES, repeats=st.integers(2, 4))
def test_the_energy_does_not_depend_on_the_size_of_the_tile(case, repeats: int) -> None:
    scores, target, weights = case
    larger = energy(
        scores.repeat(1, 1, repeats, 1), target.repeat(1, repeats, 1), weights.repeat(1, repeats, 1)
    )
    torch.testing.assert_close(larger, energy(scores, target, weights))


@given(case=CASES, outside=st.sampled_from([-100, 0, 255]))
def test_pixels_of_weight_0_change_nothing(case, outside: int) -> None:
    """A mirrored or ignored rim, whatever scores and targets it has."""
    scores, target, weights = case
    rim = (2, 1, 3, 2)
    padded = (
        functional.pad(scores, rim, value=40.0),
        functional.pad(target, rim, value=outside),
        functional.pad(weights, rim),
    )
    padded[0].requires_grad_()
    found = energy(*padded)
    found.backward()
    torch.testing.assert_close(found.detach(), energy(scores, target, weights))
    nothing = (padded[2] == 0)[:, None].expand_as(padded[0])
    assert padded[0].grad is not None and not padded[0].grad[nothing].any()


def test_twice_the_weights_are_twice_the_energy() -> None:
    """The mean is over pixels, not over weights: w0 keeps its meaning."""
    scores, target, weights = tiles(1, (1, 2, 8, 8))
    torch.testing.assert_close(
        energy(scores, target, 2 * weights), 2 * energy(scores, target, weights)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """100 000 pixels: a sum in half precision would be far off, or infinite."""
    scores, target, weights = tiles(2, (1, 2, 250, 400), torch.float32)
    half = scores.to(dtype).requires_grad_()
    found = energy(half, target, weights)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, energy(half.float(), target, weights))
    found.backward()
    assert half.grad is not None and half.grad.dtype == dtype


def test_a_score_that_is_no_number_shows() -> None:
    scores, target, weights = tiles(3, (1, 2, 3, 3))
    scores[0, 0, 0, 0], weights[0, 0, 0] = math.nan, 1.0
    assert energy(scores, target, weights).isnan()


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 2, 4, 4), (4, 4), (1, 4, 4)],
        [(1, 2, 4, 4), (1, 4, 4), (4, 4)],
        [(3, 2, 4, 4), (3, 4, 4), (1, 4, 4)],
        [(1, 2, 4, 4), (1, 4, 5), (1, 4, 5)],
        [(2, 4, 4), (2, 4), (2, 4)],
    ],
)
def test_shapes_that_would_broadcast_are_refused(shapes) -> None:
    scores, target, weights = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="are needed"):
        energy(scores, target.long(), weights)
