"""Undo the gap that training puts between objects that touch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["close_gap"]

Array: TypeAlias = npt.NDArray[Any]
Places: TypeAlias = npt.NDArray[np.intp]


def close_gap(ids: Array, gap: int) -> Array:
    """Give background between two objects to the nearer one.

    A background pixel is d1 steps away from the nearest pixel of an object and d2 from the
    nearest of any other object; a step goes to a pixel that shares an edge (city-block
    distance). It is given to the nearest object if ``d1 + d2 <= gap + 1``, as across a gap
    of straight sides; of objects at the same distance, to the one with the lowest id. No
    other pixel changes.

    What a pixel becomes depends on what is at most ``gap`` steps away from it only: d1 is
    at least 1, so d2 is at most ``gap``, and d1 is no more.

    Parameters
    ----------
    ids : (…, Y, X) integer array
        0 is background, no id is negative. Nothing lies beyond the array; leading axes are
        planes that have nothing to do with one another.
    gap : int
        Width of the gap in pixels.

    Returns
    -------
    array of the same shape and type

    Examples
    --------
    >>> close_gap(np.array([[0, 1, 1, 0, 0, 2, 2, 0, 0, 0, 3]]), 2)
    array([[0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 3]])
    """
    if gap == 0 or ids.size == 0:
        return ids.copy()
    padded = np.pad(ids, [(0, 0)] * (ids.ndim - 2) + [(gap, gap)] * 2)
    inner = (..., slice(gap, -gap), slice(gap, -gap))
    near = np.zeros(padded.shape, dtype=bool)
    near[inner] = _grown(ids != 0, (gap + 1) // 2) & (ids == 0)
    places, nearest = _between(padded, np.flatnonzero(near), gap)
    padded.reshape(-1)[places] = nearest
    return padded[inner]


def _between(padded: Array, places: Places, gap: int) -> tuple[Places, Array]:
    """Return which of the places lie in a gap, and the nearest object of each."""
    # One less and unsigned: background becomes the largest number, so it is never a minimum.
    flat = padded.reshape(-1).view(f"u{padded.itemsize}") - 1
    none = np.iinfo(flat.dtype).max
    nearest = np.full(places.size, none, dtype=flat.dtype)
    first = np.full(places.size, 2 * gap)
    second = first.copy()
    for distance, steps in _circles(gap, padded.shape[-1]):
        around = [flat[places + step] for step in steps]
        new = nearest == none
        for found in around:
            np.minimum(nearest, found, out=nearest, where=new)
        first[new & (nearest != none)] = distance
        other = np.zeros(places.size, dtype=bool)
        for found in around:
            other |= (found != nearest) & (found != none)
        second[other & (second > distance)] = distance
    closes = first + second <= gap + 1
    return places[closes], (nearest[closes] + 1).view(padded.dtype)


def _circles(radius: int, width: int) -> Iterator[tuple[int, list[int]]]:
    """Yield each distance from 1 to the radius with the steps to all pixels as far away."""
    around = list(itertools.product(range(-radius, radius + 1), repeat=2))
    for distance in range(1, radius + 1):
        yield distance, [dy * width + dx for dy, dx in around if abs(dy) + abs(dx) == distance]


def _grown(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Grow a mask by a number of steps."""
    for _ in range(radius):
        grown = mask.copy()
        grown[..., 1:, :] |= mask[..., :-1, :]
        grown[..., :-1, :] |= mask[..., 1:, :]
        grown[..., 1:] |= mask[..., :-1]
        grown[..., :-1] |= mask[..., 1:]
        mask = grown
    return mask
