"""What of an object adds up from its pieces, exactly and whatever the pieces are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Intensities", "ShapeSums"]


@dataclass(kw_only=True)
class ShapeSums:
    """Sums over the pixels of an object: numbers of any size, so they are exact."""

    area: int = 0
    y: int = 0
    x: int = 0
    yy: int = 0
    xx: int = 0
    yx: int = 0

    def add(self, mask: npt.NDArray[np.bool_], low: tuple[int, int]) -> None:
        """Add the pixels of a piece, at most 2**15 on a side, whose first corner is at `low`."""
        rows, columns = map(np.arange, mask.shape)
        by_row, by_column = mask.sum(axis=1), mask.sum(axis=0)
        n, y, x = int(by_row.sum()), int(by_row @ rows), int(by_column @ columns)
        yy, xx = int(by_row @ rows**2), int(by_column @ columns**2)
        yx = int((mask @ columns) @ rows)
        # The sums of a piece fit in 64 bits; those about a far origin may not.
        top, left = low
        self.area += n
        self.y += y + n * top
        self.x += x + n * left
        self.yy += yy + 2 * top * y + n * top**2
        self.xx += xx + 2 * left * x + n * left**2
        self.yx += yx + top * x + left * y + n * top * left

    @property
    def centroid(self) -> tuple[float, float]:
        """(y, x) in pixels."""
        return self.y / self.area, self.x / self.area

    def values(self, shape: tuple[int, int]) -> dict[str, list[float]]:
        """Return the properties that follow from the sums and the shape of the box.

        They are called as in `skimage.measure.regionprops`, whose functions turn moments
        into the tensor of inertia, and mean the same.
        """
        from skimage.measure import inertia_tensor, inertia_tensor_eigvals

        n, box = self.area, shape[0] * shape[1]
        central = np.zeros((3, 3))
        central[0, 0] = n
        central[2, 0] = (n * self.yy - self.y**2) / n
        central[0, 2] = (n * self.xx - self.x**2) / n
        central[1, 1] = (n * self.yx - self.y * self.x) / n
        nothing = np.empty((0, 0))
        tensor = inertia_tensor(nothing, mu=central)
        larger, smaller = inertia_tensor_eigvals(nothing, T=tensor)
        (a, b), (_, c) = tensor.tolist()
        return {
            "num_pixels": [n],
            "area_bbox": [float(box)],
            "extent": [n / box],
            "equivalent_diameter_area": [math.sqrt(4 * n / math.pi)],
            "inertia_tensor": [a, b, b, c],
            "inertia_tensor_eigvals": [larger, smaller],
            "axis_major_length": [4 * math.sqrt(larger)],
            "axis_minor_length": [4 * math.sqrt(smaller)],
            "eccentricity": [math.sqrt(1 - smaller / larger) if larger else 0.0],
            "orientation": [_orientation(a, b, c)],
        }


class Intensities:
    """Mean, spread and range of some channels over the pixels of an object."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(channels), np.zeros(channels)
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add (n, C) values; combined as by Chan, Golub and LeVeque (1979)."""
        values = values.astype(np.float64)
        mean, n = values.mean(axis=0), len(values)
        step, total = mean - self.mean, self.count + n
        self.squares += ((values - mean) ** 2).sum(axis=0) + step**2 * self.count * n / total
        self.mean += step * n / total
        self.low = np.minimum(self.low, values.min(axis=0))
        self.high = np.maximum(self.high, values.max(axis=0))
        self.count = total

    def values(self) -> dict[str, list[float]]:
        """Return the properties by scikit-image's names."""
        return {
            "intensity_mean": self.mean.tolist(),
            "intensity_std": np.sqrt(self.squares / self.count).tolist(),
            "intensity_min": self.low.tolist(),
            "intensity_max": self.high.tolist(),
        }


def _orientation(a: float, b: float, c: float) -> float:
    """Return the angle of the major axis, in radians from the rows, as scikit-image does.

    Moments are exact here: an axis along the rows is at π/2, never by a rounding at −π/2.
    """
    if a == c:
        return math.pi / 4 if b < 0 else -math.pi / 4
    return 0.5 * math.atan2(-2 * b, c - a)
