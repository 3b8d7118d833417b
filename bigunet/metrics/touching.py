"""Which true objects touch, and which of those the prediction has merged.

Two objects touch where pixels of theirs are 4-neighbours. They are merged where one
predicted object holds more than half of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.metrics.contingency import Contingency

__all__ = ["TouchingBlocks", "facing_pairs", "holders", "merged_pairs", "touching_pairs"]

Array: TypeAlias = npt.NDArray[Any]
Ids: TypeAlias = npt.NDArray[np.uint64]

WAITING = 2**16
"""Pairs that wait to be sorted in, or as many as there are: each is sorted a few times in all."""


def touching_pairs(labels: Array) -> Ids:
    """Return the pairs of ids that touch, (N, 2), the smaller id first.

    Examples
    --------
    >>> touching_pairs(np.array([[1, 1, 2], [0, 3, 0]])).tolist()
    [[1, 2], [1, 3]]
    """
    return _unique(
        [facing_pairs(labels[:-1], labels[1:]), facing_pairs(labels[:, :-1], labels[:, 1:])]
    )


def facing_pairs(one: Array, other: Array) -> Ids:
    """Return the pairs of different ids at the same places of two arrays, (N, 2)."""
    meet = (one != other) & (one != 0) & (other != 0)
    a, b = one[meet].astype(np.uint64), other[meet].astype(np.uint64)
    return _unique([np.stack([np.minimum(a, b), np.maximum(a, b)], axis=-1)])


class TouchingBlocks:
    """The same for an image that is seen block by block, in raster order.

    Keeps one row of the image and one column of a block between calls.

    Parameters
    ----------
    width : int
        Of the image, in pixels.
    """

    def __init__(self, width: int) -> None:
        self._above: Ids = np.zeros(width, dtype=np.uint64)
        self._left: Ids = np.zeros(0, dtype=np.uint64)
        self._found: Ids = np.zeros((0, 2), dtype=np.uint64)
        self._waiting: list[Ids] = []

    def add(self, x: slice, labels: Array) -> None:
        """Add the next block: columns `x` of the image, right of or below the one before."""
        if x.start == 0:
            self._left = np.zeros(labels.shape[0], dtype=np.uint64)
        pairs = touching_pairs(labels)
        above = facing_pairs(self._above[x], labels[0].astype(np.uint64))
        left = facing_pairs(self._left, labels[:, 0].astype(np.uint64))
        self._waiting += [pairs, above, left]
        if sum(map(len, self._waiting)) > max(WAITING, len(self._found)):
            self._found, self._waiting = self.pairs, []
        self._above[x], self._left = labels[-1], labels[:, -1].astype(np.uint64)

    @property
    def pairs(self) -> Ids:
        """The pairs so far, (N, 2)."""
        return _unique([self._found, *self._waiting])


def holders(table: Contingency) -> Ids:
    """Return for each true id the predicted object that holds more than half of it, else 0."""
    found = np.zeros(table.truth_ids.size, dtype=np.uint64)
    most = 2 * table.table.data > table.truth_pixels[table.table.row]
    found[table.table.row[most]] = table.prediction_ids[table.table.col[most]]
    return found


def merged_pairs(pairs: Ids, table: Contingency) -> npt.NDArray[np.bool_]:
    """Tell for each pair of true ids whether one predicted object holds most of both.

    Parameters
    ----------
    pairs : (N, 2) array
        Ids that are in the table.
    """
    holder = holders(table)[np.searchsorted(table.truth_ids, pairs)]
    merged: npt.NDArray[np.bool_] = (holder[:, 0] == holder[:, 1]) & (holder[:, 0] != 0)
    return merged


def _unique(pairs: Iterable[Ids]) -> Ids:
    rows = np.concatenate([np.zeros((0, 2), dtype=np.uint64), *pairs])
    return np.unique(rows, axis=0)
