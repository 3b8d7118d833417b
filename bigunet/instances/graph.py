"""The Dask graph behind lazy labels: stage every block, merge their records, put ids.

Four tasks a block, and one merge: stage the block; hand out its record; cut its
piece of the merge's table; put the ids in place. Until the merge is done the local
labels of all blocks wait as runs, 8 bytes each, a tiny part of the pixels of a mask
of usual objects (and at most twice the bytes of int32 labels).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt

# The classes of Dask's specification of graphs; it has not yet given them a public home.
from dask._task_spec import List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph

from bigunet.instances.block import Runs

__all__ = ["Place", "Staged", "Step", "stage_blocks"]

Array: TypeAlias = npt.NDArray[Any]
Place: TypeAlias = tuple[tuple[int, int], ...]
"""Where a block lies in the whole array: (start, stop) along each axis."""


class Table(Protocol):
    """What a merge gives."""

    def table(self, block: int, dtype: npt.DTypeLike) -> Array:
        """Return what the local labels of a block become."""


class Step(Protocol):
    """What is done to each block, and to the records of all."""

    def __call__(self, pixels: Any, place: Place, /) -> tuple[Runs, Any]:
        """Return the local labels of a block, which stay, and its record."""

    @property
    def merge(self) -> Callable[..., Table]:
        """What joins the records of all blocks, given the merges before as well."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Blocks and their merge, as far as the graph goes.

    Parameters
    ----------
    graph : HighLevelGraph
    name : str
        What names of tasks begin and end with, such as ``label`` and a token.
    chunks : tuple of tuple of int
        Sizes of the blocks along each axis.
    """

    graph: HighLevelGraph
    name: tuple[str, str]
    chunks: tuple[tuple[int, ...], ...]

    @property
    def merge_key(self) -> str:
        """Key of what the merge gives."""
        return self.key("merge")

    def key(self, part: str) -> str:
        """Return the name of a part of the graph."""
        return "-".join((self.name[0], part, self.name[1]))

    def labels(self, dtype: np.dtype[Any]) -> da.Array:
        """Return the ids of all pixels."""
        name = "-".join(self.name)
        tasks: dict[Any, Task] = {}
        numblocks = [len(sizes) for sizes in self.chunks]
        for number, index in enumerate(np.ndindex(*numblocks)):
            table, labels = (self.key("table"), *index), (name, *index)
            # Cut beside the merge, so that a far worker gets its own piece only.
            tasks[table] = Task(table, _table, TaskRef(self.merge_key), number, dtype)
            block = TaskRef((self.key("block"), *index))
            tasks[labels] = Task(labels, _relabel, block, TaskRef(table))
        meta = np.empty((0,) * len(self.chunks), dtype)
        return da.Array(self._extended(name, tasks), name, self.chunks, meta=meta)

    def derived(
        self,
        part: str,
        function: Callable[[Any], Any],
        sizes: Sequence[float],
        dtype: npt.DTypeLike,
    ) -> da.Array:
        """Return a small array, of these sizes in one chunk, of what the merge gives."""
        name = self.key(part)
        key = (name, *(0 for _ in sizes))
        tasks = {key: Task(key, function, TaskRef(self.merge_key))}
        meta = np.empty((0,) * len(sizes), dtype)
        chunks = tuple((size,) for size in sizes)
        return da.Array(self._extended(name, tasks), name, chunks, meta=meta)

    def _extended(self, name: str, tasks: dict[Any, Task]) -> HighLevelGraph:
        return _extend(self.graph, {self.merge_key}, name, tasks)


def stage_blocks(
    source: da.Array,
    chunks: tuple[tuple[int, ...], ...],
    step: Step,
    name: tuple[str, str],
    before: Sequence[Staged] = (),
) -> Staged:
    """Return the graph from an array to the merge.

    Parameters
    ----------
    source : dask array
        One chunk a block, which may hold more than the block.
    chunks : tuple of tuple of int
        Sizes of the blocks themselves.
    step : Step
    name : (str, str)
        See `Staged`.
    before : sequence of Staged
        What the merge needs of other merges; ``source`` is made from them.
    """
    staged = Staged(graph=source.dask, name=name, chunks=chunks)
    tasks: dict[Any, Task] = {}
    records = []
    for index, place in zip(np.ndindex(source.numblocks), _places(chunks), strict=True):
        block, record = (staged.key("block"), *index), (staged.key("record"), *index)
        # One task stages for two: the record goes to the merge, the labels stay.
        tasks[block] = Task(block, step, TaskRef((source.name, *index)), place)
        tasks[record] = Task(record, operator.itemgetter(1), TaskRef(block))
        records.append(TaskRef(record))
    merges = [TaskRef(other.merge_key) for other in before]
    tasks[staged.merge_key] = Task(staged.merge_key, step.merge, List(*records), *merges)
    after = {source.name, *(other.merge_key for other in before)}
    graph = _extend(source.dask, after, staged.merge_key, tasks)
    return Staged(graph=graph, name=name, chunks=chunks)


def _places(chunks: tuple[tuple[int, ...], ...]) -> itertools.product[Place]:
    edges = (np.cumsum([0, *sizes]).tolist() for sizes in chunks)
    return itertools.product(*(list(itertools.pairwise(axis)) for axis in edges))


def _table(merged: Table, block: int, dtype: np.dtype[Any]) -> Array:
    return merged.table(block, dtype)


def _relabel(block: tuple[Runs, Any], table: Array) -> Array:
    return block[0].expand(table)


def _extend(
    graph: HighLevelGraph, after: set[str], name: str, tasks: dict[Any, Task]
) -> HighLevelGraph:
    """Return the graph with one more layer."""
    return HighLevelGraph({**graph.layers, name: tasks}, {**graph.dependencies, name: after})
