"""Split objects that grew together: seeded watershed on the distance map.

Every pixel climbs the map of distances to the border of its class, from neighbour to the
highest neighbour, up to a peak. A peak is a seed if every way to a higher one leads down
by at least `DEPTH`; the pixels of any other peak go on, across the highest pass, to the
higher peak behind it. (The watershed of maxima of that dynamics: Soille, *Morphological
Image Analysis*, 2nd ed., ch. 6 and 9.)

What a pixel becomes depends on its 4-connected object alone, and so do the distances in it,
for between a pixel and the nearest one of another class lies nothing but the object.
Ties go to the later pixel in raster order. So neither origin nor block matters where the
whole object is seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bigunet.instances.neighbours import positions

__all__ = ["DEPTH", "split_classes"]

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

DEPTH = 1.0
"""How far down, in pixels of distance, it has to go between two seeds."""

_CLASS_BITS = 8
_EDGES = ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1]))
"""The two ends of all vertical, then of all horizontal pairs of neighbours."""


def split_classes(
    classes: npt.NDArray[np.uint8],
    *,
    origin: Sequence[int],
    whole: Sequence[int],
    max_diameter: int,
) -> Integers:
    """Give every foreground pixel the value of its part: equal in an object, else different.

    Law: the values of a block cut out of its halo are those of the whole array if the box
    of every object (4-connected, before it is split) that reaches into the block has sides
    of at most ``max_diameter``. Beyond that, blocks can disagree on the parts of an object.

    Parameters
    ----------
    classes : (…, y, x) uint8 array
        Class map of a block and ``max_diameter`` pixels around it in the last two axes, less
        where the plane ends; 0 is background.
    origin : sequence of int
        Place of the first pixel of ``classes`` (halo included) in the whole array.
    whole : sequence of int
        Shape of the whole array, (…, Y, X).
    max_diameter : int
        In pixels; distances are cut off at it.

    Returns
    -------
    (…, y, x) int64 array
        0 for background. Cut the halo off and give the block to
        `label_block(by_class=True)`: each part is 4-connected. The class is in the lowest 8
        bits of the value, and the place of the seed in the whole array above.

    Raises
    ------
    OverflowError
        The whole array has 2**55 pixels or more.
    """
    if math.prod(whole) >= 2 ** (63 - _CLASS_BITS):
        raise OverflowError(f"shape {tuple(whole)}: seeds of 2**55 pixels or more have no number")
    planes = classes.reshape(-1, *classes.shape[-2:])
    seeds = np.stack([_seeds(plane, max_diameter) for plane in planes])
    seeds += np.arange(len(planes))[:, None] * planes[0].size
    steps = [math.prod(whole[axis + 1 :]) for axis in range(len(whole))]
    values = np.zeros(classes.shape, dtype=np.int64)
    solid = classes > 0
    places = positions(seeds.reshape(classes.shape)[solid], classes.shape, origin, steps)
    values[solid] = places << _CLASS_BITS | classes[solid]
    return values


def _seeds(classes: Array, most: int) -> Integers:
    """Return the flat index of each pixel's seed, (y x,); background is its own."""
    height = _distances(classes, most)
    peak = _climb(classes, height)
    return _leave_shallow_peaks(peak, classes, height)


def _distances(classes: Array, most: int) -> Floats:
    """Return how far each pixel is from the nearest one that is not of its class."""
    distances = np.zeros(classes.shape)
    for value in np.unique(classes[classes > 0]):
        mask = classes == value
        # A class without an end has no distances, so they are all the same.
        inside = mask * most if mask.all() else ndimage.distance_transform_edt(mask)
        distances = np.maximum(distances, inside)
    return np.minimum(distances, most)


def _climb(classes: Array, height: Floats) -> Integers:
    """Return the flat index of the peak that each pixel climbs to, (y x,)."""
    own = np.arange(classes.size).reshape(classes.shape)
    highest, target = np.where(classes > 0, height, np.inf), own.copy()
    for ends in _EDGES:
        for here, there in (ends, ends[::-1]):
            up, to = highest[here], target[here]  # views
            better = height[there] > up
            better |= (height[there] == up) & (own[there] > to)
            better &= classes[there] == classes[here]
            np.copyto(up, height[there], where=better)
            np.copyto(to, own[there], where=better)
    return _follow(target.reshape(-1))


def _leave_shallow_peaks(peak: Integers, classes: Array, height: Floats) -> Integers:
    """Lead the pixels of peaks that are no seeds on to seeds, highest passes first."""
    top = height.reshape(-1)
    onward: dict[int, int] = {}

    def seed(of: int) -> int:
        while of in onward:
            of = onward[of]
        return of

    for one, other, height_of_pass in _passes(peak, classes, height):
        lower, higher = sorted((seed(one), seed(other)), key=lambda p: (top[p], p))
        if lower != higher and top[lower] - height_of_pass < DEPTH:
            onward[lower] = higher
    ends = np.arange(peak.size)
    for of in onward:
        ends[of] = seed(of)
    return ends[peak]


def _passes(peak: Integers, classes: Array, height: Floats) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of peaks that meet, with the height of the pass, from the highest down.

    Passes that are deep for both peaks are left out: they never lead on.
    """
    top, peaks = height.reshape(-1), peak.reshape(height.shape)
    found = []
    for here, there in _EDGES:
        meet = (peaks[here] != peaks[there]) & (classes[here] == classes[there])
        meet &= classes[here] > 0
        low, high = np.sort([peaks[here][meet], peaks[there][meet]], axis=0)
        found.append((low, high, np.minimum(height[here], height[there])[meet]))
    low, high, level = (np.concatenate(part) for part in zip(*found, strict=True))
    shallow = np.minimum(top[low], top[high]) - level < DEPTH
    low, high, level = low[shallow], high[shallow], level[shallow]
    order = np.lexsort((high, low, -level))
    yield from zip(low[order].tolist(), high[order].tolist(), level[order].tolist(), strict=True)


def _follow(target: Integers) -> Integers:
    """Return where the way from each index ends."""
    while not np.array_equal(further := target[target], target):
        target = further
    return target
