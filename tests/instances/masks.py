"""Masks that are hard to label in parts, and what tests draw from."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.strategies import chunkings


def spiral(size: int) -> np.ndarray:
    """Return one line, a pixel wide, that winds inwards with a gap of a pixel."""
    mask = np.zeros((size, size), dtype=bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    steps = [size - 1] + [n for n in range(size - 1, 0, -2) for _ in (0, 1)]
    for count in steps:
        for _ in range(count):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
    return mask


def comb(height: int, width: int) -> np.ndarray:
    """Return teeth that hang together in the last row only."""
    mask = np.zeros((height, width), dtype=bool)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


def checkerboard(*shape: int) -> np.ndarray:
    return np.indices(shape).sum(axis=0) % 2 == 0


def diagonals(height: int, width: int) -> np.ndarray:
    """Return lines whose pixels meet at corners only."""
    y, x = np.indices((height, width))
    return (y + x) % 5 == 0


HARD = {
    "spiral": spiral(17),
    "comb": comb(13, 17),
    "comb upside down": comb(13, 17)[::-1],
    "comb on its side": comb(17, 13).T,
    "checkerboard": checkerboard(12, 15),
    "checkerboard 3-D": checkerboard(5, 6, 7),
    "diagonals": diagonals(14, 16),
    "full": np.ones((11, 9), dtype=bool),
    "empty": np.zeros((11, 9), dtype=bool),
    "full and empty blocks": np.kron(checkerboard(3, 4), np.ones((4, 4))) > 0,
    "one row": np.arange(23)[None] % 3 > 0,
    "one column": np.arange(23)[:, None] % 3 > 0,
    "a line": np.arange(23) % 4 > 0,
    "full 3-D": np.ones((4, 5, 6), dtype=bool),
    "spiral through planes": np.stack([spiral(9), np.zeros((9, 9), bool), spiral(9)[::-1]]),
}


def chunked(mask: np.ndarray, size: int) -> da.Array:
    return da.from_array(mask, chunks=(size,) * mask.ndim)


@st.composite
def structures(draw: st.DrawFn, ndim: int) -> np.ndarray:
    """Draw any structure that scipy takes, the odd ones without a centre, too."""
    half = draw(hnp.arrays(bool, (3,) * ndim))
    return half | np.flip(half)


@st.composite
def cut_masks(draw: st.DrawFn, values: int = 1, least: int = 1) -> da.Array:
    """Draw a mask of values 0 … and cut it into chunks of any sizes."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=least, max_side=9))
    # Bytes below a level that is drawn, too: masks from nearly empty to nearly full.
    noise = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.nothing()))
    solid = noise % 16 < draw(st.integers(1, 15))
    mask = solid * (noise // 16 % values + 1)
    return da.from_array(mask, chunks=tuple(draw(chunkings(size)) for size in shape))


def dumb_label(values: np.ndarray, structure: Any) -> tuple[np.ndarray, int]:
    """Label each value with scipy, then number objects by their first pixels."""
    from scipy import ndimage

    objects = []
    for value in np.unique(values[values != 0]):
        labels, count = ndimage.label(values == value, structure)
        objects += [labels == i + 1 for i in range(count)]
    objects.sort(key=lambda pixels: int(np.flatnonzero(pixels)[0]))
    found = np.zeros(values.shape, dtype=int)
    for number, pixels in enumerate(objects, 1):
        found[pixels] = number
    return found, len(objects)
