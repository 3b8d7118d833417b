"""How large the objects are that a network learns from."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from bigunet.training.examples import Example

__all__ = ["diameter_range"]

_PERCENTILES = (1.0, 99.0)


def diameter_range(examples: Iterable[Example]) -> tuple[float, float] | None:
    """Return the 1st and 99th percentile of the objects' equivalent diameters, in pixels.

    The equivalent diameter is that of a disc of the same area. Objects at the border of
    an image count with what is seen of them.

    Returns
    -------
    (low, high), or None where there is no object
    """
    areas = [np.bincount(example.instances().ravel())[1:] for example in examples]
    if not sum(map(len, areas)):
        return None
    low, high = np.percentile(2 * np.sqrt(np.concatenate(areas) / math.pi), _PERCENTILES)
    return float(low), float(high)
