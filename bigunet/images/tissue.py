"""What of an image counts: tissue, found by local contrast.

Letters: h and w pixels of a window, b and d blocks of `BLOCK` pixels of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["block_spans", "least_span", "neighbour_span", "tissue_pixels"]

Pixels: TypeAlias = npt.NDArray[Any]

BLOCK = 4
"""Side of a low-resolution pixel: averages noise, still small against a nucleus."""
ENOUGH = 4
"""Pixels with data that a block of `BLOCK` x `BLOCK` needs for a mean to be trusted."""
FRACTION = 0.1
"""Contrast of tissue, in parts of the typical contrast of its edges."""
ROUNDS = 8
"""Rounds of the threshold at most; it usually stands still after three."""


def tissue_pixels(windows: Sequence[Pixels], spans: Sequence[Pixels] | None = None) -> list[Pixels]:
    """Pixels of tissue in each window, found by local contrast.

    Tissue is where something is to be seen: low-resolution pixels (means of
    `BLOCK` x `BLOCK`) whose 3 x 3 neighbourhood spans more than `FRACTION` of the
    typical span: edges, texture, and one block around. It is not grown further, for
    around tissue at the image's end there is room to grow only where somebody added
    a margin. "Typical" is the mean span weighted by itself,
    ``sum(s * s) / sum(s)``, as in RATS [1]_, so that flat areas hardly count, and
    then not at all: it is taken again of what passed, until nothing changes. A gain
    or an offset of the pixels cancels, and so does the amount of glass around.

    A pixel that is exactly 0 or not finite is no data, for that is what stitchers
    and scanners fill with: it enters no mean and is no tissue, or the outline of the
    filled area would be the strongest contrast of the image. The same holds for
    what lies beyond the last row and column. Without contrast all pixels are meant.

    Tissue is found in the sampled windows and not in a stored pyramid level: levels
    are optional, are made by any filter (nearest, mean, Gaussian), can hold something
    else altogether, and a lazy array has none. A file and the same pixels in memory
    must be given the same limits.

    Parameters
    ----------
    windows : sequence of (h, w) arrays
    spans : sequence of (b, d) arrays, optional
        The `block_spans` of the windows, where they are known.

    Returns
    -------
    list of (n,) arrays
        In no order that means anything.

    References
    ----------
    .. [1] Kittler, Illingworth, Foeglein, "Threshold selection based on a simple image
       statistic", CVGIP 30:125, 1985.
    """
    spans = [block_spans(window) for window in windows] if spans is None else spans
    threshold = least_span(np.concatenate([s.ravel() for s in spans]))
    if threshold is None:
        return [window[_with_data(window)] for window in windows]
    return [_of_blocks(w, s > threshold) for w, s in zip(windows, spans, strict=True)]


def neighbour_span(
    mean: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Span (b, d) of the values in the 3 x 3 neighbourhood of each; 0 where none was seen."""
    # Beyond the window's edge the edge is repeated, which adds no span.
    high = ndimage.maximum_filter(np.where(seen, mean, -np.inf), size=3, mode="nearest")
    low = ndimage.minimum_filter(np.where(seen, mean, np.inf), size=3, mode="nearest")
    span: npt.NDArray[np.float64] = np.subtract(high, low, out=np.zeros_like(mean), where=seen)
    return span


def least_span(span: npt.NDArray[np.float64]) -> float | None:
    """Least span of tissue of all spans (n,), or None where all is flat; see `tissue_pixels`."""
    strongest = span.max()
    if not strongest > 0:
        return None
    span = np.sort(span / strongest)
    threshold = 0.0
    for _ in range(ROUNDS):
        span = span[np.searchsorted(span, threshold, side="right") :]
        before, threshold = threshold, FRACTION * float((span @ span) / span.sum())
        if threshold <= before:
            break
    return float(threshold * strongest)


def block_spans(window: Pixels) -> npt.NDArray[np.float64]:
    """Span (b, d) of the block means around each block of a window (h, w); 0 where there is none."""
    valid = _with_data(window)
    count = _block_sums(valid.view(np.uint8))
    # Of small integers sums are exact in 32 bits, and pixels without data are 0 already.
    small = window.dtype.kind in "iu" and window.dtype.itemsize <= 2
    values = window.astype(np.int32) if small else np.where(valid, window, 0).astype(np.float64)
    return neighbour_span(_block_sums(values) / np.maximum(count, 1), count >= ENOUGH)


def _with_data(window: Pixels) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = window != 0
    return found if window.dtype.kind in "iu" else found & np.isfinite(window)


def _block_sums(window: Pixels) -> Pixels:
    """Return sums (b, d) over blocks of a window (h, w); the last ones may be smaller."""
    window = _whole_blocks(window)
    rows = reduce(np.add, (window[i::BLOCK] for i in range(BLOCK)))
    return reduce(np.add, (rows[:, i::BLOCK] for i in range(BLOCK)))


def _of_blocks(window: Pixels, chosen: npt.NDArray[np.bool_]) -> Pixels:
    """Return the pixels (n,) with data of some blocks (b, d) of a window (h, w)."""
    down, across = chosen.shape
    blocks = _whole_blocks(window).reshape(down, BLOCK, across, BLOCK).swapaxes(1, 2)
    pixels: Pixels = blocks[chosen]
    return pixels[_with_data(pixels)]


def _whole_blocks(window: Pixels) -> Pixels:
    """Return a window whose last blocks are filled up with what is no data."""
    beyond = [(0, -size % BLOCK) for size in window.shape]
    return np.pad(window, beyond) if any(after for _, after in beyond) else window
