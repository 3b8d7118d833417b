"""What the rules make of one block of merged objects: gap undone, holes found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.instances.block import BlockRecord, Runs, label_block
from bigunet.instances.gap import close_gap
from bigunet.instances.neighbours import plane_structure, structure_offsets
from bigunet.instances.rules import Rules

__all__ = ["Background", "RefinedRecord", "empty_refined", "refine_block"]

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Background:
    """What the merge has to know of the m background components of a block.

    Parameters
    ----------
    record : BlockRecord
        As of objects, with sizes: of local labels 1 … m.
    lowest, highest : (m,) int64 arrays
        Of the ids next to each, in the block or just beyond. Where there are none, the
        lowest is the largest number there is, and the highest 0.
    border : (m,) bool array
        Whether it reaches the border of the plane.
    """

    record: BlockRecord
    lowest: Integers
    highest: Integers
    border: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class RefinedRecord:
    """What the merge has to know of a block after the rules.

    Parameters
    ----------
    ids : (n,) int64 array
        Provisional id of each local label, 1 … n; ascending.
    area : (n,) int64 array
        Pixels of each in this block.
    background : Background or None
        Of the local labels n + 1 … n + m, where holes were asked for.
    """

    ids: Integers
    area: Integers
    background: Background | None


def refine_block(
    ids: Array,
    rules: Rules,
    *,
    origin: Sequence[int],
    whole: Sequence[int],
    inside: npt.NDArray[np.bool_] | None = None,
) -> tuple[Runs, RefinedRecord]:
    """Undo the gap in one block and find its background.

    Parameters
    ----------
    ids : (…, y + 2 ring, x + 2 ring) integer array
        Provisional ids of the block and ``rules.ring`` pixels around it in the last two
        axes; 0 beyond the border of the plane.
    rules : Rules
    origin : sequence of int
        Place of the block's (not the ring's) first pixel in the whole array.
    whole : sequence of int
        Shape of the whole array, (…, Y, X); leading axes are planes that nothing links.
    inside : bool array of the shape of ids, optional
        Where objects may be. What lies outside stays background, and is as the border of
        the plane: a hole is no hole where it goes on there.

    Returns
    -------
    labels : Runs
        Local labels of the block without its ring, to stay with the block.
    record : RefinedRecord
        What the merge has to know.
    """
    closed = close_gap(ids, rules.gap).astype(np.int64, copy=False)
    if inside is not None:
        closed[~inside] = 0
    block = closed[_inside(rules.ring)]
    if not rules.fill_holes:
        return _stage(Runs.of(block), None)
    outside = None if inside is None else ~inside[_inside(rules.gap)]
    components, background = _find_background(closed[_inside(rules.gap)], origin, whole, outside)
    return _stage(Runs.of(np.where(block > 0, block, -components)), background)


def _inside(width: int) -> tuple[Any, ...]:
    """Return the index of planes without a margin."""
    return (..., slice(width, -width or None), slice(width, -width or None))


def empty_refined(rules: Rules, whole: Sequence[int]) -> RefinedRecord:
    """Return the record of a block that is all outside."""
    nothing = np.zeros(0, np.int64)
    background = None
    if rules.fill_holes:
        shape, structure = (1,) * len(whole), plane_structure(len(whole))
        _, record = label_block(
            np.zeros(shape, bool), structure, origin=(0,) * len(whole), whole=whole, sizes=True
        )
        background = Background(
            record=record, lowest=nothing, highest=nothing, border=nothing.astype(bool)
        )
    return RefinedRecord(ids=nothing, area=nothing, background=background)


def _find_background(
    around: Array,
    origin: Sequence[int],
    whole: Sequence[int],
    outside: npt.NDArray[np.bool_] | None,
) -> tuple[Integers, Background]:
    """Label the background of a block; all is given with one pixel more on all sides."""
    block = around[_inside(1)]
    structure = plane_structure(block.ndim)
    runs, record = label_block(block == 0, structure, origin=origin, whole=whole, sizes=True)
    components = runs.expand(np.arange(record.count + 1))
    lowest = np.full(record.count, np.iinfo(np.int64).max)
    highest = np.zeros(record.count, dtype=np.int64)
    for dy, dx in structure_offsets(plane_structure(2)):
        height, width = block.shape[-2:]
        beside = around[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        facing = (components > 0) & (beside > 0)
        np.minimum.at(lowest, components[facing] - 1, beside[facing])
        np.maximum.at(highest, components[facing] - 1, beside[facing])
    border = np.zeros(record.count + 1, dtype=bool)
    for line in _lines_at_the_border(components, origin, whole):
        border[line] = True
    if outside is not None:
        border[components[_beside(outside)]] = True
    return components, Background(record=record, lowest=lowest, highest=highest, border=border[1:])


def _beside(outside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Find the pixels that are outside, or share an edge with one that is."""
    found: npt.NDArray[np.bool_] = outside[_inside(1)].copy()
    height, width = found.shape[-2:]
    for dy, dx in structure_offsets(plane_structure(2)):
        found |= outside[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
    return found


def _lines_at_the_border(
    block: Array, origin: Sequence[int], whole: Sequence[int]
) -> Iterator[Array]:
    """Yield the outermost lines of a block's planes that are those of the whole planes."""
    for axis in (-2, -1):
        if origin[axis] == 0:
            yield block.take(0, axis)
        if origin[axis] + block.shape[axis] == whole[axis]:
            yield block.take(-1, axis)


def _stage(runs: Runs, background: Background | None) -> tuple[Runs, RefinedRecord]:
    """Give ids local labels from 1 on, and after them components -1, -2 … of the background."""
    found, index = np.unique(runs.label, return_inverse=True)
    is_id = found > 0
    count = np.count_nonzero(is_id)
    local = np.where(is_id, np.cumsum(is_id), np.where(found < 0, count - found, 0))
    label = local.astype(np.int32)[index]
    area = np.zeros(local.max(initial=0) + 1, dtype=np.int64)
    np.add.at(area, label, runs.length)
    record = RefinedRecord(ids=found[is_id], area=area[1 : count + 1], background=background)
    return Runs(shape=runs.shape, label=label, length=runs.length), record
