"""The mean prediction over the eight symmetries of the square.

A legal input is halved without remainder at every level of the network, so its
pooling grid is its own mirror image, and a skip is cut alike on all sides. A
pass over a flipped or turned input, turned back, is therefore the pass of the
same network with flipped or turned kernels over the input as it was: same
margin, same grid. All that `bigunet.geometry` says of one network holds for each
of these eight, and so for their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from bigunet.errors import InputError

__all__ = ["D4", "Augment", "Symmetry", "check_augment", "log_mean_probabilities"]

Augment = Literal["none", "d4"]


def check_augment(augment: str) -> str:
    """Return what is averaged over, if it is known.

    Raises
    ------
    InputError
        It is not.
    """
    if augment not in get_args(Augment):
        known = " or ".join(get_args(Augment))
        raise InputError(f"augment '{augment}' is unknown; choose {known}")
    return augment


@dataclass(frozen=True)
class Symmetry:
    """A flip of x or none, then quarter turns."""

    flip: bool
    turns: int

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Flip and turn the last two axes."""
        image = image.flip(-1) if self.flip else image
        return torch.rot90(image, self.turns, (-2, -1))

    def undo(self, image: torch.Tensor) -> torch.Tensor:
        """Turn and flip back."""
        image = torch.rot90(image, -self.turns, (-2, -1))
        return image.flip(-1) if self.flip else image


D4 = tuple(Symmetry(flip, turns) for flip in (False, True) for turns in range(4))


def log_mean_probabilities(
    scores_of: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor
) -> torch.Tensor:
    """Return the log of the mean softmax over the symmetries, one of them at a time.

    Parameters
    ----------
    scores_of : callable
        From images (N, C, Y, X) of a legal size to their scores (N, K, y, x).
    image : (N, C, Y, X) tensor

    Returns
    -------
    (N, K, y, x) tensor
        Its softmax is the mean of the probabilities.
    """

    def log_probabilities(symmetry: Symmetry) -> torch.Tensor:
        return symmetry.undo(scores_of(symmetry.apply(image))).log_softmax(-3)

    total = log_probabilities(D4[0])
    for symmetry in D4[1:]:
        # Logarithms are added: a probability of 1e-50 is 0 in float32, and its log would be lost.
        torch.logaddexp(total, log_probabilities(symmetry), out=total)
    return total.sub_(math.log(len(D4)))
