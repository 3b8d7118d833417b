"""What tests draw from, and the dumb oracle that they compare with."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from bigunet.geometry import legal_output, margin
from bigunet.models.unet import UNet

DTYPES = (np.uint8, np.uint16, np.float32)


def whole_image_scores(image: np.ndarray, model: UNet) -> np.ndarray:
    """Return one forward pass over the whole (C, Y, X) image, mirrored with np.pad.

    The input starts exactly ``margin`` before pixel (0, 0) and goes on at the
    far ends to the next legal size. Convolutions sum in the order that the
    memory format suggests, so the oracle has the format of the tiles: raw 16-bit
    values whose scores cancel show the last bits of a sum (1.2e-5 was seen).
    """
    scores = _one_pass(_padded(image, model.depth), model)
    return scores[:, : image.shape[1], : image.shape[2]]


def whole_image_passes(image: np.ndarray, model: UNet) -> np.ndarray:
    """Return eight passes over the whole image (8, K, Y, X), flipped and turned, and turned back.

    The image is padded first and turned afterwards.
    """
    padded, passes = _padded(image, model.depth), []
    for turns in range(4):
        for mirror in (np.array, np.fliplr):
            turned = np.stack([np.rot90(mirror(plane), turns) for plane in padded])
            scores = _one_pass(turned, model)
            back = [mirror(np.rot90(plane, -turns)) for plane in scores]
            passes.append(np.stack(back)[:, : image.shape[1], : image.shape[2]])
    return np.stack(passes)


def log_mean_softmax(passes: np.ndarray) -> np.ndarray:
    """Return the log of the mean over passes (N, K, Y, X) of their softmax, in float64."""
    passes = passes.astype(np.float64)
    mean: np.ndarray = logsumexp(log_softmax(passes, axis=1), axis=0) - np.log(len(passes))
    return mean


def _padded(image: np.ndarray, depth: int) -> np.ndarray:
    before = margin(depth)
    pads = [(0, 0)]
    for size in image.shape[1:]:
        pads.append((before, legal_output(size, depth) - size + before))
    return np.pad(image, pads, mode="symmetric").astype(np.float32)


def _one_pass(padded: np.ndarray, model: UNet) -> np.ndarray:
    last = torch.channels_last
    network = copy.deepcopy(model).eval().to(memory_format=last)
    with torch.inference_mode():
        whole = torch.from_numpy(padded.copy())[None].contiguous(memory_format=last)
        scores: np.ndarray = network(whole)[0].contiguous().numpy()
    return scores


def tolerance(scores: np.ndarray) -> float:
    """Return how far float32 scores may differ between shapes of input."""
    return 1e-5 * max(1.0, float(np.abs(scores).max()))


def assert_same_scores(
    found: np.ndarray, expected: np.ndarray, allowed: float | None = None
) -> None:
    """Hold scores to the law of exactness, or to what is ``allowed``."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed or tolerance(expected))


def assert_same_classes(
    found: np.ndarray, scores: np.ndarray, allowed: float | None = None
) -> None:
    """Hold classes to the scores' best, wherever the best two are no tie."""
    if scores.shape[0] == 1:
        assert not found.any()
        return
    best = np.sort(scores, axis=0)[-2:]
    clear = best[1] - best[0] > 2 * (allowed or tolerance(scores))
    np.testing.assert_array_equal(found[clear], scores.argmax(0)[clear])


def random_model(depth: int, channels: int = 1, classes: int = 2, seed: int = 0) -> UNet:
    """Return a small network whose biases are not zero, so that borders show."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UNet(channels, classes, width=2, depth=depth)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
    return model


def random_image(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Return noise over the whole range of a type."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, size=shape, endpoint=True).astype(dtype)


@st.composite
def chunkings(draw: st.DrawFn, size: int, most: int = 5) -> tuple[int, ...]:
    """Cut a length into chunks of any sizes."""
    cuts = draw(st.lists(st.integers(1, max(1, size - 1)), max_size=most, unique=True))
    edges = [0, *sorted(c for c in cuts if c < size), size]
    return tuple(b - a for a, b in pairwise(edges))
