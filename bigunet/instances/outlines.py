"""From pixels to polygons: rings along the edges of pixels, with corners at whole numbers.

Pixel (y, x) is the square from (x, y) to (x + 1, y + 1), so the area of a polygon is the
number of its pixels. Around each corner lie four pixels::

     a │ b      One or three of them are foreground: a corner of one ring.
    ───┼───     Only a and d, or b and c: two corners, of one ring or of two. They lie
     c │ d      beside each other in all lists here: the first ends the edge on the left,
                the second the edge on the right.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Piece", "Polygon", "Ring", "mask_polygons", "piece_polygons"]

Integers: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Piece: TypeAlias = tuple[tuple[int, int], Mask]
"""(y, x) of the first pixel of a window, and the mask in the window."""
Ring: TypeAlias = Integers
"""(n, 2): x and y of its corners, the first one again at the end."""
Polygon: TypeAlias = list[Ring]
"""The exterior, then the holes in raster order of their first corners."""

A, B, C, D = 1, 2, 4, 8
CORNERS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], dtype=np.uint8)
"""How many corners four pixels make, by the sum of A to D of those in the foreground."""


def mask_polygons(mask: Mask) -> list[Polygon]:
    """Outline a mask: a polygon for each of its 4-connected parts.

    The polygons are valid simple features, as GEOS and JTS check them: where pixels of a
    part meet at a corner only, two rings touch there and none touches itself. Exteriors have
    a positive, holes a negative area by the shoelace formula (RFC 7946), and no three corners
    in a row lie on a line.

    Parameters
    ----------
    mask : (Y, X) array of bool

    Returns
    -------
    list of Polygon
        In raster order of the first pixels of the parts.

    Examples
    --------
    >>> mask_polygons(np.ones((1, 2), dtype=bool))[0][0].tolist()
    [[0, 0], [2, 0], [2, 1], [0, 1], [0, 0]]
    """
    return piece_polygons([((0, 0), mask)])


def piece_polygons(pieces: Iterable[Piece]) -> list[Polygon]:
    """Outline a mask that is given in windows; see `mask_polygons`.

    Memory grows with the corners of the outlines, not with the pixels.

    Parameters
    ----------
    pieces : iterable of ((y, x), mask)
        Windows that do not overlap; what lies in none of them is background.
    """
    found = [_find_corners(low, mask) for low, mask in pieces]
    if not any(y.size for y, _, _ in found):
        return []
    y, x, code = _join_corners(found)
    other = _link_columns(y, x, code)
    rings = _follow(other)
    meeting = np.flatnonzero(CORNERS[code] == 2)[::2].tolist()
    if meeting and _untangle(meeting, other, rings):
        rings = _follow(other)
    points = np.stack([x, y], axis=1)
    # A ring goes right and down from its first corner, so d lies inside it.
    is_hole = (code & D == 0).tolist()
    polygons: dict[int, Polygon] = {}
    for ring, owner in zip(rings, _owners(rings, is_hole, other, x), strict=True):
        outline = points[ring]
        polygons.setdefault(owner, []).append(outline[::-1] if is_hole[ring[0]] else outline)
    return list(polygons.values())


def _find_corners(low: tuple[int, int], mask: Mask) -> tuple[Integers, Integers, Integers]:
    """Return y, x and code of the corners that a window sees, in raster order."""
    height, width = mask.shape
    framed = np.zeros((height + 2, width + 2), dtype=np.uint8)
    framed[1:-1, 1:-1] = mask
    across = framed[:, :-1] * A + framed[:, 1:] * B
    codes = (across[:-1] + across[1:] * (C // A)).reshape(-1)
    found = np.flatnonzero(CORNERS[codes])
    y, x = np.divmod(found, width + 1)
    return y + low[0], x + low[1], codes[found].astype(np.int64)


def _join_corners(
    parts: list[tuple[Integers, Integers, Integers]],
) -> tuple[Integers, Integers, Integers]:
    """Join the corners of windows, and list those twice at which two pixels meet.

    A corner on the seam of windows is the sum of what they see of it. A window that sees no
    corner there sees none or two neighbouring pixels, which change neither an odd number to
    an even one nor make two pixels that meet at the corner only.
    """
    y, x, code = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(parts) > 1:
        order = np.lexsort((x, y))
        y, x, code = y[order], x[order], code[order]
        is_new = np.flatnonzero(np.diff(y, prepend=-1) | np.diff(x, prepend=-1))
        y, x, code = y[is_new], x[is_new], np.bitwise_or.reduceat(code, is_new)
    copies = CORNERS[code]
    if (copies == 1).all():
        return y, x, code
    return np.repeat(y, copies), np.repeat(x, copies), np.repeat(code, copies)


def _link_columns(y: Integers, x: Integers, code: Integers) -> list[int]:
    """Return the other end of the vertical edge of each corner.

    Along a row of corners horizontal edges begin and end in turn, so 2k and 2k + 1 are the
    ends of one; along a column vertical edges do. Of two corners at one place each goes round
    its own pixel: the first, which ends an edge and is odd, is the lower one where that is c.
    """
    is_lower = (code == B + C) & (np.arange(y.size) % 2 == 1)
    order = np.argsort(2 * (x * (y[-1] + 1) + y) + is_lower, kind="stable")
    other = np.empty_like(order)
    other[order] = order.reshape(-1, 2)[:, ::-1].reshape(-1)
    linked: list[int] = other.tolist()
    return linked


def _follow(other: list[int]) -> list[list[int]]:
    """Follow the edges of each ring from its first corner, which lies to the left, to itself."""
    rings: list[list[int]] = []
    seen = bytearray(len(other) // 2)
    for start in range(0, len(other), 2):
        ring: list[int] = []
        corner = start
        while not seen[corner >> 1]:
            seen[corner >> 1] = 1
            ring += (corner, corner ^ 1)
            corner = other[corner ^ 1]
        if ring:
            rings.append([*ring, start])
    return rings


def _untangle(meeting: list[int], other: list[int], rings: list[list[int]]) -> bool:
    """Part rings that touch themselves, in place, by swapping the vertical edges where they do.

    Both pixels belong to one part then, which surrounds one of the two others: that becomes
    a hole, or a part of a hole, with a ring of its own.
    """
    ring_of = _ring_numbers(rings, len(other))
    tangled = [i for i in meeting if ring_of[i] == ring_of[i + 1]]
    for i in tangled:
        first, second = other[i], other[i + 1]
        other[i], other[second] = second, i
        other[i + 1], other[first] = first, i + 1
    return bool(tangled)


def _ring_numbers(rings: list[list[int]], corners: int) -> list[int]:
    numbers = [0] * corners
    for number, ring in enumerate(rings):
        for corner in ring:
            numbers[corner] = number
    return numbers


def _owners(
    rings: list[list[int]], is_hole: list[bool], other: list[int], x: Integers
) -> list[int]:
    """Return the exterior of each ring; going down the rows, for rings begin in raster order.

    What lies left of the first corner of a hole is foreground, as far as the nearest edge,
    whose ring is one of the same part.
    """
    owners = list(range(len(rings)))
    if sum(not is_hole[ring[0]] for ring in rings) == 1:
        return [0] * len(rings)
    ring_of = _ring_numbers(rings, len(other))
    edges: list[int] = []  # x of the edges that cross the row
    ring_at: dict[int, int] = {}
    for corner, column in enumerate(x.tolist()):
        ring = ring_of[corner]
        if corner == rings[ring][0] and is_hole[corner]:
            owners[ring] = owners[ring_at[edges[bisect_left(edges, column) - 1]]]
        if other[corner] > corner:
            insort(edges, column)
            ring_at[column] = ring
        else:
            edges.pop(bisect_left(edges, column))
    return owners
