"""Count what the scores of a pair are made of, window by window where that can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.metrics.boundaries import THRESHOLDS, Sweep, components, sweep_thresholds
from bigunet.metrics.contingency import Contingency, as_ids, count_pairs, sum_tables
from bigunet.metrics.kinds import Kind
from bigunet.metrics.objects import ObjectCounts, count_objects
from bigunet.metrics.partitions import Partition, compare_partitions
from bigunet.metrics.pixels import count_classes
from bigunet.metrics.report import Scores
from bigunet.metrics.sources import Pair, Source, windows
from bigunet.metrics.touching import TouchingBlocks

__all__ = ["LARGEST_PLANE", "Counted", "Reading", "Scorer"]

Array: TypeAlias = npt.NDArray[Any]

LARGEST_PLANE = 8192**2
"""Pixels of a plane that is held whole, to number its components."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How all pairs are read."""

    kind: Kind
    masks: bool
    """Whether both are masks whose value for the foreground differs, such as 1 and 255."""
    connected: bool


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted on one image; counts add up."""

    name: str
    pixels: int
    objects: ObjectCounts
    parts: Partition
    classes: Contingency | None = None
    sweep: Sweep | None = None

    def __add__(self, other: Counted) -> Counted:
        tables = [one.classes for one in (self, other) if one.classes is not None]
        sweeps = [one.sweep for one in (self, other) if one.sweep is not None]
        return Counted(
            name="all",
            pixels=self.pixels + other.pixels,
            objects=self.objects + other.objects,
            parts=self.parts + other.parts,
            classes=sum_tables(tables) if tables else None,
            sweep=reduce(add, sweeps) if sweeps else None,
        )

    def scores(self, reading: Reading, name: str | None = None) -> Scores:
        """Return what is reported."""
        instances = reading.kind == "instances"
        return Scores(
            name=name or self.name,
            pixels=self.pixels,
            objects=self.objects if instances else None,
            parts=self.parts if instances else None,
            classes=count_classes(self.classes) if self.classes is not None else (),
            boundaries=self.sweep,
        )


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Counts pairs, all read in one way."""

    reading: Reading
    threshold: float
    report: Callable[[int], None]
    """Called with the pixels of each window that is done."""

    def count(self, pair: Pair) -> Counted:
        """Read a pair and count."""
        if self.reading.kind == "instances":
            table, touching = self._count_instances(pair)
            objects = count_objects(table, touching.pairs)
            return self._counted(pair, objects=objects, parts=compare_partitions(table))
        if self.reading.kind == "probabilities":
            return self._counted(pair, sweep=self._sweep(pair, THRESHOLDS))
        table = sum_tables(count_pairs(t, p) for _, t, p in self._windows(pair))
        small = _is_binary(table) and _size(pair) <= LARGEST_PLANE
        sweep = self._sweep(pair, (0.5,)) if small else None
        return self._counted(pair, classes=table, sweep=sweep)

    def _counted(self, pair: Pair, **counts: Any) -> Counted:
        nothing = {"objects": ObjectCounts(), "parts": Partition()}
        return Counted(name=pair.name, pixels=_size(pair), **{**nothing, **counts})

    def _count_instances(self, pair: Pair) -> tuple[Contingency, TouchingBlocks]:
        touching = TouchingBlocks(pair.shape[1])

        def tables() -> Iterator[Contingency]:
            for x, truth, prediction in self._windows(pair):
                touching.add(x, truth)
                yield count_pairs(truth, prediction)

        return sum_tables(tables()), touching

    def _windows(self, pair: Pair) -> Iterator[tuple[slice, Array, Array]]:
        """Yield the columns, the truth and the prediction of each window, in raster order."""
        regions = self._regions(pair) if self.reading.connected else None
        for y, x in windows(pair.shape):
            truth = as_ids(pair.truth.read(y, x))
            prediction = regions[y, x] if regions is not None else pair.prediction.read(y, x)
            prediction = as_ids(prediction)
            if self.reading.masks:
                truth, prediction = _as_mask(pair, truth), _as_mask(pair, prediction)
            yield x, truth, prediction
            self.report(truth.size)

    def _regions(self, pair: Pair) -> Array:
        """Return the numbered regions of the prediction; one region has one value."""
        values = as_ids(_whole(pair, pair.prediction))
        regions = np.zeros(values.shape, dtype=np.int32)
        for value in np.unique(values[values != 0]):
            found = components(values == value)
            regions[found > 0] = found[found > 0] + regions.max()
        return regions

    def _sweep(self, pair: Pair, thresholds: tuple[float, ...]) -> Sweep:
        values, classes = _whole(pair, pair.prediction), self.reading.kind == "classes"
        probability = values != 0 if classes else _probability(pair.name, values)
        truth = as_ids(_whole(pair, pair.truth)) != 0
        fixed = 0.5 if classes else self.threshold
        return sweep_thresholds(probability, truth, thresholds=thresholds, fixed_threshold=fixed)


def _size(pair: Pair) -> int:
    return pair.shape[0] * pair.shape[1]


def _is_binary(table: Contingency) -> bool:
    """Tell whether there is at most one class beside 0, in the truth and in the prediction."""
    sides = table.truth_ids, table.prediction_ids
    return max(int(np.count_nonzero(ids)) for ids in sides) <= 1


def _as_mask(pair: Pair, values: Array) -> Array:
    inside = values[values != 0]
    if inside.size and inside.min() != inside.max():
        raise InputError(
            f"{pair.name} holds the values {inside.min()} and {inside.max()}, and what was read "
            "before only one beside 0: give classes the same values in prediction and truth"
        )
    return np.not_equal(values, 0).astype(np.uint8)


def _whole(pair: Pair, source: Source) -> Array:
    if _size(pair) > LARGEST_PLANE:
        raise InputError(
            f"{pair.name} has {pair.shape[0]} × {pair.shape[1]} pixels: connected regions are "
            "looked for in at most 8192 × 8192; give object ids instead"
        )
    return source.read(slice(0, pair.shape[0]), slice(0, pair.shape[1]))


def _probability(name: str, values: Array) -> Array:
    """Return probabilities, integers divided by the largest of their type."""
    if values.dtype.kind == "u":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"{name}: probabilities are 0 to 1, or unsigned integers")
    return values
