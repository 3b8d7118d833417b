"""From the records of blocks to the objects that are left in the end.

Ids are 1 … N without holes, in raster order of each object's first labelled pixel,
before gaps and holes were filled. Memory grows with objects, not with pixels: at most 100
bytes for each local label, records included, beside what faces need (`bigunet.instances.merge`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.instances.block import BlockRecord
from bigunet.instances.merge import Merged, merge_records, merge_values
from bigunet.instances.neighbours import plane_structure
from bigunet.instances.refine import Background, RefinedRecord
from bigunet.instances.rules import Rules

__all__ = ["Objects", "merge_objects", "merge_refined"]

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of the whole array, and the id of every local label.

    Parameters
    ----------
    merged : Merged
        Ids of local labels; 0 for what was removed, or is no object.
    classes : (N + 1,) uint8 array
        Class of each id; 0 of 0.
    area : (N + 1,) int64 array
        Pixels of each id; 0 of 0.
    """

    merged: Merged
    classes: npt.NDArray[np.uint8]
    area: Integers

    @property
    def count(self) -> int:
        """Objects, N."""
        return self.merged.count

    def table(self, block: int, dtype: npt.DTypeLike) -> Array:
        """Return what a block's labels become, see `Merged.table`."""
        return self.merged.table(block, dtype)


def merge_objects(records: Sequence[BlockRecord], rules: Rules, whole: Sequence[int]) -> Objects:
    """Join what touches across faces.

    The result is final unless ``rules.refine``: then ids are provisional, for
    `refine_block`, and nothing is removed yet.

    Parameters
    ----------
    records : sequence of BlockRecord
        Of all blocks, labelled with ``plane_structure``, ``by_class`` and ``sizes``; in
        any order, in which `Objects.table` counts.
    rules : Rules
    whole : sequence of int
        Shape of the whole array, (…, Y, X).
    """
    merged = merge_records(records, plane_structure(len(whole)), whole)
    area = np.zeros(merged.count + 1, dtype=np.int64)
    for block, record in enumerate(records):
        if record.extents is not None:
            np.add.at(area, merged.block(block), record.extents.area)
    # Splitting puts the seed above the class; a class alone is its own lowest 8 bits.
    classes = np.append(0, merge_values(records, merged) & 255).astype(np.uint8)
    objects = Objects(merged=merged, classes=classes, area=area)
    return objects if rules.refine else _select(objects, rules)


def merge_refined(
    records: Sequence[RefinedRecord], objects: Objects, rules: Rules, whole: Sequence[int]
) -> Objects:
    """Fill holes, remove what is too small or too large, and give the final ids.

    Parameters
    ----------
    records : sequence of RefinedRecord
        Of all blocks, in any order, in which `Objects.table` of the result counts.
    objects : Objects
        Of `merge_objects`, whose ids the records name.
    rules : Rules
    whole : sequence of int
        Shape of the whole array, (…, Y, X).
    """
    area = np.zeros(objects.count + 1, dtype=np.int64)
    for record in records:
        area[record.ids] += record.area
    labels = [record.ids for record in records]
    fillings = _fill_holes([r.background for r in records if r.background is not None], whole)
    for block, (filling, pixels) in enumerate(fillings):
        np.add.at(area, filling, pixels)
        labels[block] = np.append(labels[block], filling)
    area[0] = 0
    merged = Merged(
        count=objects.count,
        ids=np.concatenate(labels),
        offsets=np.cumsum([0, *(ids.size for ids in labels)], dtype=np.int64),
    )
    return _select(Objects(merged=merged, classes=objects.classes, area=area), rules)


def _fill_holes(
    backgrounds: Sequence[Background], whole: Sequence[int]
) -> Iterator[tuple[Integers, Integers]]:
    """Yield of each block what each of its components is filled with (or 0), and its pixels."""
    if not backgrounds:
        return
    records = [background.record for background in backgrounds]
    merged = merge_records(records, plane_structure(len(whole)), whole)
    lowest = np.full(merged.count + 1, np.iinfo(np.int64).max)
    highest = np.zeros(merged.count + 1, dtype=np.int64)
    border = np.zeros(merged.count + 1, dtype=bool)
    for block, background in enumerate(backgrounds):
        component = merged.block(block)
        np.minimum.at(lowest, component, background.lowest)
        np.maximum.at(highest, component, background.highest)
        np.logical_or.at(border, component, background.border)
    filling = np.where((lowest == highest) & ~border, highest, 0)
    for block, record in enumerate(records):
        if record.extents is not None:
            yield filling[merged.block(block)], record.extents.area


def _select(objects: Objects, rules: Rules) -> Objects:
    """Remove objects of unwanted sizes, and count the others anew."""
    kept = rules.kept(objects.area)
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0)
    merged = replace(objects.merged, count=int(number.max()), ids=number[objects.merged.ids])
    kept[0] = True
    return Objects(merged=merged, classes=objects.classes[kept], area=objects.area[kept])
