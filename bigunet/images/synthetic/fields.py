"""Random numbers that belong to places: lattices, smooth fields, noise of pixels.

Every number is drawn from a counter-based generator keyed on seed, purpose and
place, so it is the same whatever else is drawn. Only sums, products, quotients and
roots touch pixels: those are exact to the bit wherever a pixel lies in a vector
register, which exp or cos are not.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Positions", "Stream", "draw_words", "pixel_noise", "smooth_field", "uniform"]

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Positions: TypeAlias = npt.NDArray[np.int64]
"""Of pixels, in a row."""
Words: TypeAlias = npt.NDArray[np.uint64]

BLOCK = 64  # cells on a side that share one random stream


class Stream(IntEnum):
    """What random numbers are for; no two purposes share any."""

    CELLS = 1
    TISSUE = 2
    CLUSTERS = 3
    LIGHT = 4
    HAZE = 5
    CHROMATIN = 6
    SENSOR = 7


def draw_words(seed: int, stream: Stream, rows: range, columns: range, words: int = 1) -> Words:
    """Draw the random words of lattice cells, (rows, columns, words)."""
    out = np.empty((len(rows), len(columns), words), np.uint64)
    key = np.array([seed, stream], np.uint64)
    for top in range(rows.start // BLOCK * BLOCK, rows.stop, BLOCK):
        for left in range(columns.start // BLOCK * BLOCK, columns.stop, BLOCK):
            place = [0, 0, top % 2**64, left % 2**64]
            source = np.random.Philox(key=key, counter=np.array(place, np.uint64))
            block = source.random_raw(BLOCK * BLOCK * words).reshape(BLOCK, BLOCK, words)
            into, of = zip(
                *(_shared(cells, at) for cells, at in ((rows, top), (columns, left))), strict=True
            )
            out[into] = block[of]
    return out


def uniform(raw: Words) -> npt.NDArray[np.float64]:
    """Turn random words into numbers in [0, 1)."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def smooth_field(
    seed: int, stream: Stream, pitch: float, ys: npt.NDArray[Any], xs: npt.NDArray[Any]
) -> Floats:
    """Return a smooth random field in [0, 1) at rows ys and columns xs, float32."""
    rows, down = _between(ys, pitch)
    columns, right = _between(xs, pitch)
    of = [range(int(at[0]), int(at[-1]) + 2) for at in (rows, columns)]
    corner = uniform(draw_words(seed, stream, of[0], of[1]))[..., 0].astype(np.float32)
    rows, columns = rows - rows[0], columns - columns[0]
    lines = corner[rows] * (1 - down)[:, None] + corner[rows + 1] * down[:, None]
    field: Floats = lines[:, columns] * (1 - right) + lines[:, columns + 1] * right
    return field


def pixel_noise(seed: int, ys: Positions, xs: Positions) -> Floats:
    """Sum eight random bytes a pixel: nearly Gaussian, mean 0, deviation 1; float32."""
    rows, columns = (range(int(at[0]), int(at[-1]) + 1) for at in (ys, xs))
    raw = draw_words(seed, Stream.SENSOR, rows, columns)[..., 0]
    odd = np.uint64(0x00FF00FF00FF00FF)
    pairs = (raw & odd) + ((raw >> np.uint64(8)) & odd)
    total = (pairs * np.uint64(0x0001000100010001)) >> np.uint64(48)
    return (total.astype(np.float32) - 1020) * np.float32(1 / 209.02153)


def _shared(cells: range, block: int) -> tuple[slice, slice]:
    """Return where the wanted part of a block goes, and where it is in the block."""
    start, stop = max(cells.start, block), min(cells.stop, block + BLOCK)
    return slice(start - cells.start, stop - cells.start), slice(start - block, stop - block)


def _between(at: npt.NDArray[Any], pitch: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the corner before each position, and the way to the next (eased, 0 to 1)."""
    corner = np.floor(at / pitch)
    part = (at / pitch - corner).astype(np.float32)
    return corner.astype(np.int64), part * part * (3 - 2 * part)
