"""The eight symmetries, and why a turned pass is a pass of turned kernels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax
from strategies import assert_same_scores, random_image, random_model

from bigunet.geometry import input_size, legal_output
from bigunet.models.symmetries import D4, Symmetry, log_mean_probabilities
from bigunet.models.unet import UNet

each = pytest.mark.parametrize("symmetry", D4, ids=str)


def test_there_are_eight_and_no_two_are_alike() -> None:
    image = torch.arange(6).reshape(2, 3)
    turned = {tuple(map(tuple, symmetry.apply(image).tolist())) for symmetry in D4}
    assert len(turned) == len(D4) == 8


@each
def test_undo_undoes(symmetry: Symmetry) -> None:
    image = torch.arange(24).reshape(2, 3, 4)
    assert torch.equal(symmetry.undo(symmetry.apply(image)), image)


@each
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_turned_pass_is_the_pass_of_turned_kernels(symmetry: Symmetry, depth: int) -> None:
    """So each of the eight passes is that of a network, for which the law of tiles holds."""
    model = random_model(depth, classes=3)
    outputs = (legal_output(20, depth), legal_output(50, depth))
    image = random_image((1, *(input_size(n, depth) for n in outputs)), np.float32)
    found = symmetry.undo(forward(model, symmetry.apply(torch.from_numpy(image))))
    kernels_turned = copy.deepcopy(model)
    with torch.no_grad():
        for weights in kernels_turned.parameters():
            if weights.ndim == 4:
                weights.copy_(symmetry.undo(weights))
    assert_same_scores(found.numpy(), forward(kernels_turned, torch.from_numpy(image)).numpy())
    assert tuple(found.shape[1:]) == outputs


def test_the_mean_is_that_of_the_probabilities() -> None:
    """Eight passes that say different things; what each said is undone before it is averaged."""
    scores = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)
    told = iter(torch.from_numpy(scores))
    found = log_mean_probabilities(lambda _: next(told), torch.zeros(1, 1, 4, 4))
    back = [
        symmetry.undo(torch.from_numpy(s)).numpy() for symmetry, s in zip(D4, scores, strict=True)
    ]
    np.testing.assert_allclose(found.exp(), softmax(np.stack(back), axis=1).mean(0), rtol=1e-5)


def test_improbable_classes_keep_their_order() -> None:
    """Probabilities below the smallest float32 have logarithms all the same."""
    scores = torch.tensor([0.0, -300.0, -250.0])[:, None, None]
    found = log_mean_probabilities(lambda _: scores, torch.zeros(1, 1, 1, 1))
    np.testing.assert_allclose(found, scores, atol=1e-5)


def test_the_mean_is_the_same_when_the_image_is_turned() -> None:
    model = random_model(2, classes=2)
    side = input_size(legal_output(30, 2), 2)
    image = torch.from_numpy(random_image((1, 1, side, side + 8), np.float32))
    one = log_mean_probabilities(lambda x: forward(model, x[0]), image)
    for symmetry in D4:
        other = log_mean_probabilities(lambda x: forward(model, x[0]), symmetry.apply(image))
        assert_same_scores(symmetry.undo(other).numpy(), one.numpy())


def forward(model: UNet, image: torch.Tensor) -> torch.Tensor:
    """Return the scores (K, y, x) of an image (C, Y, X)."""
    with torch.inference_mode():
        scores: torch.Tensor = model.eval()(image.contiguous()[None])[0]
        return scores
