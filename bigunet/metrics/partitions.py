"""How two partitions of the true foreground agree: Rand, V_Rand and V_Info.

Conventions of ISBI 2012's evaluation: pixels of the true background do not count at
all; a pixel of the true foreground that the prediction leaves as background is a part
of its own, of one pixel, for background is no object that pixels could share.

All scores are functions of six sums over the parts. Sums of images that share no object
add up, so scores are pooled over images as if these lay side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.metrics.contingency import Contingency

__all__ = ["Partition", "compare_partitions"]

Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Sums over the parts of the true foreground; n is the pixels of a part.

    ``both`` is of the common refinement of truth and prediction. Squares are floats:
    exact below 2**53, and to sixteen digits above.
    """

    pixels: int = 0
    """Of the true foreground."""
    both_squares: float = 0.0
    """Σ n²."""
    truth_squares: float = 0.0
    prediction_squares: float = 0.0
    both_logs: float = 0.0
    """Σ n log n."""
    truth_logs: float = 0.0
    prediction_logs: float = 0.0

    def __add__(self, other: Partition) -> Partition:
        names = [field.name for field in fields(self)]
        return Partition(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def rand_precision(self) -> float:
        """Share of the pairs of pixels joined in the prediction that are joined in the truth."""
        return _ratio(self._pairs(self.both_squares), self._pairs(self.prediction_squares))

    @property
    def rand_recall(self) -> float:
        """Share of the pairs of pixels joined in the truth that are joined in the prediction."""
        return _ratio(self._pairs(self.both_squares), self._pairs(self.truth_squares))

    @property
    def rand_f_score(self) -> float:
        """Harmonic mean of the two; 1 where no pixels are joined in either, NaN without pixels."""
        joined = self._pairs(self.truth_squares) + self._pairs(self.prediction_squares)
        if not joined:
            return 1.0 if self.pixels else math.nan
        return 2 * self._pairs(self.both_squares) / joined

    @property
    def v_rand(self) -> float:
        """F-score of Σ p² with α = 1/2 (Arganda-Carreras et al. 2015); NaN without pixels."""
        return _ratio(2 * self.both_squares, self.truth_squares + self.prediction_squares)

    @property
    def v_info(self) -> float:
        """F-score of information, 2 I / (H + H); 1 where both are one part, NaN without pixels."""
        if not self.pixels:
            return math.nan
        truth, prediction = self._entropy(self.truth_logs), self._entropy(self.prediction_logs)
        if truth + prediction <= 0:
            return 1.0
        common = truth + prediction - self._entropy(self.both_logs)
        return max(0.0, 2 * common / (truth + prediction))

    def _pairs(self, squares: float) -> float:
        return (squares - self.pixels) / 2

    def _entropy(self, logs: float) -> float:
        # Sums of logarithms leave a last bit where the entropy is zero.
        entropy = math.log(self.pixels) - logs / self.pixels
        return entropy if entropy > 1e-12 else 0.0


def compare_partitions(table: Contingency) -> Partition:
    """Compare true and predicted objects on the true foreground.

    Examples
    --------
    Two objects of two pixels, joined by the prediction: 2 of 6 pairs are right.

    >>> from bigunet.metrics.contingency import count_pairs
    >>> scores = compare_partitions(count_pairs(np.array([1, 1, 2, 2]), np.array([5, 5, 5, 5])))
    >>> round(scores.rand_precision, 3), scores.rand_recall, scores.rand_f_score
    (0.333, 1.0, 0.5)
    """
    truth, prediction, pixels = table.entries
    inside = truth != 0
    truth, prediction, pixels = truth[inside], prediction[inside], pixels[inside]
    held = prediction != 0
    alone = int(pixels[~held].sum())
    parts = pixels[held], _totals(truth, pixels), _totals(prediction[held], pixels[held])
    squares = [float(np.square(n.astype(np.float64)).sum()) for n in parts]
    logs = [float((n * np.log(n)).sum()) for n in parts]
    return Partition(
        pixels=int(pixels.sum()),
        both_squares=squares[0] + alone,
        truth_squares=squares[1],
        prediction_squares=squares[2] + alone,
        both_logs=logs[0],
        truth_logs=logs[1],
        prediction_logs=logs[2],
    )


def _totals(ids: npt.NDArray[np.uint64], pixels: Counts) -> Counts:
    found, index = np.unique(ids, return_inverse=True)
    totals = np.zeros(found.size, dtype=np.int64)
    np.add.at(totals, index, pixels)
    return totals


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
