"""Where an image is looked at: windows that follow from its shape alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from bigunet.errors import InputError

__all__ = [
    "WINDOW",
    "WINDOWS",
    "Index",
    "bounding_box",
    "read_together",
    "rectangle",
    "sample_windows",
]

Index: TypeAlias = tuple[int | slice, ...]

WINDOW = 256
"""Side of a window in pixels; a divisor of usual chunks, so a window needs one chunk."""
WINDOWS = 512
"""Windows per image at most: 5792 x 5792 pixels of every channel, held until they are measured."""
TOGETHER = 1024
"""Longest side of what is read for several windows at once."""
PLANES = 16
"""Planes looked at, at most."""


def sample_windows(shape: Sequence[int]) -> tuple[Index, ...]:
    """Where limits are measured: indices of windows, from the array's shape alone.

    Windows of `WINDOW` x `WINDOW` pixels sit on a grid of that pitch from pixel
    (0, 0), so they never overlap and lie within one chunk of the usual sizes. An
    image of up to `WINDOWS` windows is covered whole; of a larger one, evenly
    spaced rows and columns of the grid are taken, with the same budget for a
    square and for a strip. Of several planes, up to `PLANES` evenly spaced ones
    share the budget.

    Parameters
    ----------
    shape : (C, Y, X) or (P, C, Y, X)

    Returns
    -------
    tuple of indices
        ``array[index]`` has shape (C, h, w), h and w at most `WINDOW`.

    Examples
    --------
    >>> sample_windows((1, 300, 200))
    ((slice(None, None, None), slice(0, 256, None), slice(0, 200, None)), \
(slice(None, None, None), slice(256, 300, None), slice(0, 200, None)))
    """
    if len(shape) not in (3, 4) or not all(size >= 1 for size in shape):
        raise InputError(f"array of shape {tuple(shape)}: (C, Y, X) or (P, C, Y, X) is needed")
    *leading, _, height, width = (int(size) for size in shape)
    planes = [(p,) for p in _spread(leading[0], PLANES)] if leading else [()]
    cells = -(-height // WINDOW), -(-width // WINDOW)
    down, across = _grid(cells, WINDOWS // len(planes))
    return tuple(
        (*plane, slice(None), _span(row, height), _span(column, width))
        for plane in planes
        for row in _spread(cells[0], down)
        for column in _spread(cells[1], across)
    )


def read_together(
    windows: Sequence[Index], chunks: tuple[int, int] = (WINDOW, WINDOW)
) -> list[list[Index]]:
    """Return the windows in groups, in their order, that are best read at once: of whole chunks.

    Parameters
    ----------
    windows : sequence of indices
        Of `sample_windows`.
    chunks : (Y, X)
        What is stored in one piece; a group lies in about `TOGETHER` pixels of a side.
    """
    # Of small chunks several, for each read costs time of its own.
    down, across = (TOGETHER // side * side if side < TOGETHER else TOGETHER for side in chunks)
    groups: dict[tuple[object, ...], list[Index]] = {}
    for window in windows:
        y, x = rectangle(window)
        place = (*window[:-3], y.start // down, x.start // across)
        groups.setdefault(place, []).append(window)
    return list(groups.values())


def bounding_box(windows: Sequence[Index]) -> Index:
    """Return the index of the smallest rectangle that holds windows of one plane."""
    y, x = (
        slice(min(span.start for span in spans), max(span.stop for span in spans))
        for spans in zip(*map(rectangle, windows), strict=True)
    )
    return (*windows[0][:-2], y, x)


def rectangle(window: Index) -> tuple[slice, slice]:
    """Return the rows and columns of a window."""
    y, x = window[-2:]
    assert isinstance(y, slice) and isinstance(x, slice)
    return y, x


def _grid(cells: tuple[int, int], budget: int) -> tuple[int, int]:
    """Rows and columns to take of a grid of cells: square, unless one side is too short."""
    down = min(cells[0], math.isqrt(budget))
    across = min(cells[1], budget // down)
    return min(cells[0], budget // across), across


def _spread(size: int, count: int) -> list[int]:
    """Up to `count` different indices of `size`, evenly spaced, centred."""
    count = min(size, count)
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]


def _span(cell: int, size: int) -> slice:
    return slice(cell * WINDOW, min((cell + 1) * WINDOW, size))
