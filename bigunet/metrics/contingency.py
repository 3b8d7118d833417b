"""How many pixels each true id shares with each predicted id: what every measure is made of.

A table is sparse and small: it has an entry for each pair of ids that meet, not for
each pixel. Tables of the blocks of an image add up to the table of the image, so an
image of any size is scored in memory that grows with its objects only::

    sum_tables(count_pairs(t, p) for the blocks) == count_pairs(whole t, whole p)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from bigunet.errors import InputError

__all__ = ["Contingency", "as_ids", "count_pairs", "sum_tables"]

Array: TypeAlias = npt.NDArray[Any]
Ids: TypeAlias = npt.NDArray[np.uint64]
Counts: TypeAlias = npt.NDArray[np.int64]

# Tables are added when this many entries wait, or as many as the sum has: each entry is
# then sorted a few times in all, however many blocks there are.
WAITING = 2**18


@dataclass(frozen=True, eq=False)
class Contingency:
    """Pixels that true and predicted ids have in common.

    Parameters
    ----------
    truth_ids, prediction_ids : (T,) and (P,) uint64 arrays
        Ids that occur, in ascending order; 0 is background.
    table : (T, P) sparse array
        Common pixels of each pair, without duplicates.
    """

    truth_ids: Ids
    prediction_ids: Ids
    table: sparse.coo_array

    @property
    def pixels(self) -> int:
        """Pixels in all."""
        return int(self.table.sum())

    @property
    def truth_pixels(self) -> Counts:
        """Pixels of each true id, (T,)."""
        return self._totals(self.table.row, self.truth_ids.size)

    @property
    def prediction_pixels(self) -> Counts:
        """Pixels of each predicted id, (P,)."""
        return self._totals(self.table.col, self.prediction_ids.size)

    @property
    def entries(self) -> tuple[Ids, Ids, Counts]:
        """True id, predicted id and common pixels of every pair that meets."""
        table = self.table
        return self.truth_ids[table.row], self.prediction_ids[table.col], np.asarray(table.data)

    def _totals(self, index: Array, size: int) -> Counts:
        totals = np.zeros(size, dtype=np.int64)
        np.add.at(totals, index, self.table.data)
        return totals


def as_ids(labels: Array) -> Array:
    """Return labels as unsigned integers of any width.

    Raises
    ------
    InputError
        If they are no integers, or negative.
    """
    labels = np.asarray(labels)
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels are of type {labels.dtype}; ids and classes are integers")
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise InputError(f"labels go down to {labels.min()}; ids and classes are not negative")
    return labels


def count_pairs(truth: Array, prediction: Array) -> Contingency:
    """Count the pixels of each pair of ids.

    Parameters
    ----------
    truth, prediction : integer arrays of one shape
        0 is background.

    Raises
    ------
    InputError
        If the shapes differ or the values cannot be ids.

    Examples
    --------
    >>> pairs = count_pairs(np.array([1, 1, 2, 0]), np.array([7, 7, 7, 0]))
    >>> pairs.truth_ids.tolist(), pairs.prediction_ids.tolist()
    ([0, 1, 2], [0, 7])
    >>> pairs.table.toarray().tolist()
    [[1, 0], [0, 2], [0, 1]]
    """
    truth, prediction = as_ids(truth), as_ids(prediction)
    if truth.shape != prediction.shape:
        raise InputError(f"the truth is {truth.shape} and the prediction {prediction.shape} pixels")
    t, p = truth.ravel(), prediction.ravel()
    # Labels change at outlines only: runs along the rows are far fewer than pixels.
    changes = np.flatnonzero((t[1:] != t[:-1]) | (p[1:] != p[:-1])) + 1
    starts = np.concatenate(([0], changes)) if t.size else changes
    lengths = np.diff(np.append(starts, t.size))
    return _table(t[starts], p[starts], lengths)


def sum_tables(tables: Iterable[Contingency]) -> Contingency:
    """Add the tables of parts of one image, in which an id is the same object everywhere."""
    done, waiting, entries = count_pairs(_NOTHING, _NOTHING), list[Contingency](), 0
    for table in tables:
        waiting.append(table)
        entries += table.table.nnz
        if entries > max(WAITING, done.table.nnz):
            done, waiting, entries = _add([done, *waiting]), [], 0
    return _add([done, *waiting])


_NOTHING = np.zeros(0, dtype=np.uint8)


def _add(tables: list[Contingency]) -> Contingency:
    truth, prediction, pixels = zip(*(table.entries for table in tables), strict=True)
    return _table(np.concatenate(truth), np.concatenate(prediction), np.concatenate(pixels))


def _table(truth: Array, prediction: Array, pixels: Array) -> Contingency:
    """Build a table of entries in any order, in which a pair may stand more than once."""
    truth_ids, rows = np.unique(truth.astype(np.uint64), return_inverse=True)
    prediction_ids, columns = np.unique(prediction.astype(np.uint64), return_inverse=True)
    shape = truth_ids.size, prediction_ids.size
    table = sparse.coo_array((pixels.astype(np.int64), (rows, columns)), shape=shape)
    table.sum_duplicates()
    return Contingency(truth_ids, prediction_ids, table)
