"""What training makes small: the energy of the paper.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, arXiv:1505.04597, section 3, equation 1.

Letters: B tiles, K classes, Y and X pixels.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["energy"]


def energy(scores: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted cross entropy of a pixel-wise softmax, averaged over valid pixels.

    Equation 1, with p the softmax of the scores over classes and l(x) the true class::

        E = −(1 / n) · Σ w(x) · log p_l(x)(x),    n = number of pixels with w(x) > 0

    The paper sums. The mean keeps the learning rate's meaning whatever the size of
    the tile; it is taken over the number of valid pixels, not over their weights, so that
    w0 keeps its meaning, too. Pixels that do not count (mirrored, ignored) weigh 0: they
    change neither the energy nor a gradient, whatever their target says.

    Parameters
    ----------
    scores : (B, K, Y, X) floating tensor
        What the network says, before any softmax. Half precision is computed in float32.
    target : (B, Y, X) int64 tensor
        True classes 0 … K − 1 where pixels count.
    weights : (B, Y, X) floating tensor
        From 0, see `bigunet.training.weight_map`.

    Returns
    -------
    () tensor
        0, with a gradient of 0, where no pixel counts.

    Raises
    ------
    ValueError
        Shapes that do not belong together: they would broadcast to a wrong answer.

    Examples
    --------
    >>> equal = torch.zeros(1, 2, 4, 4)
    >>> energy(equal, torch.ones(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), 3.0))
    tensor(2.0794)
    """
    _check(scores, target, weights)
    valid = weights > 0  # (B, Y, X)
    known = torch.where(valid, target, 0)  # (B, Y, X)
    exact = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    losses = functional.cross_entropy(exact, known, reduction="none")  # (B, Y, X)
    total = (losses * weights.to(losses.dtype)).sum()  # ()
    return total / valid.sum().clamp(min=1)  # ()


def _check(scores: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> None:
    pixels = (*scores.shape[:1], *scores.shape[2:])
    if scores.ndim != 4 or target.shape != pixels or weights.shape != pixels:
        raise ValueError(
            f"scores {tuple(scores.shape)}, target {tuple(target.shape)} and weights "
            f"{tuple(weights.shape)}: (B, K, Y, X), (B, Y, X) and (B, Y, X) are needed"
        )
