"""ISBI 2012's evaluation of a map of probabilities: objects are what borders leave.

The truth is a mask, the prediction the probability of being inside an object. At each
threshold the prediction is a mask, too (above it is inside), and objects are the
4-connected components of a mask. Reported are, over the challenge's thresholds, the best
values of

* Rand error: 1 − F-score of the Rand index on the true foreground, no thinning;
* warping error: pixels of splits and mergers after warping, over all pixels;
* pixel error: 1 − F-score of the pixels inside objects;
* V_Rand and V_Info (Arganda-Carreras et al. 2015) after the borders of the prediction
  are thinned to nothing: each of its border pixels goes to the nearest object.

Counts at one threshold add up over images: a threshold is best for all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.partitions import Partition, compare_partitions
from bigunet.metrics.pixels import PixelCounts, count_foreground
from bigunet.metrics.warping import WarpingCounts, count_warping

__all__ = [
    "THRESHOLDS",
    "Best",
    "BoundaryCounts",
    "Sweep",
    "components",
    "sweep_thresholds",
    "thin_borders",
]

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]
Labels: TypeAlias = npt.NDArray[np.int32]

THRESHOLDS = tuple(k / 10 for k in range(10))
"""Those of the challenge: 0, 0.1 … 0.9."""


@dataclass(frozen=True, kw_only=True)
class BoundaryCounts:
    """What is counted at one threshold; counts of images add up."""

    pixels: PixelCounts
    parts: Partition
    thinned: Partition
    """After border thinning."""
    warping: WarpingCounts

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(
            pixels=self.pixels + other.pixels,
            parts=self.parts + other.parts,
            thinned=self.thinned + other.thinned,
            warping=self.warping + other.warping,
        )

    @property
    def rand_error(self) -> float:
        """1 − F-score of the Rand index on the true foreground."""
        return 1 - self.parts.rand_f_score

    @property
    def pixel_error(self) -> float:
        """1 − F-score of the pixels."""
        return 1 - self.pixels.f_score


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best value of a measure and its threshold; NaN where nothing can be measured."""

    value: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Counts at all thresholds, and at one that was fixed before."""

    thresholds: tuple[float, ...]
    counts: tuple[BoundaryCounts, ...]
    fixed_threshold: float
    fixed: BoundaryCounts

    def __add__(self, other: Sweep) -> Sweep:
        if (self.thresholds, self.fixed_threshold) != (other.thresholds, other.fixed_threshold):
            raise ValueError("sweeps of different thresholds do not add up")
        return Sweep(
            thresholds=self.thresholds,
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            fixed_threshold=self.fixed_threshold,
            fixed=self.fixed + other.fixed,
        )

    @property
    def rand_error(self) -> Best:
        """The lowest Rand error."""
        return self._best(lambda counts: counts.rand_error)

    @property
    def warping_error(self) -> Best:
        """The lowest warping error (minimum of splits and mergers)."""
        return self._best(lambda counts: counts.warping.error)

    @property
    def pixel_error(self) -> Best:
        """The lowest pixel error."""
        return self._best(lambda counts: counts.pixel_error)

    @property
    def v_rand(self) -> Best:
        """The highest V_Rand after border thinning."""
        return self._best(lambda counts: counts.thinned.v_rand, sign=-1)

    @property
    def v_info(self) -> Best:
        """The highest V_Info after border thinning."""
        return self._best(lambda counts: counts.thinned.v_info, sign=-1)

    def _best(self, measure: Callable[[BoundaryCounts], float], sign: int = 1) -> Best:
        values = [
            (measure(counts), t) for counts, t in zip(self.counts, self.thresholds, strict=True)
        ]
        known = [pair for pair in values if not math.isnan(pair[0])]
        if not known:
            return Best(value=math.nan, threshold=math.nan)
        value, threshold = min(known, key=lambda pair: sign * pair[0])
        return Best(value=value, threshold=threshold)


def sweep_thresholds(
    probability: Array,
    truth: Mask,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    fixed_threshold: float = 0.5,
) -> Sweep:
    """Compare a map of probabilities with a mask at every threshold.

    Parameters
    ----------
    probability : (Y, X) array
        Of being inside an object, 0 to 1; a mask may be bool, and needs one threshold only.
    truth : (Y, X) bool array
        True inside objects.
    thresholds : tuple of float
        Of which the best is taken.
    fixed_threshold : float
        One that is reported as it is, such as one chosen on training data.
    """
    true_parts = components(truth)
    counts = {
        threshold: _compare(truth, true_parts, probability, threshold)
        for threshold in {*thresholds, fixed_threshold}
    }
    return Sweep(
        thresholds=thresholds,
        counts=tuple(counts[threshold] for threshold in thresholds),
        fixed_threshold=fixed_threshold,
        fixed=counts[fixed_threshold],
    )


def components(mask: Mask) -> Labels:
    """Return the 4-connected components of a mask, numbered from 1 on."""
    labels: Labels = ndimage.label(mask)[0].astype(np.int32, copy=False)
    return labels


def thin_borders(labels: Labels) -> Labels:
    """Give every background pixel to the nearest object, so that borders have no width.

    Examples
    --------
    >>> thin_borders(np.array([[1, 0, 0, 0, 2]]))[0, [1, 3]].tolist()
    [1, 2]
    """
    if not labels.any():
        return labels
    places = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    thinned: Labels = labels[tuple(places)]
    return thinned


def _compare(
    truth: Mask, true_parts: Labels, probability: Array, threshold: float
) -> BoundaryCounts:
    inside = probability > threshold
    parts = components(inside)
    is_mask = probability.dtype == bool
    sureness = None if is_mask else np.abs(probability.astype(np.float32) - np.float32(threshold))
    return BoundaryCounts(
        pixels=count_foreground(truth, inside),
        parts=compare_partitions(count_pairs(true_parts, parts)),
        thinned=compare_partitions(count_pairs(true_parts, thin_borders(parts))),
        warping=count_warping(truth, inside, sureness),
    )
