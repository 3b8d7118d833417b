"""How well pixels are classified: IoU and Dice of each class, and the F-score of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.metrics.contingency import Contingency

__all__ = ["ClassCounts", "PixelCounts", "count_classes", "count_foreground"]

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """Pixels of one class; it occurs in the truth or in the prediction."""

    value: int
    true: int
    predicted: int
    both: int

    @property
    def iou(self) -> float:
        """Common pixels over all pixels of the class."""
        return self.both / (self.true + self.predicted - self.both)

    @property
    def dice(self) -> float:
        """Twice the common pixels over the sum of both; the F-score of the class."""
        return 2 * self.both / (self.true + self.predicted)


def count_classes(table: Contingency) -> tuple[ClassCounts, ...]:
    """Count the pixels of every class that occurs, background (0) included.

    Tables of several images are added before (`sum_tables`), for a class is the same in
    all of them.

    Examples
    --------
    >>> from bigunet.metrics.contingency import count_pairs
    >>> zero, one = count_classes(count_pairs(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1])))
    >>> zero.iou, round(one.iou, 3), one.dice
    (0.5, 0.667, 0.8)
    """
    true = _by_id(table.truth_ids, table.truth_pixels)
    predicted = _by_id(table.prediction_ids, table.prediction_pixels)
    truth, prediction, pixels = table.entries
    both = _by_id(truth[truth == prediction], pixels[truth == prediction])
    return tuple(
        ClassCounts(
            value=value,
            true=true.get(value, 0),
            predicted=predicted.get(value, 0),
            both=both.get(value, 0),
        )
        for value in sorted(true | predicted)
    )


@dataclass(frozen=True, kw_only=True)
class PixelCounts:
    """Right and wrong pixels of the foreground; those of images add up."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(tp=self.tp + other.tp, fp=self.fp + other.fp, fn=self.fn + other.fn)

    @property
    def f_score(self) -> float:
        """2 tp / (2 tp + fp + fn); NaN without true or predicted foreground."""
        whole = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / whole if whole else math.nan


def count_foreground(truth: Array, prediction: Array) -> PixelCounts:
    """Compare two masks of one shape."""
    both = int(np.count_nonzero(truth & prediction))
    return PixelCounts(
        tp=both,
        fp=int(np.count_nonzero(prediction)) - both,
        fn=int(np.count_nonzero(truth)) - both,
    )


def _by_id(ids: Array, pixels: Array) -> dict[int, int]:
    return dict(zip(ids.tolist(), pixels.tolist(), strict=True))
