"""Objects of a lazy class map: the route of `bigunet.instances.rules` as a Dask graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.array.overlap import ensure_minimum_chunksize, overlap
from dask.base import tokenize

from bigunet.instances.block import BlockRecord, Runs, label_block
from bigunet.instances.collect import Objects, merge_objects, merge_refined
from bigunet.instances.graph import Place, stage_blocks
from bigunet.instances.merge import id_dtype
from bigunet.instances.neighbours import check_positions, plane_structure
from bigunet.instances.refine import RefinedRecord, refine_block
from bigunet.instances.rules import Rules
from bigunet.instances.split import split_classes

__all__ = ["lazy_objects"]

Array: TypeAlias = npt.NDArray[Any]


def lazy_objects(classes: da.Array, rules: Rules) -> tuple[da.Array, da.Array]:
    """Give every object of a class map an id, by rules, without seams between chunks.

    Parameters
    ----------
    classes : (…, Y, X) uint8 dask array
        0 is background. Leading axes are planes that nothing links.
    rules : Rules

    Returns
    -------
    ids : (…, Y, X) dask array
        0, and 1 … N. In the chunks of ``classes``, but for those smaller than what a block
        has to see around it.
    classes : (N + 1,) uint8 dask array
        Class of each id, 0 of 0. N is known only when it is computed.
    """
    check_positions(classes.shape)
    classes = _in_chunks_of(classes, max(rules.halo, rules.ring))
    token = tokenize(classes, rules)
    dtype = id_dtype(classes.size)
    found = stage_blocks(
        _with_halo(classes, rules.halo),
        classes.chunks,
        _Find(rules, classes.shape),
        ("objects-found", token),
    )
    if rules.refine:
        found = stage_blocks(
            _with_halo(found.labels(dtype), rules.ring),
            classes.chunks,
            _Refine(rules, classes.shape),
            ("objects-refined", token),
            before=[found],
        )
    return found.labels(dtype), found.derived("classes", _classes, (np.nan,), np.uint8)


@dataclass(frozen=True)
class _Find:
    """Label blocks, split where asked for; then merge."""

    rules: Rules
    whole: tuple[int, ...]

    def __call__(self, window: Array, place: Place) -> tuple[Runs, BlockRecord]:
        origin = [start for start, _ in place]
        values = window
        if self.rules.split is not None:
            begin = _halo_origin(origin, self.rules.halo)
            split = split_classes(
                window, origin=begin, whole=self.whole, max_diameter=self.rules.halo
            )
            inside = (slice(a - o, b - o) for (a, b), o in zip(place, begin, strict=True))
            values = split[tuple(inside)]
        structure = plane_structure(len(self.whole))
        return label_block(
            values, structure, origin=origin, whole=self.whole, by_class=True, sizes=True
        )

    def merge(self, records: Sequence[BlockRecord]) -> Objects:
        return merge_objects(records, self.rules, self.whole)


@dataclass(frozen=True)
class _Refine:
    """Apply the rules to merged ids."""

    rules: Rules
    whole: tuple[int, ...]

    def __call__(self, ids: Array, place: Place) -> tuple[Runs, RefinedRecord]:
        ring = self.rules.ring
        missing = [
            (ring - min(ring, start), ring - min(ring, size - stop))
            for (start, stop), size in zip(place[-2:], self.whole[-2:], strict=True)
        ]
        ringed = np.pad(ids, [(0, 0)] * (ids.ndim - 2) + missing)
        origin = [start for start, _ in place]
        return refine_block(ringed, self.rules, origin=origin, whole=self.whole)

    def merge(self, records: Sequence[RefinedRecord], objects: Objects) -> Objects:
        return merge_refined(records, objects, self.rules, self.whole)


def _classes(objects: Objects) -> npt.NDArray[np.uint8]:
    return objects.classes


def _in_chunks_of(array: da.Array, least: int) -> da.Array:
    """Return the array in chunks no smaller than a halo along the last two axes."""
    chunks = list(array.chunks)
    for axis in (-2, -1):
        size = array.shape[axis]
        if min(chunks[axis]) < least:
            whole = size <= least
            chunks[axis] = (size,) if whole else ensure_minimum_chunksize(least, chunks[axis])
    large: da.Array = array.rechunk(tuple(chunks))
    return large


def _with_halo(array: da.Array, halo: int) -> da.Array:
    """Return the array with chunks that hold a halo, too, as far as the planes go."""
    several = {axis: len(array.chunks[axis]) > 1 for axis in (array.ndim - 2, array.ndim - 1)}
    depth = {axis: halo if several.get(axis) else 0 for axis in range(array.ndim)}
    if not any(depth.values()):
        return array
    wide: da.Array = overlap(array, depth=depth, boundary="none", allow_rechunk=False)
    return wide


def _halo_origin(origin: Sequence[int], halo: int) -> list[int]:
    """Return where the chunk of a block with its halo begins."""
    return [*origin[:-2], *(max(0, start - halo) for start in origin[-2:])]
