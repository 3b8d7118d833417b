"""The lower levels of a result: ids are kept, probabilities are averaged.

Level k + 1 is made from level k as it is stored, window by window, so that no
more than a window is in memory. Windows are whole write units.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bigunet.images.output import Output, read_window, write_window

__all__ = [
    "level_shapes",
    "pyramid_count",
    "pyramid_tasks",
    "reduce_mean",
    "reduce_nearest",
    "reduce_window",
]

Array: TypeAlias = NDArray[Any]

TASK_SIDE = 1024
"""Pixels on a side that one task writes, where write units are not larger than that."""
MANY_TASKS = 4096
"""A level of more tasks than this has tasks of twice the side: each costs the scheduler."""


def level_shapes(shape: tuple[int, ...], levels: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of a pyramid: y and x go on halving, rounded up, so they stay above 0.

    Examples
    --------
    >>> level_shapes((7, 5, 100), 3)
    ((7, 5, 100), (7, 3, 50), (7, 2, 25))
    """
    *others, height, width = shape
    return tuple((*others, -(-height >> k), -(-width >> k)) for k in range(levels))


def reduce_nearest(ids: Array) -> Array:
    """Halve (…, Y, X) without making new values: every second row and column."""
    return ids[..., ::2, ::2]


def reduce_mean(values: Array) -> Array:
    """Halve (…, Y, X) unsigned integers of up to 32 bits by the mean of 2 × 2 pixels.

    Half is rounded up. At ragged ends the mean is over the pixels that exist.

    Examples
    --------
    >>> reduce_mean(np.array([[1, 2, 9], [3, 4, 8]], dtype=np.uint8))
    array([[3, 9]], dtype=uint8)
    """
    wide = {1: np.uint16, 2: np.uint32}.get(values.dtype.itemsize, np.uint64)
    if values.dtype.kind != "u" or values.dtype.itemsize > 4:
        raise ValueError(f"the mean of {values.dtype} is not exact; use uint8, uint16 or uint32")
    height, width = values.shape[-2:]
    rows = values[..., ::2, :].astype(wide)
    rows[..., : height // 2, :] += values[..., 1::2, :]
    sums = rows[..., ::2].copy()
    sums[..., : width // 2] += rows[..., 1::2]
    # The number of pixels is 4, 2 or 1, so the division is a shift.
    shift = (np.arange(height + 1 >> 1) < height // 2)[:, None].astype(wide)
    shift = shift + (np.arange(width + 1 >> 1) < width // 2).astype(wide)
    half: Array = (wide(1) << shift) >> wide(1)
    mean: Array = ((sums + half) >> shift).astype(values.dtype)
    return mean


def pyramid_tasks(output: Output, level: int) -> Iterator[tuple[tuple[int, ...], slice, slice]]:
    """Windows that make a level (1 or more) from the one before, where the run wrote.

    Each is what `reduce_window` takes after `output` and `level`; they can run in
    any order once the level before is complete.
    """
    rows, columns = _windows(output, level)
    for index in np.ndindex(output.planes):
        for y in rows:
            for x in columns:
                yield index, y, x


def pyramid_count(output: Output, level: int) -> int:
    """Return how many windows `pyramid_tasks` gives."""
    rows, columns = _windows(output, level)
    return prod(output.planes) * len(rows) * len(columns)


def reduce_window(output: Output, level: int, index: tuple[int, ...], y: slice, x: slice) -> bool:
    """Make one window of a level from the stored level before; True where it wrote something.

    Windows whose source is all zero write nothing: zero is what is read there anyway.

    Raises
    ------
    RunError
        If the level before cannot be read, or this one not be written.
    """
    height, width = output.shapes[level - 1][-2:]
    columns = slice(2 * x.start, min(2 * x.stop, width))
    reduce = reduce_mean if output.kind == "probabilities" else reduce_nearest
    # Rows of whole chunks of one channel at a time: the source is four times as large as the result.
    size, chunk = output.shapes[level][-2], output.level_chunk(level)[0]
    pieces = [
        slice(2 * part.start, min(2 * part.stop, height))
        for part in _steps(y.start, y.stop, size, chunk, TASK_SIDE)
    ]
    parts = [
        np.concatenate(
            [reduce(read_window(output, level - 1, index, r, columns, channel)) for r in pieces]
        )
        for channel in range(output.channels)
    ]
    data = np.stack(parts) if "c" in output.axis_names else parts[0]
    if not data.any():
        return False
    write_window(output, level, index, y, x, data)
    return True


def _windows(output: Output, level: int) -> tuple[list[slice], list[slice]]:
    """Return the rows and the columns of a level's tasks."""
    for side in (TASK_SIDE, 2 * TASK_SIDE):
        rows, columns = (
            list(_steps(first >> level, -(-last >> level), size, unit, side))
            for (first, last), size, unit in zip(
                output.region, output.shapes[level][-2:], output.unit(level), strict=True
            )
        )
        if len(rows) * len(columns) <= MANY_TASKS:
            break
    return rows, columns


def _steps(first: int, last: int, size: int, unit: int, side: int) -> Iterator[slice]:
    """Cut the whole units that touch [first, last) into the slices of the tasks."""
    step = max(unit, side // unit * unit)
    for start in range(first // unit * unit, last, step):
        yield slice(start, min(start + step, -(-last // unit) * unit, size))
