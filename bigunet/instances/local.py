"""Objects of one array in memory, with ids in raster order of their first pixels."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bigunet.instances.neighbours import (
    Lengths,
    find_runs,
    group_pairs,
    offset_step,
    overlapping_runs,
    position_steps,
    positions,
    structure_offsets,
)

__all__ = ["label_mask", "label_values"]

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]
Structure: TypeAlias = npt.NDArray[np.bool_]


def label_mask(mask: Array, structure: Structure) -> tuple[Array, int]:
    """Label what is not zero; see `scipy.ndimage.label`.

    Returns
    -------
    labels : array of the same shape, int32 or int64
    count : int
    """
    labels, count = ndimage.label(mask != 0, structure)
    return np.asarray(labels), int(count)


def label_values(values: Array, structure: Structure) -> tuple[Array, int]:
    """Label what is not zero, joining only pixels of equal value.

    Takes as long for a thousand values as for two: runs are joined, not pixels.

    Returns
    -------
    labels : array of the same shape, int32 or int64
    count : int
    """
    # Without a neighbour along the last axis every pixel is a run of its own.
    joined = bool(structure[(1,) * (structure.ndim - 1)][2])
    start, length = find_runs(values, joined=joined)
    value = values.reshape(-1)[start]
    solid = np.flatnonzero(value)
    groups = _group_runs(start[solid], length[solid], value[solid], values.shape, structure)
    ids, count = _rank_by_first(groups)
    label = np.zeros(start.size, dtype=np.int32 if values.size < 2**31 else np.int64)
    label[solid] = ids
    return np.repeat(label, length).reshape(values.shape), count


def _group_runs(
    flat: Integers, length: Lengths, value: Array, shape: tuple[int, ...], structure: Structure
) -> Integers:
    """Return one group per run, equal where runs of equal value touch."""
    steps = position_steps(shape)
    start = positions(flat, shape, (0,) * len(shape), steps)
    first, second = [], []
    for offset in structure_offsets(structure):
        # Half of the neighbours see every pair; those along a line are in one run.
        if any(offset[:-1]) and (step := offset_step(offset, steps)) > 0:
            moved = start + step
            i, j = overlapping_runs((moved, moved + length), (start, start + length))
            same = value[i] == value[j]
            first.append(i[same])
            second.append(j[same])
    none = np.empty(0, dtype=np.int64)
    return group_pairs(np.concatenate([none, *first]), np.concatenate([none, *second]), start.size)


def _rank_by_first(groups: Integers) -> tuple[Integers, int]:
    """Give groups the numbers 1 … N in the order in which they first come."""
    found, first, group = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(found.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(1, found.size + 1)
    return rank[group], found.size
