"""Which pixels touch: structures, and runs of pixels that a structure joins.

A *run* is a stretch of equal pixels along the last axis. A *position* is a flat
index into the whole array with one empty place behind every line, so that a
neighbour is always the same step away and never beyond the line's end::

    shape (2, 3)    0 1 2 .     the neighbour below right is 5 away;
                    4 5 6 .     that of pixel 2 is 7, where nothing lies

Runs at positions are intervals of whole numbers, and two sets of runs touch
where intervals overlap once one set is moved by the step of a neighbour.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bigunet.errors import InputError

__all__ = [
    "Lengths",
    "Offset",
    "as_structure",
    "check_positions",
    "find_runs",
    "group_pairs",
    "offset_step",
    "overlapping_runs",
    "plane_structure",
    "position_steps",
    "positions",
    "structure_offsets",
]

Integers: TypeAlias = npt.NDArray[np.int64]
Lengths: TypeAlias = npt.NDArray[np.signedinteger[Any]]
Offset: TypeAlias = tuple[int, ...]

_MOST_NODES = np.iinfo(np.int32).max


def as_structure(structure: Any, ndim: int) -> npt.NDArray[np.bool_]:
    """Return a structure as `scipy.ndimage.label` would take it, (3, …) bool.

    Parameters
    ----------
    structure : array_like or None
        Which neighbours of a pixel belong to the same object: 3 wide along every
        axis, the same seen from both sides. None is the faces (4-connectivity in 2-D).
    ndim : int
        Axes of the array to label.

    Raises
    ------
    InputError
        The structure is not like that.
    """
    if structure is None:
        return np.asarray(ndimage.generate_binary_structure(ndim, 1), dtype=bool)
    try:
        given = np.asarray(structure, dtype=bool)
    except ValueError:
        raise InputError(
            f"structure {structure!r} is no array; give {'x'.join('3' * ndim)}"
        ) from None
    if given.shape != (3,) * ndim:
        raise InputError(
            f"structure has shape {given.shape}, but an array of {ndim} axes needs {(3,) * ndim}"
        )
    if not np.array_equal(given, np.flip(given)):
        raise InputError(
            "structure is not symmetric: where it has a neighbour it needs the opposite one, too"
        )
    return given


def plane_structure(ndim: int) -> npt.NDArray[np.bool_]:
    """Return the structure of planes (…, Y, X) that nothing links, 4-connected each.

    Examples
    --------
    >>> structure_offsets(plane_structure(3))
    [(0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0)]
    """
    structure = np.zeros((3,) * ndim, dtype=bool)
    structure[(1,) * (ndim - 2)] = ndimage.generate_binary_structure(2, 1)
    return structure


def structure_offsets(structure: npt.NDArray[np.bool_]) -> list[Offset]:
    """Return the neighbours that a structure names, without the pixel itself.

    Examples
    --------
    >>> structure_offsets(as_structure(None, 2))
    [(-1, 0), (0, -1), (0, 1), (1, 0)]
    """
    around = itertools.product((-1, 0, 1), repeat=structure.ndim)
    return [o for o in around if any(o) and structure[tuple(i + 1 for i in o)]]


def position_steps(shape: Sequence[int]) -> tuple[int, ...]:
    """Return how far a step along each axis is, in positions of an array of this shape.

    Examples
    --------
    >>> position_steps((2, 3)), position_steps((5, 2, 3))
    ((4, 1), (12, 4, 1))
    """
    return tuple(math.prod(n + 1 for n in shape[axis + 1 :]) for axis in range(len(shape)))


def check_positions(shape: Sequence[int]) -> None:
    """Refuse an array whose pixels cannot be counted in 64 bits.

    Raises
    ------
    InputError
        There are too many.
    """
    if math.prod(n + 1 for n in shape) > np.iinfo(np.int64).max:
        raise InputError(
            f"array has shape {tuple(shape)}; more than 2**63 pixels have no positions"
        )


def positions(
    flat: Integers, shape: Sequence[int], origin: Sequence[int], steps: Sequence[int]
) -> Integers:
    """Return positions in the whole array of pixels of a part of it.

    Parameters
    ----------
    flat : (N,) array
        Flat indices into the part.
    shape, origin : sequence of int
        Size and place of the part.
    steps : sequence of int
        Steps of the whole array; with ``position_steps`` positions come out, with
        the steps of a plain array its flat indices.
    """
    moved = np.full(flat.shape, offset_step(origin, steps), dtype=np.int64)
    for coordinate, step in zip(np.unravel_index(flat, tuple(shape)), steps, strict=True):
        moved += coordinate * np.int64(step)
    return moved


def offset_step(offset: Sequence[int], steps: Sequence[int]) -> int:
    """Return how far a neighbour is away, in positions."""
    return sum(i * step for i, step in zip(offset, steps, strict=True))


def find_runs(array: npt.NDArray[Any], *, joined: bool = True) -> tuple[Integers, Lengths]:
    """Cut an array into runs of equal pixels along its last axis, in raster order.

    Parameters
    ----------
    array : array
        Any values; equal ones make a run.
    joined : bool
        False: every pixel is a run of its own.

    Returns
    -------
    start : (R,) int64 array
        Flat index of each run's first pixel.
    length : (R,) array, int32 (int64 where a line is longer than that can count)
        Pixels of each run; together they fill the array.

    Examples
    --------
    >>> find_runs(np.array([[5, 5, 0], [0, 7, 7]]))
    (array([0, 2, 3, 4]), array([2, 1, 1, 2], dtype=int32))
    """
    if array.size == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
    lines = array.reshape(-1, array.shape[-1])
    new = np.ones(lines.shape, dtype=bool)
    if joined:
        np.not_equal(lines[:, 1:], lines[:, :-1], out=new[:, 1:])
    start = np.flatnonzero(new)
    width = np.int32 if array.shape[-1] <= np.iinfo(np.int32).max else np.int64
    return start, np.diff(start, append=array.size).astype(width)


def overlapping_runs(
    first: tuple[Integers, Integers], second: tuple[Integers, Integers]
) -> tuple[Integers, Integers]:
    """Return all pairs of intervals, one from each set, that have a whole number in common.

    Parameters
    ----------
    first, second : (start, stop)
        Positions of each set's runs; the second's are sorted and apart.

    Returns
    -------
    i, j : (P,) arrays
        Places in the first and in the second set.

    Examples
    --------
    >>> runs = np.array([0, 5]), np.array([3, 7])
    >>> overlapping_runs((np.array([2]), np.array([6])), runs)
    (array([0, 0]), array([0, 1]))
    """
    low = np.searchsorted(second[1], first[0], side="right")
    high = np.searchsorted(second[0], first[1], side="left")
    each = high - low
    i = np.repeat(np.arange(each.size), each)
    before = np.cumsum(each) - each
    return i, np.arange(i.size) - before[i] + low[i]


def group_pairs(i: Integers, j: Integers, nodes: int) -> Integers:
    """Return a group for each of the nodes, equal where pairs connect them, (nodes,) array.

    Raises
    ------
    OverflowError
        There are more nodes than scipy's graphs can hold.
    """
    if nodes > _MOST_NODES:
        raise OverflowError(f"{nodes} parts of objects touch; at most {_MOST_NODES} can be joined")
    edges = coo_array((np.ones(i.size, dtype=np.int8), (i, j)), shape=(nodes, nodes))
    _, groups = connected_components(edges.tocsr(), directed=False)
    return np.asarray(groups)
