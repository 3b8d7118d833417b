"""Intensity limits of an image, measured once, so that no seam can appear.

A network is fed ``(pixel - lo) / (hi - lo)``. If ``lo`` and ``hi`` came from the
pixels at hand, every block would have its own and neighbours would not fit.
Here they come from the image, through three choices:

* **Where** is looked depends on the array's shape only (`windows`), and
  the pixels of a window are the same however they are chunked. The limits are
  bit-identical for any chunking and any number of workers.
* **What** counts is tissue. The share of empty glass differs from slide to
  slide and moves a plain percentile; see `tissue`.
* **How** is exact: order statistics of all sampled pixels, not
  ``dask.array.percentile``, which depends on chunks; see `percentiles`.

Letters: P planes, C channels, Y and X pixels of a plane, h and w pixels of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed, delayed

from bigunet.errors import InputError
from bigunet.images.percentiles import pooled_percentiles
from bigunet.images.tissue import block_spans, tissue_pixels
from bigunet.images.windows import (
    WINDOW,
    WINDOWS,
    Index,
    bounding_box,
    read_together,
    rectangle,
    sample_windows,
)

__all__ = [
    "WINDOW",
    "WINDOWS",
    "IntensityRule",
    "Limits",
    "as_rule",
    "default_rule",
    "given_limits",
    "measure_limits",
    "normalise",
]

Kind: TypeAlias = Literal["range", "percentile"]
Limits: TypeAlias = tuple[tuple[float, float], ...]
"""(lo, hi) per channel, in units of the pixels."""
Pixels: TypeAlias = npt.NDArray[Any]

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
        # The rule refuses a kind that is none.
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


def given_limits(given: Sequence[tuple[float, float]], channels: int) -> Limits:
    """Return a caller's limits, one pair per channel; a single pair is for all.

    Raises
    ------
    InputError
        The limits do not fit the channels, or are no interval.
    """
    limits = tuple((float(lo), float(hi)) for lo, hi in given)
    if len(limits) == 1:
        limits *= channels
    if len(limits) != channels:
        raise InputError(f"{len(limits)} intensity limits for {channels} channels; give one or all")
    for lo, hi in limits:
        if not lo < hi:
            raise InputError(f"intensity limits {lo:g},{hi:g} are no interval; give LO < HI")
    return limits


def normalise(pixels: Pixels, limits: Limits) -> npt.NDArray[np.float32]:
    """Pixels (C, Y, X) with ``lo`` at 0 and ``hi`` at 1, float32, not clipped.

    The reference for whoever does it faster. ``limits`` holds one pair per channel.
    """
    lo, hi = np.asarray(limits, dtype=np.float32).T[:, :, None, None]
    scaled: npt.NDArray[np.float32] = (pixels.astype(np.float32) - lo) / (hi - lo)
    return scaled


def measure_limits(
    array: Any,
    rule: IntensityRule,
    *,
    read: Callable[[Index], Pixels] | None = None,
    chunks: tuple[int, int] = (WINDOW, WINDOW),
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
    chunks : (Y, X)
        What `read` finds stored in one piece, so that it is decoded once.

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
    look, task = delayed(_look, pure=True), delayed(_limits_of_windows, pure=True)
    # Equal input gives equal keys, so calls on one image share the work.
    if read is None:
        looks = [look([array[index] for index in windows])]
    else:
        # As partials, for dask walks through lists of slices, and that takes its time.
        groups = (partial(_read_windows, read, g) for g in read_together(windows, chunks))
        looks = [look(delayed(group, pure=True)()) for group in groups]
    pairs = [task(looks, c, rule) for c in range(channels)]
    measured: Delayed = delayed(tuple, pure=True)(pairs)
    return measured


def _read_windows(read: Callable[[Index], Pixels], group: Sequence[Index]) -> list[Pixels]:
    """Read windows (C, h, w) at once, and let go of what lies between them."""
    whole = bounding_box(group)
    pixels, (top, left) = read(whole), (span.start for span in rectangle(whole))
    return [
        pixels[:, y.start - top : y.stop - top, x.start - left : x.stop - left].copy()
        for y, x in map(rectangle, group)
    ]


def _look(windows: Sequence[Pixels]) -> list[tuple[Pixels, list[Pixels]]]:
    """Return windows (C, h, w), each with the spans of its channels."""
    return [(w, [block_spans(channel) for channel in w]) for w in map(np.asarray, windows)]


def _limits_of_windows(
    looks: Sequence[Sequence[tuple[Pixels, list[Pixels]]]], channel: int, rule: IntensityRule
) -> tuple[float, float]:
    """Limits of one channel from sampled windows; every pixel of them is looked at.

    Parameters
    ----------
    looks : sequence of what `_look` returns
    channel : index of the channel
    rule : IntensityRule
        Of kind ``percentile``.

    Returns
    -------
    lo, hi : float
        Percentiles of the tissue's pixels. Where these are one value (a mask, say),
        of all finite pixels; where these are, too, or none is, ``hi = lo + 1``.
    """
    windows = [cut[channel] for look in looks for cut, _ in look]
    tissue = tissue_pixels(windows, [spans[channel] for look in looks for _, spans in look])
    lo, hi = pooled_percentiles(tissue, rule.low, rule.high)
    if not _differ(lo, hi):
        finite = [window[np.isfinite(window)] for window in windows]
        lo, hi = pooled_percentiles(finite, rule.low, rule.high)
    return (lo, hi) if _differ(lo, hi) else (lo, lo + _step(lo))


def _differ(lo: float, hi: float) -> bool:
    """Whether float32, in which pixels are normalised, tells the two apart."""
    return bool(np.float32(lo) < np.float32(hi))


def _step(value: float) -> float:
    return max(1.0, 2.0 * float(np.spacing(np.float32(abs(value)))))
