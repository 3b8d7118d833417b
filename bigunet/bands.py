"""The blocks of a stored label, row by row, and which of its ids lie in several of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.cluster import Executor, Failure, failures_text, task
from bigunet.errors import RunError
from bigunet.images.open import Plane
from bigunet.instances.whole import Parts, find_parts, merge_parts

__all__ = ["Band", "Job", "Window", "computed", "gathered_bands"]

TASKS_AT_ONCE = 8
"""Blocks for each worker whose results may wait for one another."""

Sides: TypeAlias = tuple[int, int]
Window: TypeAlias = tuple[slice, slice]
"""Rows and columns, both with a start and a stop."""
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A block of a label, and what is known of the ids that lie in other blocks, too."""

    label: Plane
    y: slice
    x: slice
    spread: Array | None = None
    """Those that it holds some of, ascending."""
    owned: Parts | None = None
    """Those whose first pixels it holds, as they are on the whole plane."""

    @property
    def pixels(self) -> int:
        """Number of its pixels."""
        return int((self.y.stop - self.y.start) * (self.x.stop - self.x.start))

    @property
    def origin(self) -> tuple[int, int]:
        """(y, x) of its first pixel."""
        return self.y.start, self.x.start

    @property
    def where(self) -> str:
        """Say which block it is."""
        plane = f", plane {self.label.index}" if self.label.index else ""
        y, x = self.y, self.x
        return f"rows {y.start}:{y.stop}, columns {x.start}:{x.stop}{plane}"

    def reach(self) -> Window:
        """Return the block with the boxes of its own objects that are small against it."""
        if self.owned is None:
            return self.y, self.x
        sides = np.array([self.y.stop - self.y.start, self.x.stop - self.x.start])
        small = 4 * (self.owned.high - self.owned.low) <= sides
        near = self.owned.take(np.all(small, axis=1))
        low = np.concatenate([near.low, [self.origin]]).min(axis=0).tolist()
        high = np.concatenate([near.high, [(self.y.stop, self.x.stop)]]).max(axis=0).tolist()
        return slice(low[0], high[0]), slice(low[1], high[1])

    def own_parts(self, labels: Array, window: Window) -> Parts:
        """List all objects whose first pixels the block holds."""
        (y, x), (rows, columns) = window, (self.y, self.x)
        block = labels[
            rows.start - y.start : rows.stop - y.start,
            columns.start - x.start : columns.stop - x.start,
        ]
        parts = find_parts(block, self.origin)
        if self.spread is None or self.owned is None:
            return parts
        alone = parts.take(~np.isin(parts.ids, self.spread, assume_unique=True))
        return merge_parts([alone, self.owned])


Band: TypeAlias = list[Job]
"""Those of the same rows."""


def gathered_bands(
    planes: Sequence[Plane], sides: Sides, executor: Executor
) -> Iterator[list[Band]]:
    """Yield the bands of all planes, so many together that there is work for all workers.

    Planes may be small, and many. Which ids of a plane lie in several of its blocks is found out
    when its first band is asked for.
    """
    some: list[Band] = []
    for band in (band for plane in planes for band in _bands(plane, sides, executor)):
        some.append(band)
        if sum(map(len, some)) >= TASKS_AT_ONCE * executor.workers:
            yield some
            some = []
    if some:
        yield some


def _bands(plane: Plane, sides: Sides, executor: Executor) -> Iterator[Band]:
    """Yield the jobs of a plane by rows of blocks; looks for ids in several blocks first."""
    _, height, width = plane.shape
    jobs = [
        Job(
            label=plane,
            y=slice(y, min(y + sides[0], height)),
            x=slice(x, min(x + sides[1], width)),
        )
        for y in range(0, height, sides[0])
        for x in range(0, width, sides[1])
    ]
    across = -(-width // sides[1])
    if len(jobs) > 1:
        jobs = _with_spread(jobs, across, sides, executor)
    for first in range(0, len(jobs), across):
        yield jobs[first : first + across]


def _with_spread(jobs: list[Job], across: int, sides: Sides, executor: Executor) -> list[Job]:
    """Tell every block which of its ids lie in others, too, and which of those it owns."""
    found = computed(_survey, [(job,) for job in jobs], jobs, executor)
    spread = _repeated([ids for ids, _ in found])
    here = [ids[np.isin(ids, spread, assume_unique=True)] for ids, _ in found]
    known = [parts.take(np.isin(parts.ids, spread, assume_unique=True)) for _, parts in found]
    # An id in several pieces may lie in several blocks and touch no face: it is looked up.
    pairs = zip(jobs, here, known, strict=True)
    asked = [(job, np.setdiff1d(ids, parts.ids, assume_unique=True)) for job, ids, parts in pairs]
    asked = [(job, ids) for job, ids in asked if ids.size]
    more = computed(_look_up, asked, [job for job, _ in asked], executor)
    whole = merge_parts([*known, *more])
    owner = whole.first[:, 0] // sides[0] * across + whole.first[:, 1] // sides[1]
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(len(jobs) + 1))
    return [
        replace(job, spread=ids, owned=whole.take(order[first:last]))
        for job, ids, first, last in zip(jobs, here, edges[:-1], edges[1:], strict=True)
    ]


def _repeated(ids: Sequence[Array]) -> Array:
    """Return what stands in several of some arrays of unique values, ascending."""
    everything = np.sort(np.concatenate(ids))
    return np.unique(everything[1:][everything[1:] == everything[:-1]])


def _survey(job: Job) -> tuple[Array, Parts]:
    """Return all ids of a block, and the parts at its faces towards other blocks."""
    parts = find_parts(job.label.read(job.y, job.x)[0], job.origin)
    # -1 is no edge of a box, so nothing touches the borders of the plane.
    low = np.array([span.start or -1 for span in (job.y, job.x)])
    sizes = zip((job.y, job.x), job.label.shape[1:], strict=True)
    high = np.array([span.stop if span.stop < size else -1 for span, size in sizes])
    return parts.ids, parts.take(np.any((parts.low == low) | (parts.high == high), axis=1))


def _look_up(job: Job, ids: Array) -> Parts:
    parts = find_parts(job.label.read(job.y, job.x)[0], job.origin)
    return parts.take(np.isin(parts.ids, ids, assume_unique=True))


def computed(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    jobs: Sequence[Job],
    executor: Executor,
) -> list[Any]:
    """Call a function for each job, and return its results in the order of the jobs."""
    results: dict[int, Any] = {}
    failures: list[Failure] = []

    def on_result(result: Any) -> None:
        if isinstance(result, Failure):
            failures.append(result)
        else:
            number, found = result
            results[number] = found

    calls = zip(arguments, jobs, strict=True)
    executor.run(
        (
            task(_numbered, number, function, *given, where=job.where)
            for number, (given, job) in enumerate(calls)
        ),
        on_result,
    )
    if failures:
        raise RunError(
            f"{len(failures)} of {len(jobs)} blocks of the label failed: {failures_text(failures)}"
        )
    return [results[number] for number in range(len(jobs))]


def _numbered(number: int, function: Callable[..., Any], *given: Any) -> tuple[int, Any]:
    return number, function(*given)
