"""What one block knows of its objects: local labels as runs, and a record for the merge.

A block is labelled on its own, once. Its labels stay with it, run by run, until the
merge has found the final ids; what the merge needs is the *record*: where each local
object begins, and the runs of labels on the block's faces. That is 8
bytes for each local object, and 16 for each run on a face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.instances.local import label_mask, label_values
from bigunet.instances.neighbours import Lengths, find_runs, position_steps, positions

__all__ = ["BlockRecord", "Extents", "Face", "Runs", "label_block"]

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The labels of a block as runs along its last axis, in raster order.

    Parameters
    ----------
    shape : tuple of int
        Size of the block in pixels.
    label : (R,) array
        Local label of each run, 0 for background.
    length : (R,) int32 array
        Pixels of each run; together they fill the block.
    """

    shape: tuple[int, ...]
    label: Array
    length: Lengths

    @classmethod
    def of(cls, labels: Array) -> Runs:
        """Return the runs of labels in an array."""
        start, length = find_runs(labels)
        return cls(shape=labels.shape, label=labels.reshape(-1)[start], length=length)

    def expand(self, table: Array) -> Array:
        """Return the block with ``table[label]`` in place of each label."""
        return np.repeat(table[self.label], self.length).reshape(self.shape)

    def window(self, *spans: slice) -> Runs:
        """Return the runs of a part of the block, one slice (start, stop) for each axis."""
        start = np.cumsum(self.length, dtype=np.int64) - self.length
        *leading, begin = np.unravel_index(start, self.shape)
        inside = np.ones(start.size, dtype=bool)
        for place, span in zip(leading, spans[:-1], strict=True):
            inside &= (place >= span.start) & (place < span.stop)
        begin, end = (
            np.clip(place, spans[-1].start, spans[-1].stop)
            for place in (begin, begin + self.length)
        )
        inside &= begin < end
        return Runs(
            shape=tuple(span.stop - span.start for span in spans),
            label=self.label[inside],
            length=(end - begin)[inside].astype(self.length.dtype),
        )


@dataclass(frozen=True, kw_only=True)
class Face:
    """The runs of labels on one face of a block; nothing where no block lies beyond.

    Positions (see `bigunet.instances.neighbours`) are those of the whole array with the
    axis across the face moved to the front, so that runs follow the face.

    Parameters
    ----------
    start : (R,) int64 array
        Position of each run.
    length : (R,) int32 array
        Pixels of each run.
    label : (R,) array
        Local label of each run, never 0.
    """

    start: Integers
    length: Lengths
    label: Array


@dataclass(frozen=True, kw_only=True)
class Extents:
    """Sizes of the n objects of a block (or of all, after the merge).

    Parameters
    ----------
    area : (n,) int64 array
        Pixels.
    low, high : (n, ndim) int64 arrays
        Box, ``low <= pixel < high`` along each axis of the whole array.
    """

    area: Integers
    low: Integers
    high: Integers


@dataclass(frozen=True, kw_only=True)
class BlockRecord:
    """What the merge has to know of a block.

    Parameters
    ----------
    first : (n,) int64 array
        Of each local label, 1 … n: flat index of its first pixel in the whole array.
    faces : tuple of (Face, Face)
        Along each axis, the face with the lower and that with the higher index.
    value : (n,) array or None
        Value of each local label, where only equal values join.
    extents : Extents or None
        Sizes, where they were asked for.
    """

    first: Integers
    faces: tuple[tuple[Face, Face], ...]
    value: Array | None
    extents: Extents | None

    @property
    def count(self) -> int:
        """Local labels."""
        return self.first.size


def label_block(
    mask: Array,
    structure: npt.NDArray[np.bool_],
    *,
    origin: Sequence[int],
    whole: Sequence[int],
    by_class: bool = False,
    sizes: bool = False,
) -> tuple[Runs, BlockRecord]:
    """Label one block on its own.

    Parameters
    ----------
    mask : array
        Pixels of the block; what is not zero is foreground.
    structure : (3, …) bool array
        See `bigunet.instances.neighbours.as_structure`.
    origin : sequence of int
        Place of the block's first pixel in the whole array.
    whole : sequence of int
        Shape of the whole array.
    by_class : bool
        Join only pixels of equal value.
    sizes : bool
        Record areas and boxes, too.

    Returns
    -------
    labels : Runs
        Local labels, to stay with the block.
    record : BlockRecord
        What the merge has to know.
    """
    labels, count = (label_values if by_class else label_mask)(mask, structure)
    runs = Runs.of(labels)
    solid = np.flatnonzero(runs.label)
    start = (np.cumsum(runs.length, dtype=np.int64) - runs.length)[solid]
    index, length = runs.label[solid] - 1, runs.length[solid]
    record = BlockRecord(
        first=_firsts(count, index, positions(start, mask.shape, origin, _plain_steps(whole))),
        faces=_faces(labels, structure, origin, whole),
        value=_values(count, index, mask.reshape(-1)[start]) if by_class else None,
        extents=_extents(count, index, start, length, mask.shape, origin) if sizes else None,
    )
    return runs, record


def _firsts(count: int, index: Array, flat: Integers) -> Integers:
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, index, flat)
    return first


def _values(count: int, index: Array, value: Array) -> Array:
    found = np.empty(count, dtype=value.dtype)
    # All runs of a label have one value, so it is no matter which is written last.
    found[index] = value
    return found


def _plain_steps(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _faces(
    labels: Array,
    structure: npt.NDArray[np.bool_],
    origin: Sequence[int],
    whole: Sequence[int],
) -> tuple[tuple[Face, Face], ...]:
    """Record both faces across each axis, but not where nothing lies beyond or is joined."""
    crossed = [structure.take([0, 2], axis).any() for axis in range(labels.ndim)]
    pairs = []
    for axis, size in enumerate(labels.shape):
        inner_low = crossed[axis] and origin[axis] > 0
        inner_high = crossed[axis] and origin[axis] + size < whole[axis]
        low = _face(labels, axis, 0 if inner_low else None, origin, whole)
        high = _face(labels, axis, size - 1 if inner_high else None, origin, whole)
        pairs.append((low, high))
    return tuple(pairs)


def _face(
    labels: Array, axis: int, at: int | None, origin: Sequence[int], whole: Sequence[int]
) -> Face:
    """Record the labels of one layer across an axis."""
    layer = slice(0, 0) if at is None else slice(at, at + 1)
    front = np.moveaxis(labels, axis, 0)[layer]
    if front.size == 0:
        none = np.empty(0, dtype=np.int64)
        return Face(start=none, length=none.astype(np.int32), label=none.astype(labels.dtype))
    start, length = find_runs(front)
    label = front.reshape(-1)[start]
    place = [origin[axis] + (at or 0), *_without(origin, axis)]
    steps = position_steps([whole[axis], *_without(whole, axis)])
    solid = np.flatnonzero(label)
    return Face(
        start=positions(start[solid], front.shape, place, steps),
        length=length[solid],
        label=label[solid],
    )


def _without(values: Sequence[int], axis: int) -> list[int]:
    return [*values[:axis], *values[axis + 1 :]]


def _extents(
    count: int,
    index: Array,
    start: Integers,
    length: Lengths,
    shape: tuple[int, ...],
    origin: Sequence[int],
) -> Extents:
    """Add up the runs of each label."""
    area = np.zeros(count, dtype=np.int64)
    np.add.at(area, index, length)
    low = np.full((count, len(shape)), np.iinfo(np.int64).max)
    high = np.zeros((count, len(shape)), dtype=np.int64)
    for axis, inside in enumerate(np.unravel_index(start, shape)):
        begin = inside + origin[axis]
        end = begin + (length if axis == len(shape) - 1 else 1)
        np.minimum.at(low[:, axis], index, begin)
        np.maximum.at(high[:, axis], index, end)
    return Extents(area=area, low=low, high=high)
