"""Find the tissue of a slide at low resolution, in cells of a few pixels.

A cell is tissue where something is to be seen around it: the contrast rule of
`bigunet.images.tissue`, which knows no colours, so that stained tissue on bright glass and
fluorescence on dark are found alike. What is found is a function of the stored pixels of
one level: each cell is averaged in one piece, whatever the chunks and threads.

Lengths follow from what must not be lost: a nucleus, 5 to 10 µm. Where an image has no unit
of length, a pixel of its finest level counts as `ASSUMED` micrometres.

Letters: b and d rows and columns of cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from dask.base import compute
from dask.delayed import delayed
from scipy import ndimage

from bigunet.images.image import Image
from bigunet.images.planes import Plane, image_planes
from bigunet.images.tissue import BLOCK, ENOUGH, least_span, neighbour_span
from bigunet.masking.fit import grids_of, same_field

__all__ = ["RECIPE", "choose_look", "find_cells"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]

RECIPE = 1
"""Goes up when the same slide no longer gives the same mask."""

AROUND = np.ones((3, 3), dtype=bool)

LONG_SIDE = 2048
"""Pixels along the longer side of the level that is looked at, at least."""
COARSEST = 4.0
"""Micrometres of its pixels, at most: a nucleus is a pixel or two."""
ASSUMED = 0.5
"""Micrometres of a pixel of the finest level, where nobody said: a scan at 20×."""

MARGIN = 25.0
"""Micrometres that tissue is grown by, and gaps of twice that are closed: two or three
cells, so that those at the rim are inside with what the network sees around them."""
MARGIN_CELLS = (2, 16)
"""Bounds of the same in cells, where they are very large or very small."""
HOLE = 500.0
"""Side in micrometres of the largest hole that is filled, such as a vessel or a gland."""
NUCLEUS = 5.0
"""Micrometres of the smallest nucleus: what is seen smaller is dust or noise."""
NUCLEUS_CELLS = 4.0
"""Bound of the same in cells."""

BLACK = 8.0
"""Largest value of a bright-field pixel that scanners fill with; JPEG adds some to 0."""
BRIGHT = 127.5
"""Median from which a colour image is bright-field."""

WINDOW = 2048
"""Pixels on a side that one task averages, about."""
FULL_SIDE = 4096
"""Pixels along the longer side from which cells get larger, where there is no lower level."""


def choose_look(image: Image, level: int) -> int:
    """Choose the stored level on which tissue is looked for when a level is segmented.

    It is the coarsest one of at least `LONG_SIDE` pixels, none of them larger than `COARSEST`,
    among those that cover the same field with as many planes as the level; the finest of
    them where all are smaller.
    """
    grids, sizes = grids_of(image), [_outer(image, k) for k in range(len(image.levels))]
    alike = [
        k
        for k in range(len(grids))
        if same_field(grids[level], grids[k]) and sizes[k] == sizes[level]
    ]
    fine = [k for k in alike if max(grids[k].shape) >= LONG_SIDE and _pixel(image, k) <= COARSEST]
    return max(fine, key=lambda k: grids[k].scale, default=min(alike))


def find_cells(image: Image, look: int) -> tuple[Bools, int]:
    """Find the cells of tissue on a level of an image; all its planes share them.

    Returns
    -------
    cells : (b, d) bool array
        All False where nothing is to be seen.
    side : int
        Pixels of the level along a cell; the last ones may be cut off.

    Raises
    ------
    RunError
        If the level cannot be read.
    """
    planes = image_planes(image, look, range(len(image.channels)))
    side = BLOCK * max(1, max(planes[0].shape[1:]) // FULL_SIDE)
    return _tidied(_seen(planes, side), side * _pixel(image, look)), side


def _seen(planes: Iterable[Plane], side: int) -> Bools:
    """Return the cells in which something is to be seen, in any channel of any plane."""
    spans: npt.NDArray[np.float32] | None = None
    for plane in planes:
        found = _spans(plane, side)
        spans = found if spans is None else np.maximum(spans, found)
    assert spans is not None
    seen = np.zeros(spans.shape[1:], dtype=bool)
    for span in spans:
        least = least_span(span.ravel().astype(np.float64))
        if least is not None:
            seen |= span > least
    return seen


def _spans(plane: Plane, side: int) -> npt.NDArray[np.float32]:
    """Return the contrast around each cell of a plane, (C, b, d)."""
    mean = _means(plane, side)
    valid: Bools = np.all(np.isfinite(mean), axis=0)
    if plane.dtype == np.uint8 and plane.shape[0] == 3:
        valid &= ~_filled_black(mean)
    return np.stack([neighbour_span(channel, valid) for channel in mean]).astype(np.float32)


def _filled_black(mean: Floats) -> Bools:
    """Return the cells of black around a bright-field scan, and those that have a part in it.

    Against glass its edge would be the strongest contrast of all. On dark ground, 0 is a
    value like any other.
    """
    brightest = np.nan_to_num(mean.max(axis=0))
    black = brightest <= BLACK
    if black.all() or np.median(brightest[~black]) < BRIGHT:
        return np.zeros_like(black)
    dilated: Bools = ndimage.binary_dilation(black, AROUND)
    return dilated


def _means(plane: Plane, side: int) -> Floats:
    """Return the mean of each cell of a plane, (C, b, d); NaN of cells without enough data."""
    channels, height, width = plane.shape
    mean = np.empty((channels, -(-height // side), -(-width // side)))
    windows = list(_windows((height, width), side))
    task = delayed(_window_means, pure=False)
    found = compute(*(task(plane, y, x, side) for y, x in windows), scheduler="threads")
    for (y, x), part in zip(windows, found, strict=True):
        mean[:, y.start // side :, x.start // side :][:, : part.shape[1], : part.shape[2]] = part
    return mean


def _windows(shape: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    """Yield windows of whole cells."""
    step = side * max(1, WINDOW // side)
    for y in range(0, shape[0], step):
        for x in range(0, shape[1], step):
            yield slice(y, min(y + step, shape[0])), slice(x, min(x + step, shape[1]))


def _window_means(plane: Plane, y: slice, x: slice, side: int) -> Floats:
    return np.stack([_cell_means(channel, side) for channel in plane.read(y, x)])


def _cell_means(pixels: npt.NDArray[Any], side: int) -> Floats:
    """Return means (b, d) of the finite pixels (h, w) of each cell."""
    valid = np.isfinite(pixels)
    count = _cell_sums(valid.astype(np.float64), side)
    sums = _cell_sums(np.where(valid, pixels, 0).astype(np.float64), side)
    return np.where(count >= ENOUGH, sums / np.maximum(count, 1), np.nan)


def _cell_sums(pixels: Floats, side: int) -> Floats:
    for axis in (0, 1):
        pixels = np.add.reduceat(pixels, np.arange(0, pixels.shape[axis], side), axis=axis)
    return pixels


def _tidied(seen: Bools, cell: float) -> Bools:
    """Drop specks, close gaps, fill holes and add the margin; a cell is `cell` micrometres."""
    margin = int(np.clip(math.ceil(MARGIN / cell), *MARGIN_CELLS))
    closed = _closed(_without_specks(seen, cell), margin)
    return _grown(_without_holes(closed, (HOLE / cell) ** 2), margin)


def _without_specks(seen: Bools, cell: float) -> Bools:
    """Drop what is smaller than a nucleus would be with the cell around that contrast adds."""
    parts, _ = ndimage.label(seen, structure=AROUND)
    kept = np.bincount(parts.ravel()) >= (min(NUCLEUS / cell, NUCLEUS_CELLS) + 1) ** 2
    kept[_at_border(parts)] = True  # cut off there, a nucleus may be as small as that
    kept[0] = False
    result: Bools = kept[parts]
    return result


def _without_holes(mask: Bools, most: float) -> Bools:
    """Fill background of up to `most` cells that does not reach the border."""
    parts, _ = ndimage.label(~mask)
    hole = np.bincount(parts.ravel()) <= most
    hole[_at_border(parts)] = False
    hole[0] = False
    filled: Bools = mask | hole[parts]
    return filled


def _at_border(parts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the numbers of the parts that reach the border."""
    return np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])


def _closed(mask: Bools, radius: int) -> Bools:
    """Close gaps of up to twice the radius; what lies beyond the border closes nothing."""
    return ~_grown(~_grown(mask, radius), radius)


def _grown(mask: Bools, radius: int) -> Bools:
    """Add all cells whose centre is within a radius of one's of the mask."""
    if not mask.any():
        return mask.copy()
    near: Bools = ndimage.distance_transform_edt(~mask) <= radius
    return near


def _outer(image: Image, level: int) -> list[int]:
    pairs = zip(image.axis_names, image.levels[level].shape, strict=True)
    return [size for axis, size in pairs if axis in "tz"]


def _pixel(image: Image, level: int) -> float:
    """Return the side of a pixel in micrometres, assumed where nobody said."""
    known = image.pixel_size(level)
    if known is not None:
        return known
    first, own = image.levels[0].scale, image.levels[level].scale
    y, x = own[-2] / first[-2], own[-1] / first[-1]
    return ASSUMED * (y if y == x else math.sqrt(y) * math.sqrt(x))
