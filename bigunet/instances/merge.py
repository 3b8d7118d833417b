"""From the records of blocks to final ids: 1 … N in raster order, whatever the blocks.

Local labels that touch across a face are one object. An object's key is the first
of its pixels in the whole array, the least of its parts' firsts; ids count keys in
order, which is what labelling the whole array at once gives.

Memory grows with objects, not with pixels: at most 64 bytes for each local label and
320 for each run of a label along a face (100 where only faces join), records included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.instances.block import BlockRecord, Extents, Face
from bigunet.instances.neighbours import (
    Offset,
    group_pairs,
    offset_step,
    overlapping_runs,
    position_steps,
    structure_offsets,
)

__all__ = ["Merged", "id_dtype", "merge_extents", "merge_firsts", "merge_records", "merge_values"]

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The final id of every local label.

    Parameters
    ----------
    count : int
        Objects of the whole array.
    ids : (n,) int64 array
        Final ids of all local labels, block after block.
    offsets : (blocks + 1,) int64 array
        Where each block's begin.
    """

    count: int
    ids: Integers
    offsets: Integers

    def block(self, block: int) -> Integers:
        """Return the final ids of a block's local labels, (n,) view."""
        return self.ids[self.offsets[block] : self.offsets[block + 1]]

    def table(self, block: int, dtype: npt.DTypeLike) -> Array:
        """Return what a block's labels become, ``table[label]``; background stays 0.

        Raises
        ------
        OverflowError
            There are more objects than the type can count.
        """
        if self.count > np.iinfo(dtype).max:
            raise OverflowError(f"{self.count} objects do not fit {np.dtype(dtype)} ids")
        ids = self.block(block)
        table = np.zeros(ids.size + 1, dtype=dtype)
        table[1:] = ids
        return table


def id_dtype(most: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the type of ids up to ``most``: uint32, or uint64 from 2**32 on.

    Examples
    --------
    >>> id_dtype(2**32 - 1), id_dtype(2**32)
    (dtype('uint32'), dtype('uint64'))
    """
    return np.dtype(np.uint32 if most < 2**32 else np.uint64)


def merge_records(
    records: Sequence[BlockRecord], structure: npt.NDArray[np.bool_], whole: Sequence[int]
) -> Merged:
    """Join what touches across faces and give the final ids.

    Parameters
    ----------
    records : sequence of BlockRecord
        Of all blocks, in any order; `Merged.block` counts in the same one.
    structure : (3, …) bool array
        See `bigunet.instances.neighbours.as_structure`.
    whole : sequence of int
        Shape of the whole array.
    """
    offsets = np.cumsum([0, *(record.count for record in records)], dtype=np.int64)
    keys = np.concatenate([np.empty(0, dtype=np.int64), *(record.first for record in records)])
    _lower_to_common_key(keys, *_touching(records, offsets, structure, whole))
    ids = _rank(keys)
    return Merged(count=int(ids.max(initial=0)), ids=ids, offsets=offsets)


def merge_firsts(records: Sequence[BlockRecord], merged: Merged) -> Integers:
    """Return the flat index of each object's first pixel, (N,) array; it ascends."""
    first = np.full(merged.count, np.iinfo(np.int64).max)
    for block, record in enumerate(records):
        np.minimum.at(first, merged.block(block) - 1, record.first)
    return first


def merge_values(records: Sequence[BlockRecord], merged: Merged) -> Array:
    """Return the value of each object, (N,) array; blocks were labelled by class."""
    values = [record.value for record in records if record.value is not None]
    together = np.concatenate(values)
    found = np.empty(merged.count, dtype=together.dtype)
    found[merged.ids - 1] = together
    return found


def merge_extents(records: Sequence[BlockRecord], merged: Merged) -> Extents:
    """Return area and box of each object; blocks were labelled with sizes."""
    ndim = len(records[0].faces)
    area = np.zeros(merged.count, dtype=np.int64)
    low = np.full((merged.count, ndim), np.iinfo(np.int64).max)
    high = np.zeros((merged.count, ndim), dtype=np.int64)
    for block, record in enumerate(records):
        index = merged.block(block) - 1
        if record.extents is not None:
            np.add.at(area, index, record.extents.area)
            np.minimum.at(low, index, record.extents.low)
            np.maximum.at(high, index, record.extents.high)
    return Extents(area=area, low=low, high=high)


def _rank(keys: Integers) -> Integers:
    """Return 1 for the least key, 2 for the next greater one, and so on."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(keys.size, dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    ids = ordered
    ids[order] = np.cumsum(new)
    return ids


def _lower_to_common_key(keys: Integers, i: Integers, j: Integers) -> None:
    """Give all labels that pairs connect the least of their keys."""
    nodes, ends = np.unique(np.concatenate([i, j]), return_inverse=True)
    groups = group_pairs(ends[: i.size], ends[i.size :], nodes.size)
    least = np.full(nodes.size, np.iinfo(np.int64).max)
    np.minimum.at(least, groups, keys[nodes])
    keys[nodes] = least[groups]


def _touching(
    records: Sequence[BlockRecord],
    offsets: Integers,
    structure: npt.NDArray[np.bool_],
    whole: Sequence[int],
) -> tuple[Integers, Integers]:
    """Return all pairs of labels of different blocks that touch, as places in the table.

    Pixels of two blocks that are neighbours lie, along some axis, on a high face and
    on a low one. Across corners they do so along several axes and are found each time.
    """
    first, second = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for axis in range(len(whole)):
        high = _gather([record.faces[axis][1] for record in records], records, offsets)
        low = _gather([record.faces[axis][0] for record in records], records, offsets).ascending()
        steps = position_steps([whole[axis], *whole[:axis], *whole[axis + 1 :]])
        for offset in _across(structure, axis):
            i, j = overlapping_runs(high.runs(offset_step(offset, steps)), low.runs(0))
            if high.value is not None and low.value is not None:
                same = high.value[i] == low.value[j]
                i, j = i[same], j[same]
            first.append(high.place[i])
            second.append(low.place[j])
    return np.concatenate(first), np.concatenate(second)


def _across(structure: npt.NDArray[np.bool_], axis: int) -> Iterator[Offset]:
    """Yield the neighbours beyond a high face, with the axis across moved to the front."""
    for offset in structure_offsets(structure):
        if offset[axis] == 1:
            yield (1, *offset[:axis], *offset[axis + 1 :])


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """The runs on one face of all blocks: position, length, place in the table, value."""

    start: Integers
    length: Array
    place: Integers
    value: Array | None

    def runs(self, step: int) -> tuple[Integers, Integers]:
        start = self.start + step
        return start, start + self.length

    def ascending(self) -> _Runs:
        order = np.argsort(self.start, kind="stable")
        return _Runs(
            start=self.start[order],
            length=self.length[order],
            place=self.place[order],
            value=None if self.value is None else self.value[order],
        )


def _gather(faces: Sequence[Face], records: Sequence[BlockRecord], offsets: Integers) -> _Runs:
    values = [
        record.value[face.label - 1]
        for face, record in zip(faces, records, strict=True)
        if record.value is not None
    ]
    places = [face.label + (offset - 1) for face, offset in zip(faces, offsets[:-1], strict=True)]
    return _Runs(
        start=np.concatenate([face.start for face in faces]),
        length=np.concatenate([face.length for face in faces]),
        place=np.concatenate(places),
        value=np.concatenate(values) if values else None,
    )
