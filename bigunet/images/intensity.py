"""Intensity limits of an image, measured once, so that no seam can appear.

A network is fed ``(pixel - lo) / (hi - lo)``. If ``lo`` and ``hi`` came from the
pixels at hand, every block would have its own and neighbours would not fit.
Here they come from the image, through three choices:

* **Where** is looked depends on the array's shape only (`sample_windows`), and
  the pixels of a window are the same however they are chunked. The limits are
  bit-identical for any chunking and any number of workers.
* **What** counts is tissue. The share of empty glass differs from slide to
  slide and moves a plain percentile; see `tissue_masks`.
* **How** is exact: order statistics of all sampled pixels, not
  ``dask.array.percentile``, which depends on chunks; see `percentile_of_sorted`.

Letters: P planes, C channels, Y and X pixels of a plane, n windows, h and w
pixels of a window, b and d blocks of `BLOCK` pixels of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed, delayed
from scipy import ndimage

from bigunet.errors import InputError

__all__ = [
    "IntensityRule",
    "Limits",
    "as_rule",
    "default_rule",
    "limits_of_windows",
    "measure_limits",
    "normalise",
    "percentile_of_sorted",
    "sample_windows",
    "tissue_masks",
]

Kind: TypeAlias = Literal["range", "percentile"]
Limits: TypeAlias = tuple[tuple[float, float], ...]
"""(lo, hi) per channel, in units of the pixels."""
Index: TypeAlias = tuple[int | slice, ...]
Pixels: TypeAlias = npt.NDArray[Any]

WINDOW = 256
"""Side of a window in pixels; a divisor of usual chunks, so a window needs one chunk."""
WINDOWS = 512
"""Windows per image at most: 5792 x 5792 pixels of every channel, held until they are measured."""
PLANES = 16
"""Planes looked at, at most."""
BLOCK = 4
"""Side of a low-resolution pixel: averages noise, still small against a nucleus."""
ENOUGH = 4
"""Pixels with data that a block of `BLOCK` x `BLOCK` needs for a mean to be trusted."""
FRACTION = 0.1
"""Contrast of tissue, in parts of the typical contrast of its edges."""
ROUNDS = 8
"""Rounds of the threshold at most; it usually stands still after three."""

_DEFAULTS: dict[str, tuple[float, float]] = {"range": (0.0, 255.0), "percentile": (1.0, 99.8)}


@dataclass(frozen=True, kw_only=True)
class IntensityRule:
    """How the two limits of a channel are found.

    Raises
    ------
    InputError
        Unknown kind, limits that are not in order, percentiles outside 0 to 100.
    """

    kind: Kind
    """``range``: `low` and `high` are the limits; ``percentile``: they are measured."""
    low: float
    """Value (range) or percentile that becomes 0."""
    high: float
    """Value (range) or percentile that becomes 1."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"intensity rule {self.kind!r}: use 'range' or 'percentile'")
        for name in ("low", "high"):
            object.__setattr__(self, name, _number(getattr(self, name), name))
        if not self.low < self.high:
            raise InputError(f"intensity {self.kind} {self.low:g}, {self.high:g}: low must be less")
        if self.kind == "percentile" and not 0 <= self.low < self.high <= 100:
            raise InputError(
                f"intensity percentiles {self.low:g}, {self.high:g}: both must lie in 0 to 100"
            )
        if self.kind == "range" and not np.float32(self.low) < np.float32(self.high):
            raise InputError(f"intensity range {self.low}, {self.high}: too narrow for float32")


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InputError(f"intensity {name} {value!r}: a number is needed")
    most = float(np.finfo(np.float32).max)
    if not -most <= value <= most:
        raise InputError(f"intensity {name} {value!r}: a finite number is needed")
    return float(value)


def as_rule(value: IntensityRule | str | Sequence[float] | Pixels) -> IntensityRule:
    """Rule from a rule, from a kind with its usual numbers, or from limits ``(lo, hi)``.

    Raises
    ------
    InputError
        Anything else.

    Examples
    --------
    >>> as_rule("percentile")
    IntensityRule(kind='percentile', low=1.0, high=99.8)
    >>> as_rule((100, 4000))
    IntensityRule(kind='range', low=100.0, high=4000.0)
    """
    if isinstance(value, IntensityRule):
        return value
    if isinstance(value, str):
        low, high = _DEFAULTS.get(value, (0.0, 1.0))
        return IntensityRule(kind=value, low=low, high=high)  # type: ignore[arg-type]
    given: Any = value
    values = list(given) if isinstance(given, Sequence | np.ndarray) else []
    if len(values) != 2:
        raise InputError(f"intensity {value!r}: use a rule, 'range', 'percentile' or (lo, hi)")
    return IntensityRule(kind="range", low=values[0], high=values[1])


def default_rule(dtype: npt.DTypeLike, channels: int) -> IntensityRule:
    """Rule for images of this type when nobody said: colour is fixed, signals are measured.

    Parameters
    ----------
    dtype : dtype of the pixels
    channels : number of channels

    Returns
    -------
    IntensityRule
        ``range`` 0 to 255 for uint8 of three channels, else ``percentile`` 1 and 99.8.
    """
    is_rgb = np.dtype(dtype) == np.uint8 and channels == 3
    return as_rule("range" if is_rgb else "percentile")


def normalise(pixels: Pixels, limits: Limits) -> npt.NDArray[np.float32]:
    """Pixels (C, Y, X) with ``lo`` at 0 and ``hi`` at 1, float32, not clipped.

    The reference for whoever does it faster. ``limits`` holds one pair per channel.
    """
    lo, hi = np.asarray(limits, dtype=np.float32).T[:, :, None, None]
    scaled: npt.NDArray[np.float32] = (pixels.astype(np.float32) - lo) / (hi - lo)
    return scaled


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


def measure_limits(
    array: Any, rule: IntensityRule, *, read: Callable[[Index], Pixels] | None = None
) -> Delayed:
    """Limits of every channel, lazily, in one graph.

    Law: the limits are bit-identical for any chunking of one array. A gain moves
    them in proportion. An empty margin moves the normalised value of a bright
    nucleus by less than 2 % as long as the windows still cover the image, or enough
    of its tissue to stand for it; of crops of 256 x 256, a few reach 3 %.

    Parameters
    ----------
    array : (C, Y, X) or (P, C, Y, X) NumPy or dask array
        The level that is processed; all planes of an image share their limits.
    rule : IntensityRule
    read : function of an index, returning ``array[index]``
        Reads a window straight from a store, where `array` is needed for its shape
        and type only. dask reads whole chunks of `array`, and a shard can be 1000
        windows large.

    Returns
    -------
    dask.delayed.Delayed
        Of `Limits`. For a ``range`` too, so that callers know one type only.

    Raises
    ------
    InputError
        Array of another rank, empty, of unknown shape, boolean or complex.

    Examples
    --------
    >>> image = np.arange(64.0).reshape(1, 8, 8)
    >>> measure_limits(image, IntensityRule(kind="percentile", low=0, high=100)).compute()
    ((1.0, 63.0),)
    """
    windows = sample_windows(array.shape)
    if np.dtype(array.dtype).kind not in "iuf":
        raise InputError(f"pixels of type {array.dtype}: integers or floats are needed")
    channels = array.shape[-3]
    if rule.kind == "range":
        fixed: Delayed = delayed(((rule.low, rule.high),) * channels, pure=True)
        return fixed
    # Equal input gives equal keys, so calls on one image share the work.
    fetch = array.__getitem__ if read is None else delayed(read, pure=True)
    samples = [fetch(index) for index in windows]
    task = delayed(limits_of_windows, pure=True)
    pairs = [task(samples, c, rule) for c in range(channels)]
    measured: Delayed = delayed(tuple, pure=True)(pairs)
    return measured


def limits_of_windows(
    samples: Sequence[Pixels], channel: int, rule: IntensityRule
) -> tuple[float, float]:
    """Limits of one channel from sampled windows; every pixel of `samples` is looked at.

    Parameters
    ----------
    samples : sequence of (C, h, w) arrays
    channel : index of the channel
    rule : IntensityRule
        Of kind ``percentile``.

    Returns
    -------
    lo, hi : float
        Percentiles of the tissue's pixels. Where these are one value (a mask, say),
        of all finite pixels; where these are, too, or none is, ``hi = lo + 1``.
    """
    windows = [np.asarray(sample[channel]) for sample in samples]
    masks = tissue_masks(windows)
    lo, hi = _percentiles(windows, masks, rule)
    if not _differ(lo, hi):
        lo, hi = _percentiles(windows, [np.isfinite(w) for w in windows], rule)
    return (lo, hi) if _differ(lo, hi) else (lo, lo + _step(lo))


def _differ(lo: float, hi: float) -> bool:
    """Whether float32, in which pixels are normalised, tells the two apart."""
    return bool(np.float32(lo) < np.float32(hi))


def _step(value: float) -> float:
    return max(1.0, 2.0 * float(np.spacing(np.float32(abs(value)))))


def _percentiles(
    windows: Sequence[Pixels], masks: Sequence[Pixels], rule: IntensityRule
) -> tuple[float, float]:
    """Percentiles of the masked pixels; 0 where there is none."""
    pooled = np.concatenate([window[mask] for window, mask in zip(windows, masks, strict=True)])
    if not pooled.size:
        return 0.0, 0.0
    # In the pixels' own type: a float64 copy would be eight times the memory.
    pooled.sort()
    return percentile_of_sorted(pooled, rule.low), percentile_of_sorted(pooled, rule.high)


def percentile_of_sorted(ordered: Pixels, q: float) -> float:
    """Percentile by mid-ranks: of n values, the one at rank ``q / 100 * n``.

    Equal values share the middle of their ranks, and between two different values
    the percentile is interpolated. Where all values differ this is
    ``np.percentile(method="hazen")``; of coarse integers it moves smoothly, where
    np.percentile jumps by a whole grey level, which is 6 % of the range of a dim
    8-bit image (99.8th percentile 16). It scales with the values, whatever they are.

    Parameters
    ----------
    ordered : (n,) array, ascending, n at least 1
    q : float
        0 to 100.

    Examples
    --------
    >>> percentile_of_sorted(np.array([1, 1, 2, 2]), 50)
    1.5
    """
    rank = q / 100 * ordered.size
    value = ordered[min(int(rank), ordered.size - 1)]
    first, last = _ranks(ordered, value)
    here = (first + last) / 2
    beside = first - 1 if rank < here else last
    if not 0 <= beside < ordered.size:
        return float(value)
    there = sum(_ranks(ordered, ordered[beside])) / 2
    share = (rank - here) / (there - here)
    return float(value) * (1 - share) + float(ordered[beside]) * share


def _ranks(ordered: Pixels, value: Any) -> tuple[int, int]:
    """First rank of the values equal to `value`, and the one behind the last."""
    return (
        int(np.searchsorted(ordered, value, side="left")),
        int(np.searchsorted(ordered, value, side="right")),
    )


def tissue_masks(windows: Sequence[Pixels]) -> list[npt.NDArray[np.bool_]]:
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
    and scanners fill with: it enters no mean and no mask, or the outline of the
    filled area would be the strongest contrast of the image. The same holds for
    what lies beyond the last row and column. Without contrast all pixels are meant.

    The mask is made of the sampled windows and not of a stored pyramid level: levels
    are optional, are made by any filter (nearest, mean, Gaussian), can hold something
    else altogether, and a lazy array has none. A file and the same pixels in memory
    must be given the same limits.

    Parameters
    ----------
    windows : sequence of (h, w) arrays

    Returns
    -------
    list of (h, w) bool arrays

    References
    ----------
    .. [1] Kittler, Illingworth, Foeglein, "Threshold selection based on a simple image
       statistic", CVGIP 30:125, 1985.
    """
    valid = [np.isfinite(window) & (window != 0) for window in windows]
    spans = [_span_of_blocks(w, v) for w, v in zip(windows, valid, strict=True)]
    threshold = _threshold(np.concatenate([s.ravel() for s in spans]))
    if threshold is None:
        return valid
    return [_as_pixels(s > threshold, v.shape) & v for s, v in zip(spans, valid, strict=True)]


def _span_of_blocks(window: Pixels, valid: Pixels) -> npt.NDArray[np.float64]:
    """Span (b, d) of the block means around each block; 0 where there is no mean."""
    count = _block_sums(valid.astype(np.float64))
    mean = _block_sums(np.where(valid, window, 0).astype(np.float64)) / np.maximum(count, 1)
    seen = count >= ENOUGH
    # Beyond the window's edge the edge is repeated, which adds no span.
    high = ndimage.maximum_filter(np.where(seen, mean, -np.inf), size=3, mode="nearest")
    low = ndimage.minimum_filter(np.where(seen, mean, np.inf), size=3, mode="nearest")
    span: npt.NDArray[np.float64] = np.subtract(high, low, out=np.zeros_like(mean), where=seen)
    return span


def _block_sums(window: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sums (b, d) over blocks of a window (h, w); the last ones may be smaller."""
    for axis in (0, 1):
        starts = np.arange(0, window.shape[axis], BLOCK)
        window = np.add.reduceat(window, starts, axis=axis)
    return window


def _threshold(span: npt.NDArray[np.float64]) -> float | None:
    """Least span of tissue, or None where all is flat."""
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


def _as_pixels(blocks: Pixels, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Blocks (b, d) as pixels (h, w)."""
    pixels: npt.NDArray[np.bool_] = blocks.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    return pixels[: shape[0], : shape[1]]
