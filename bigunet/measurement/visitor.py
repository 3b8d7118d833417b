"""What a worker measures of the objects that it visits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.images.classification import Classification
from bigunet.images.open import Plane
from bigunet.instances.whole import WholeObject
from bigunet.measurement.properties import Property, Value, region_values
from bigunet.measurement.sums import Intensities, ShapeSums
from bigunet.walk import LargeObject, Window

__all__ = ["Measured", "Measurer", "Planes"]

Array: TypeAlias = npt.NDArray[Any]
Planes: TypeAlias = Mapping[tuple[int, ...], Plane]
"""Planes of an image by the planes of the label that lie on them."""


class Measured(NamedTuple):
    """What was measured of one object, in pixels of the label."""

    id: int
    plane: tuple[int, ...]
    area: int
    centroid: tuple[float, float]
    """(y, x)."""
    low: tuple[int, int]
    high: tuple[int, int]
    """Box: (y, x) of its first and its last corner, + 1."""
    probability: float | None
    """Mean probability of its class."""
    values: list[Value]
    """Of all columns of all properties."""
    large: bool
    """Whether it was combined from pieces."""


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """Measures objects; a visitor of `bigunet.walk.walk_objects`."""

    properties: tuple[Property, ...]
    image: Planes = field(default_factory=dict)
    """With the channels that are measured; empty where no property needs them."""
    probabilities: Planes = field(default_factory=dict)
    """With a channel for each class; empty where there are none."""
    classification: Classification = field(default_factory=Classification)

    def visit(
        self, plane: tuple[int, ...], window: Window, objects: Iterable[WholeObject]
    ) -> Iterator[Measured]:
        """Measure objects that were read in one piece."""
        image = _read(self.image, plane, window)
        probabilities = _read(self.probabilities, plane, window)
        for one in objects:
            pixels = _cut(image, window, one)
            values = region_values(one.mask, pixels, one.low, self.properties)
            yield Measured(
                id=one.id,
                plane=plane,
                area=int(np.count_nonzero(one.mask)),
                centroid=_centroid(one),
                low=one.low,
                high=_high(one.low, one.mask.shape),
                probability=self._probability(one.id, _mean(probabilities, window, one)),
                values=[value for some in values for value in some],
                large=False,
            )

    def visit_large(self, large: LargeObject) -> Measured:
        """Measure an object piece by piece, as far as properties add up."""
        shape = ShapeSums()
        image, probabilities = _sums(self.image, large), _sums(self.probabilities, large)
        for piece in large.pieces():
            shape.add(piece.mask, piece.low)
            for planes, sums in ((self.image, image), (self.probabilities, probabilities)):
                pixels = _read(planes, large.plane, piece.window)
                if pixels is not None and sums is not None:
                    sums.add(pixels[:, piece.mask].T)
        known: dict[str, Any] = shape.values(large.shape) | (image.values() if image else {})
        mean = probabilities.mean if probabilities else None
        return Measured(
            id=large.id,
            plane=large.plane,
            area=large.area,
            centroid=shape.centroid,
            low=large.low,
            high=_high(large.low, large.shape),
            probability=self._probability(large.id, mean),
            values=[v for p in self.properties for v in known.get(p.name, [None] * len(p.columns))],
            large=True,
        )

    def _probability(self, number: int, mean: Array | None) -> float | None:
        """Return the mean probability of an object's class, 0 to 1."""
        known = self.classification.number(number)
        if mean is None or known is None or not 0 <= known < mean.size:
            return None
        return float(mean[known] / np.iinfo(np.uint8).max)


def _read(planes: Planes, index: tuple[int, ...], window: Window) -> Array | None:
    """Read (C, h, w) of a window; floats with 64 bits, so that sums of many are right."""
    if not planes:
        return None
    pixels = planes[index].read(*window)
    return pixels.astype(np.float64) if pixels.dtype.kind == "f" else pixels


def _cut(pixels: Array | None, window: Window, one: WholeObject) -> Array | None:
    """Cut (h, w, C) of an object's box out of a window's (C, h, w)."""
    if pixels is None:
        return None
    y, x = (
        slice(box.start - span.start, box.stop - span.start)
        for box, span in zip(one.window, window, strict=True)
    )
    return np.ascontiguousarray(np.moveaxis(pixels[:, y, x], 0, -1))


def _mean(pixels: Array | None, window: Window, one: WholeObject) -> Array | None:
    cut = _cut(pixels, window, one)
    return None if cut is None else cut[one.mask].mean(axis=0)


def _sums(planes: Planes, large: LargeObject) -> Intensities | None:
    return Intensities(planes[large.plane].shape[0]) if planes else None


def _centroid(one: WholeObject) -> tuple[float, float]:
    """Return the mean position, by sums of integers: exact up to the last division."""
    area = int(np.count_nonzero(one.mask))
    y, x = (
        low + int(one.mask.sum(axis=1 - axis) @ np.arange(size)) / area
        for axis, (low, size) in enumerate(zip(one.low, one.mask.shape, strict=True))
    )
    return y, x


def _high(low: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    return low[0] + shape[0], low[1] + shape[1]
