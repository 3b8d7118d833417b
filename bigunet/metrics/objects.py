"""How well objects are found: F1, AP, panoptic quality, SEG, merged neighbours.

IoU of a true and a predicted object is their common pixels over all their pixels. At a
threshold of at least one half an object has one possible partner, with one exception:
two objects that are each exactly half of a third have IoU 1/2 with it. One of them is
then taken, which is what optimal assignment would do, and no count depends on which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.metrics.contingency import Contingency
from bigunet.metrics.touching import merged_pairs

__all__ = ["IOU_THRESHOLDS", "ObjectCounts", "count_matches", "count_objects"]

IOU_THRESHOLDS = tuple(k / 20 for k in range(10, 20))
"""0.5, 0.55 … 0.95, as fractions of integers, so that 11/20 is no less than 0.55."""

Ids: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ObjectCounts:
    """Counts of one image, or of several: those of images add up.

    Where there are no objects, neither true nor predicted, nothing is measured and
    scores are NaN; such an image changes no pooled score. Where there are only true or
    only predicted objects, F1, AP and panoptic quality are 0.
    """

    true: int = 0
    predicted: int = 0
    matches: tuple[int, ...] = (0,) * len(IOU_THRESHOLDS)
    """Pairs of IoU at least 0.5, 0.55 … 0.95."""
    overlapping: int = 0
    """Pairs of IoU above 1/2."""
    overlapping_iou: float = 0.0
    """Sum of the IoU of those."""
    seg_iou: float = 0.0
    """Sum over true objects of the IoU with the predicted one that covers more than half."""
    touching: int = 0
    """Pairs of true objects with 4-neighbouring pixels."""
    merged: int = 0
    """Those of which one predicted object holds more than half of each."""

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            true=self.true + other.true,
            predicted=self.predicted + other.predicted,
            matches=tuple(a + b for a, b in zip(self.matches, other.matches, strict=True)),
            overlapping=self.overlapping + other.overlapping,
            overlapping_iou=self.overlapping_iou + other.overlapping_iou,
            seg_iou=self.seg_iou + other.seg_iou,
            touching=self.touching + other.touching,
            merged=self.merged + other.merged,
        )

    @property
    def f1(self) -> tuple[float, ...]:
        """2 tp / (2 tp + fp + fn) at each threshold."""
        return tuple(_ratio(2 * tp, self.true + self.predicted) for tp in self.matches)

    @property
    def ap(self) -> tuple[float, ...]:
        """Tp / (tp + fp + fn) at each threshold."""
        return tuple(_ratio(tp, self.true + self.predicted - tp) for tp in self.matches)

    @property
    def mean_ap(self) -> float:
        """Mean of `ap` over 0.5, 0.55 … 0.95."""
        return math.fsum(self.ap) / len(self.ap)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the IoU of matches above 1/2, over tp + fp / 2 + fn / 2."""
        return _ratio(2 * self.overlapping_iou, self.true + self.predicted)

    @property
    def seg(self) -> float:
        """SEG of the Cell Tracking Challenge; NaN without true objects."""
        return _ratio(self.seg_iou, self.true)

    @property
    def merged_share(self) -> float:
        """Share of touching pairs that were merged; NaN without such pairs."""
        return _ratio(self.merged, self.touching)


def count_objects(table: Contingency, touching: Ids | None = None) -> ObjectCounts:
    """Count what all measures of objects are made of.

    Parameters
    ----------
    table : Contingency
        Of one image.
    touching : (N, 2) array, optional
        Pairs of true ids that touch.

    Examples
    --------
    >>> from bigunet.metrics.contingency import count_pairs
    >>> truth, found = np.array([1, 1, 1, 2, 2, 0]), np.array([1, 1, 0, 2, 2, 3])
    >>> counts = count_objects(count_pairs(truth, found))
    >>> counts.true, counts.predicted, counts.matches[0], counts.matches[4]
    (2, 3, 2, 1)
    """
    truth, prediction, iou, covered = _overlaps(table)
    pairs = np.zeros((0, 2), dtype=np.uint64) if touching is None else touching
    return ObjectCounts(
        true=int(np.count_nonzero(table.truth_ids)),
        predicted=int(np.count_nonzero(table.prediction_ids)),
        matches=tuple(count_matches(truth, prediction, iou, t) for t in IOU_THRESHOLDS),
        overlapping=int(np.count_nonzero(iou > 0.5)),
        overlapping_iou=float(iou[iou > 0.5].sum()),
        seg_iou=float(iou[covered].sum()),
        touching=len(pairs),
        merged=int(np.count_nonzero(merged_pairs(pairs, table))),
    )


def count_matches(truth: Ids, prediction: Ids, iou: Floats, threshold: float) -> int:
    """Count the pairs of IoU at least `threshold`, no object in two of them.

    Parameters
    ----------
    truth, prediction : (N,) arrays
        Ids of objects that meet.
    iou : (N,) array
        Of these pairs.
    threshold : float
        At least 0.5.
    """
    if threshold < 0.5:
        raise ValueError(f"a threshold of {threshold}: matches are unique from 0.5 on")
    good = iou >= threshold
    truth, prediction = truth[good], prediction[good]
    # Conflicts are stars of two leaves (see above), so dropping repeats is optimal.
    first = np.unique(truth, return_index=True)[1]
    return int(np.unique(prediction[first]).size)


def _overlaps(table: Contingency) -> tuple[Ids, Ids, Floats, npt.NDArray[np.bool_]]:
    """Return ids and IoU of objects that meet, and whether the predicted covers > 1/2."""
    truth, prediction, common = table.entries
    true_size = table.truth_pixels[table.table.row]
    found_size = table.prediction_pixels[table.table.col]
    both = (truth != 0) & (prediction != 0)
    iou = common / (true_size + found_size - common)
    return truth[both], prediction[both], iou[both], (2 * common > true_size)[both]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
