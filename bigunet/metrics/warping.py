"""Warping error: what remains of the difference of two masks once borders may move.

The truth is bent towards the prediction by flipping pixels where the two differ, as
long as that changes no topology (Jain et al. 2010). Only *simple* pixels are flipped:
objects are 4-connected and background is 8-connected, so a pixel is simple if among its
eight neighbours there is one 4-connected part of object that it touches by a side, and
one 8-connected part of background. Beyond the image all is background. Passes over the
pixels that differ, those of which the prediction is surest (farthest from the threshold)
first, go on until none can be flipped.

What still differs are errors of topology. Of these, ISBI 2012 counted the pixels of

* mergers: background in the warped truth, object in the prediction, with two or more
  objects among the eight neighbours;
* splits: object in the warped truth, background in the prediction, with two or more
  objects among the eight neighbours once the pixel is taken out. Whether parts still
  hang together is looked up within 20 pixels, so a detour longer than that is a split.

Objects and holes that come or go are no such errors.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["RADIUS", "WarpingCounts", "count_warping", "is_simple", "warp"]

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]

RADIUS = 20
"""How far parts of an object are followed to tell a split, in pixels, as ISBI 2012 did."""

# The eight neighbours in the order of a walk around a pixel; sides have even places.
RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


@dataclass(frozen=True, kw_only=True)
class WarpingCounts:
    """Pixels that differ after warping; counts of images add up."""

    pixels: int = 0
    """Of the images."""
    mismatches: int = 0
    """All that differ: the error of Jain et al."""
    mergers: int = 0
    splits: int = 0

    def __add__(self, other: WarpingCounts) -> WarpingCounts:
        return WarpingCounts(
            pixels=self.pixels + other.pixels,
            mismatches=self.mismatches + other.mismatches,
            mergers=self.mergers + other.mergers,
            splits=self.splits + other.splits,
        )

    @property
    def error(self) -> float:
        """Pixels of splits and mergers over all pixels: the error of ISBI 2012."""
        return (self.mergers + self.splits) / self.pixels if self.pixels else float("nan")


def count_warping(
    truth: Mask, prediction: Mask, sureness: Array | None = None, radius: int = RADIUS
) -> WarpingCounts:
    """Warp the truth towards the prediction and count what remains.

    Parameters
    ----------
    truth, prediction : (Y, X) bool arrays
        True inside objects.
    sureness : (Y, X) array, optional
        Pixels of larger values are tried first; raster order decides among equals.
    radius : int
        How far parts of an object are followed to tell a split, in pixels.
    """
    warped = warp(truth, prediction, sureness)
    places = np.argwhere(warped != prediction)
    parts = np.pad(ndimage.label(warped)[0], 1)
    inside = np.pad(warped, radius)
    mergers = splits = 0
    for y, x in places.tolist():
        ring = parts[y : y + 3, x : x + 3].copy()
        ring[1, 1] = 0
        several = np.unique(ring[ring > 0]).size > 1
        if not warped[y, x]:
            mergers += several
        else:
            window = inside[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            splits += several or _divides(window, radius)
    return WarpingCounts(
        pixels=truth.size, mismatches=len(places), mergers=int(mergers), splits=int(splits)
    )


def warp(truth: Mask, prediction: Mask, sureness: Array | None = None) -> Mask:
    """Flip simple pixels of the truth, where it differs, until none is left.

    Parameters
    ----------
    truth, prediction : (Y, X) bool arrays
    sureness : (Y, X) array, optional
        Pixels of larger values are tried first; raster order decides among equals.

    Returns
    -------
    (Y, X) bool array
        With the topology of the truth.
    """
    height, width = truth.shape
    row = width + 2
    differs = np.flatnonzero(truth != prediction)
    if sureness is not None:
        differs = differs[np.argsort(-sureness.ravel()[differs], kind="stable")]
    places = ((differs // width + 1) * row + differs % width + 1).tolist()
    state = bytearray(np.pad(truth, 1).astype(np.uint8).tobytes())
    _flip(state, places, tuple(dy * row + dx for dy, dx in RING))
    padded = np.frombuffer(state, dtype=np.uint8).reshape(height + 2, row)
    return padded[1:-1, 1:-1].astype(bool)


def _flip(state: bytearray, places: list[int], ring: tuple[int, ...]) -> None:
    """Flip simple pixels in passes over `places`, in place.

    A pixel that was not simple is looked at again only once a neighbour has changed:
    in the same pass if its turn is still to come, else in the next.
    """
    count, rank = len(places), {place: k for k, place in enumerate(places)}
    a, b, c, d, e, f, g, h = ring
    turns = list(range(count))  # pass × count + rank: sorted, hence a heap
    waiting = set(places)
    while turns:
        turn = heapq.heappop(turns)
        place = places[turn % count]
        waiting.discard(place)
        code = (
            state[place + a]
            | state[place + b] << 1
            | state[place + c] << 2
            | state[place + d] << 3
            | state[place + e] << 4
            | state[place + f] << 5
            | state[place + g] << 6
            | state[place + h] << 7
        )
        if not _SIMPLE[code]:
            continue
        state[place] ^= 1
        del rank[place]
        for step in ring:
            near = place + step
            k = rank.get(near)
            if k is not None and near not in waiting:
                later = turn // count + (k < turn % count)
                heapq.heappush(turns, later * count + k)
                waiting.add(near)


def is_simple(code: int) -> bool:
    """Tell whether a pixel can flip without a change of topology.

    Parameters
    ----------
    code : int
        Bit k is set where neighbour k is object, in the order of a walk around the
        pixel that begins above it.

    Examples
    --------
    >>> is_simple(0b00000001), is_simple(0b00010001), is_simple(0)
    (True, False, False)
    """
    ring = [bool(code >> k & 1) for k in range(8)]
    # Each part of object that has a side is counted once, at the side where it begins
    # (Yokoi's number); it is 1 only where there is one part of background, too.
    return sum(ring[k] and not (ring[k - 1] and ring[k - 2]) for k in (0, 2, 4, 6)) == 1


def _divides(window: Mask, radius: int) -> bool:
    """Tell whether the middle pixel of a window holds parts of its object together."""
    without = window.copy()
    without[radius, radius] = False
    ring = without[radius - 1 : radius + 2, radius - 1 : radius + 2]
    parts = ndimage.label(without)[0][radius - 1 : radius + 2, radius - 1 : radius + 2]
    return bool(np.unique(parts[ring]).size > 1)


_SIMPLE = tuple(is_simple(code) for code in range(256))
