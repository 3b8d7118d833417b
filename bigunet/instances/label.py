"""Label a lazy array as if it were labelled whole.

    label(mask) == scipy.ndimage.label(whole mask)      for any chunks, workers, order

Four tasks a block, and one merge: label the block; hand out its record; cut its
piece of the merge's table; put the final ids in place. Until the merge is done the
local labels of all blocks wait as runs, 8 bytes each, a tiny part of the pixels of
a mask of usual objects (and at most twice the bytes of int32 labels).
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt

# The classes of Dask's specification of graphs; it has not yet given them a public home.
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from bigunet.errors import InputError
from bigunet.instances.block import BlockRecord, Runs, label_block
from bigunet.instances.merge import Merged, id_dtype, merge_records
from bigunet.instances.neighbours import as_structure, check_positions

__all__ = ["label"]


def label(mask: Any, structure: Any = None, *, by_class: bool = False) -> tuple[da.Array, da.Array]:
    """Give every object of a mask an id, without seams between chunks.

    Values are those of `scipy.ndimage.label` of the whole array, for any chunks,
    number of workers and order of work.

    Parameters
    ----------
    mask : dask or numpy array, one axis or more
        What is not zero is foreground; booleans, integers or floats.
    structure : (3, …) array_like, optional
        Which neighbours of a pixel belong to the same object, 3 wide along every axis
        and symmetric. By default those that share a face (4-connectivity in 2-D).
    by_class : bool
        Join only pixels of equal value, as `skimage.measure.label` with
        ``background=0`` does; booleans or integers only. (Its ids are in another
        order for volumes with an axis of one pixel; these are in raster order always.)

    Returns
    -------
    labels : dask array of the same shape and chunks
        0 for background; 1 … N in raster order of each object's first pixel. uint32
        where the array has fewer than 2**32 pixels, uint64 otherwise.
    count : dask array of shape (), int64
        N. ``dask.compute(labels, count)`` labels once for both.

    Raises
    ------
    InputError
        The mask or the structure cannot be used as given.

    Examples
    --------
    >>> mask = da.from_array(np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 2, 2]]), chunks=2)
    >>> labels, count = label(mask)
    >>> labels.compute(), int(count)
    (array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 2, 2]], dtype=uint32), 3)
    """
    array = _as_mask(mask, by_class)
    step = _LabelBlock(as_structure(structure, array.ndim), array.shape, by_class)
    check_positions(array.shape)
    token = tokenize(array, step.structure, by_class)
    names = _Names(*(f"label{part}-{token}" for part in ("-block", "-record", "-merge", "-table")))
    dtype = id_dtype(array.size)
    staged = _stage(array, step, names)
    found = f"label-{token}"
    labels = _extend(staged, names.merge, found, _relabel_tasks(array, names, found, dtype))
    number = f"label-count-{token}"
    task = Task((number,), _count, TaskRef(names.merge))
    count = _extend(staged, names.merge, number, {(number,): task})
    return (
        da.Array(labels, found, array.chunks, meta=np.empty((0,) * array.ndim, dtype)),
        da.Array(count, number, (), meta=np.empty((), np.int64)),
    )


class _Names(NamedTuple):
    """Names of the tasks between a mask and its labels."""

    block: str
    record: str
    merge: str
    table: str


@dataclass(frozen=True)
class _LabelBlock:
    structure: npt.NDArray[np.bool_]
    whole: tuple[int, ...]
    by_class: bool

    def __call__(self, mask: Any, origin: tuple[int, ...]) -> tuple[Runs, BlockRecord]:
        return label_block(
            np.asarray(mask),
            self.structure,
            origin=origin,
            whole=self.whole,
            by_class=self.by_class,
        )

    def merge(self, records: Sequence[BlockRecord]) -> Merged:
        return merge_records(records, self.structure, self.whole)


def _stage(array: da.Array, step: _LabelBlock, names: _Names) -> HighLevelGraph:
    """Return the graph from the mask to the merge."""
    origins = itertools.product(*(np.cumsum([0, *sizes[:-1]]).tolist() for sizes in array.chunks))
    tasks: dict[Any, Task] = {}
    records = []
    for index, origin in zip(np.ndindex(array.numblocks), origins, strict=True):
        block, record = (names.block, *index), (names.record, *index)
        # One task labels for two: the record goes to the merge, the labels stay.
        tasks[block] = Task(block, step, TaskRef((array.name, *index)), origin)
        tasks[record] = Task(record, operator.itemgetter(1), TaskRef(block))
        records.append(TaskRef(record))
    tasks[names.merge] = Task(names.merge, step.merge, List(*records))
    return _extend(array.dask, array.name, names.merge, tasks)


def _relabel_tasks(
    array: da.Array, names: _Names, found: str, dtype: np.dtype[Any]
) -> dict[Any, Task]:
    """Return the tasks from the merge to the labels."""
    tasks: dict[Any, Task] = {}
    for number, index in enumerate(np.ndindex(array.numblocks)):
        table, labels = (names.table, *index), (found, *index)
        # Cut beside the merge, so that a far worker gets its own piece only.
        tasks[table] = Task(table, Merged.table, TaskRef(names.merge), number, dtype)
        block = TaskRef((names.block, *index))
        tasks[labels] = Task(labels, _relabel, block, TaskRef(table))
    return tasks


def _relabel(block: tuple[Runs, BlockRecord], table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return block[0].expand(table)


def _count(merged: Merged) -> np.int64:
    return np.int64(merged.count)


def _extend(graph: HighLevelGraph, after: str, name: str, tasks: dict[Any, Task]) -> HighLevelGraph:
    """Return the graph with one more layer."""
    return HighLevelGraph({**graph.layers, name: tasks}, {**graph.dependencies, name: {after}})


def _as_mask(mask: Any, by_class: bool) -> da.Array:
    """Return the mask as a dask array that can be labelled."""
    array = mask if isinstance(mask, da.Array) else da.asarray(mask)
    wanted = "booleans or integers" if by_class else "booleans, integers or floats"
    if array.dtype.kind not in ("biu" if by_class else "biuf"):
        raise InputError(f"a mask of type {array.dtype} cannot be labelled; give {wanted}")
    if array.ndim == 0:
        raise InputError("a mask without axes has no objects; give an array of at least one axis")
    if any(math.isnan(size) for size in array.shape):
        raise InputError(
            f"mask has unknown chunk sizes (shape {array.shape}); call compute_chunk_sizes() first"
        )
    return array
