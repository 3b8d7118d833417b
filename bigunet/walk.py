"""Visit every object of a stored label whole, in raster order of first pixels.

Two passes over the blocks of a plane: the first finds the ids that lie in several
blocks, the second visits. Every object is visited by the block that holds its first
pixel. What comes out, and its order, does not depend on blocks or workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from bigunet.bands import Band, Job, Window, computed, gathered_bands
from bigunet.cluster import Executor
from bigunet.errors import InputError
from bigunet.images.open import Plane
from bigunet.instances.whole import Parts, WholeObject, cut_objects

__all__ = ["LARGEST_BOX", "LargeObject", "Visitor", "Window", "block_sides", "walk_objects"]

LARGEST_BOX = 2**24
"""Pixels of the largest box that is read in one piece."""

SIDE = 2048
"""About what a block has on a side, in pixels."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class LargeObject:
    """An object whose box is too large to be read in one piece."""

    label: Plane
    id: int
    first: tuple[int, int]
    """(y, x) of its first pixel in raster order."""
    low: tuple[int, int]
    """(y, x) of the first corner of its box."""
    shape: tuple[int, int]
    """(h, w) of its box."""
    area: int
    """In pixels."""
    piece: int = LARGEST_BOX
    """Pixels that are read at once."""

    @property
    def plane(self) -> tuple[int, ...]:
        """Position along t and z of the label."""
        return self.label.index

    def pieces(self) -> Iterator[WholeObject]:
        """Read it piece by piece: windows of its box, which do not depend on blocks.

        Each piece has ``low`` and ``mask`` of its whole window, and the ``first`` of the
        object. Windows come in raster order; those without a pixel of it are left out.
        """
        side = max(1, int(self.piece**0.5))
        (top, left), (height, width) = self.low, self.shape
        for y in range(top, top + height, side):
            for x in range(left, left + width, side):
                rows = slice(y, min(y + side, top + height))
                columns = slice(x, min(x + side, left + width))
                mask = self.label.read(rows, columns)[0] == self.id
                if mask.any():
                    yield WholeObject(
                        id=self.id, plane=self.plane, first=self.first, low=(y, x), mask=mask
                    )


class Visitor(Protocol[T_co]):
    """What is done with the objects; goes to the workers, so it is small and pickles."""

    def visit(
        self, plane: tuple[int, ...], window: Window, objects: Iterable[WholeObject]
    ) -> Iterable[T_co]:
        """Give one result for each object, in their order.

        `window`, rows and columns of the plane, holds all their boxes: who needs the image
        there reads it once. There is at least one object; each is cut when it is taken.
        """
        ...

    def visit_large(self, large: LargeObject) -> T_co:
        """Return the result of an object that cannot be read in one piece."""
        ...


def walk_objects(
    planes: Sequence[Plane],
    visitor: Visitor[T],
    executor: Executor,
    *,
    block: tuple[int, int] | None = None,
    largest_box: int = LARGEST_BOX,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[list[T]]:
    """Yield the results of all objects: plane by plane, in raster order of first pixels.

    An object is all pixels of one id in one plane. Memory is bounded by the results of a
    band (the blocks of the same rows), and 8 bytes for each object of a plane.

    Parameters
    ----------
    planes : sequence of Plane
        Of the label, such as ``image_planes(labels, 0, (0,))``.
    visitor : Visitor
    executor : Executor
        Of `bigunet.cluster.open_executor`.
    block : (Y, X), optional
        Pixels that a task visits; by default whole chunks, about 2,048 pixels on a side.
    largest_box : int
        Pixels of a box above which an object is a `LargeObject`.
    progress : callable, optional
        Called with the pixels visited so far, and in all.

    Yields
    ------
    list
        The results of some bands; joined, the lists are in order.

    Raises
    ------
    InputError
        If the label is not of integers.
    RunError
        If a chunk cannot be read, an id is negative, or a visit fails; says where.
    """
    kind = planes[0].dtype
    if kind.kind not in "iu":
        raise InputError(f"a label of type {kind} has no objects: ids are integers")
    sides = block or block_sides(planes[0].chunks, planes[0].shape[1:])
    shared = executor.share(_Visit(visitor, largest_box))
    total, done = sum(plane.shape[1] * plane.shape[2] for plane in planes), 0
    for some in gathered_bands(planes, sides, executor):
        yield _visited(some, shared, executor)
        done += sum(job.pixels for band in some for job in band)
        if progress:
            progress(done, total)


def block_sides(chunks: tuple[int, int], shape: Sequence[int]) -> tuple[int, int]:
    """Return what a task reads: whole chunks, about `SIDE` a side; very large ones are cut."""
    height, width = (
        min(size, SIDE // chunk * chunk if chunk <= SIDE else min(chunk, 2 * SIDE))
        for chunk, size in zip(chunks, shape, strict=True)
    )
    return height, width


def _visited(bands: list[Band], shared: Any, executor: Executor) -> list[Any]:
    """Visit the blocks of some bands, and bring the results of each band into order."""
    jobs = [job for band in bands for job in band]
    results = iter(computed(_visit, [(shared, job) for job in jobs], jobs, executor))
    ordered: list[Any] = []
    for band in bands:
        placed = [one for found in islice(results, len(band)) for one in found]
        placed.sort(key=itemgetter(0))
        ordered += (result for _, result in placed)
    return ordered


def _visit(shared: _Visit[T], job: Job) -> list[tuple[tuple[int, int], T]]:
    return shared(job)


@dataclass(frozen=True)
class _Visit(Generic[T]):
    """Everything that all blocks share; goes to each worker once."""

    visitor: Visitor[T]
    largest_box: int

    def __call__(self, job: Job) -> list[tuple[tuple[int, int], T]]:
        """Visit the objects whose first pixels a block holds; each result with that pixel."""
        window = job.reach()
        labels = job.label.read(*window)[0]
        parts = job.own_parts(labels, window)
        origin = window[0].start, window[1].start
        small = parts.box_area() <= self.largest_box
        inside = (parts.low >= origin) & (parts.high <= [span.stop for span in window])
        near = small & np.all(inside, axis=1)
        found = self._visit_window(job.label, window, labels, parts.take(near))
        del labels
        for one in _singly(parts.take(small & ~near)):
            box = _box(one)
            found += self._visit_window(job.label, box, job.label.read(*box)[0], one)
        for one in _singly(parts.take(~small)):
            large = self._large(job.label, one)
            found.append((large.first, self.visitor.visit_large(large)))
        return found

    def _visit_window(
        self, label: Plane, window: Window, labels: Array, parts: Parts
    ) -> list[tuple[tuple[int, int], T]]:
        if not len(parts):
            return []
        objects = cut_objects(labels, (window[0].start, window[1].start), parts, label.index)
        results = self.visitor.visit(label.index, window, objects)
        firsts = ((y, x) for y, x in parts.first.tolist())
        return list(zip(firsts, results, strict=True))

    def _large(self, label: Plane, one: Parts) -> LargeObject:
        (y, x), (top, left), (bottom, right) = (
            pairs[0].tolist() for pairs in (one.first, one.low, one.high)
        )
        return LargeObject(
            label=label,
            id=int(one.ids[0]),
            first=(y, x),
            low=(top, left),
            shape=(bottom - top, right - left),
            area=int(one.area[0]),
            piece=self.largest_box,
        )


def _singly(parts: Parts) -> Iterator[Parts]:
    return (parts.take(np.array([k])) for k in range(len(parts)))


def _box(one: Parts) -> Window:
    (top, left), (bottom, right) = one.low[0].tolist(), one.high[0].tolist()
    return slice(top, bottom), slice(left, right)
