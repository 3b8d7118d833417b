"""Exact percentiles of sampled pixels; dask's own depend on chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["percentile_of_sorted", "pooled_percentiles"]

Pixels: TypeAlias = npt.NDArray[Any]


def pooled_percentiles(parts: Sequence[Pixels], low: float, high: float) -> tuple[float, float]:
    """Percentiles of all pixels of parts (n,) together; 0 where there is none."""
    pooled = np.concatenate(parts)
    if not pooled.size:
        return 0.0, 0.0
    # In the pixels' own type: a float64 copy would be eight times the memory.
    pooled.sort()
    return percentile_of_sorted(pooled, low), percentile_of_sorted(pooled, high)


def percentile_of_sorted(ordered: Pixels, q: float) -> float:
    """Percentile by mid-ranks: of n values, the one at rank ``q / 100 * n``.

    Equal values share the middle of their ranks, and between two different values
    the percentile is interpolated. Where all values differ this is
    ``np.percentile(method="hazen")``; of coarse integers it moves smoothly, where
    np.percentile jumps by a whole grey level, which is 6 % of the range of a dim
    8-bit image (99.8th percentile 16). It scales with the values, whatever they are.

    Parameters
    ----------
    ordered : (n,) array, ascending, n at least 1
    q : float
        0 to 100.

    Examples
    --------
    >>> percentile_of_sorted(np.array([1, 1, 2, 2]), 50)
    1.5
    """
    rank = q / 100 * ordered.size
    value = ordered[min(int(rank), ordered.size - 1)]
    first, last = _ranks(ordered, value)
    here = (first + last) / 2
    beside = first - 1 if rank < here else last
    if not 0 <= beside < ordered.size:
        return float(value)
    there = sum(_ranks(ordered, ordered[beside])) / 2
    share = (rank - here) / (there - here)
    return float(value) * (1 - share) + float(ordered[beside]) * share


def _ranks(ordered: Pixels, value: Any) -> tuple[int, int]:
    """First rank of the values equal to `value`, and the one behind the last."""
    return (
        int(np.searchsorted(ordered, value, side="left")),
        int(np.searchsorted(ordered, value, side="right")),
    )
