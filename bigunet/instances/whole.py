"""Objects of a label, whole, though the label is read in blocks.

A block knows of every id the part that it holds. Parts of one id are merged by the id,
whether they touch each other or not, so that the owner of an object, which is the block
with its first pixel, can read its box::

        ┌─────────┬─────────┐
        │    ▄█▄  │         │     A  wholly inside: no second read
        │ A  ▀█▀  │         │     B  three parts; the left block holds its first
        │       B▄▄▄▄▄      │        pixel, so it reads the whole box
        ├───────██████──────┤
        │         │▀▀       │
        └─────────┴─────────┘
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import RunError
from bigunet.instances.neighbours import find_runs

__all__ = ["Parts", "WholeObject", "cut_objects", "find_parts", "merge_parts"]

Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeObject:
    """One object of one plane: all pixels of an id, in one piece or in several."""

    id: int
    plane: tuple[int, ...]
    """Position along t and z of the label, as far as there are such axes."""
    first: tuple[int, int]
    """(y, x) of its first pixel in raster order."""
    low: tuple[int, int]
    """(y, x) of the first corner of its box."""
    mask: npt.NDArray[np.bool_]
    """(h, w), the object inside its box."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of its box."""
        (y, x), (h, w) = self.low, self.mask.shape
        return slice(y, y + h), slice(x, x + w)


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """What is known of N ids without their pixels; positions are those of the plane."""

    ids: npt.NDArray[Any]
    """(N,), unsigned, each once, ascending."""
    first: Integers
    """(N, 2): y and x of the first pixel in raster order."""
    low: Integers
    """(N, 2): first corner of the box."""
    high: Integers
    """(N, 2): last corner of the box, + 1."""
    area: Integers
    """(N,), in pixels."""

    def __len__(self) -> int:
        return self.ids.size

    def take(self, which: npt.NDArray[Any]) -> Parts:
        """Return some of them, by mask or ascending indices."""
        return Parts(
            ids=self.ids[which],
            first=self.first[which],
            low=self.low[which],
            high=self.high[which],
            area=self.area[which],
        )

    def box_area(self) -> Integers:
        """Return the pixels of each box, (N,)."""
        sides = self.high - self.low
        return sides[:, 0] * sides[:, 1]


def find_parts(labels: npt.NDArray[Any], origin: tuple[int, int] = (0, 0)) -> Parts:
    """Find all ids of a window.

    Parameters
    ----------
    labels : (h, w) integer array
        0 is background.
    origin : (int, int)
        Row and column of the window in its plane.

    Raises
    ------
    RunError
        If an id is negative.

    Examples
    --------
    >>> found = find_parts(np.array([[0, 7, 7], [3, 0, 7]]))
    >>> found.ids.tolist(), found.area.tolist(), found.first.tolist()
    ([3, 7], [1, 3], [[1, 0], [0, 1]])
    """
    start, length = find_runs(labels)
    value = labels.reshape(-1)[start]
    solid = np.flatnonzero(value)
    _refuse_negative(value, start, labels.shape[1], origin)
    # Within an id the runs stay in raster order.
    order = solid[np.argsort(value[solid], kind="stable")]
    start, length, value = start[order], length[order], value[order]
    begin = _group_starts(value)
    y, x = np.divmod(start, labels.shape[1])
    low = np.stack([y[begin], _reduce(np.minimum, x, begin)], axis=1)
    high = np.stack(
        [_reduce(np.maximum, y, begin) + 1, _reduce(np.maximum, x + length, begin)], axis=1
    )
    corner = np.array(origin, dtype=np.int64)
    return Parts(
        ids=value[begin].astype(_unsigned(labels.dtype)),
        first=np.stack([y[begin], x[begin]], axis=1) + corner,
        low=low + corner,
        high=high + corner,
        area=_reduce(np.add, length.astype(np.int64), begin),
    )


def merge_parts(parts: Sequence[Parts]) -> Parts:
    """Join the parts that have the same id; at least one has to be given."""
    ids = np.concatenate([p.ids for p in parts])
    first = np.concatenate([p.first for p in parts])
    order = np.lexsort((first[:, 1], first[:, 0], ids))
    ids = ids[order]
    begin = _group_starts(ids)
    return Parts(
        ids=ids[begin],
        first=first[order[begin]],
        low=_reduce(np.minimum, np.concatenate([p.low for p in parts])[order], begin),
        high=_reduce(np.maximum, np.concatenate([p.high for p in parts])[order], begin),
        area=_reduce(np.add, np.concatenate([p.area for p in parts])[order], begin),
    )


def cut_objects(
    labels: npt.NDArray[Any], origin: tuple[int, int], parts: Parts, plane: tuple[int, ...]
) -> Iterator[WholeObject]:
    """Yield the objects that `parts` lists out of a window that holds them whole.

    Parameters
    ----------
    labels : (h, w) integer array
    origin : (int, int)
        Row and column of the window in its plane.
    """
    corner = np.array(origin, dtype=np.int64)
    boxes = np.concatenate([parts.low - corner, parts.high - corner], axis=1).tolist()
    facts = zip(parts.ids.tolist(), parts.first.tolist(), parts.low.tolist(), boxes, strict=True)
    for number, first, low, (top, left, bottom, right) in facts:
        yield WholeObject(
            id=number,
            plane=plane,
            first=(first[0], first[1]),
            low=(low[0], low[1]),
            mask=labels[top:bottom, left:right] == number,
        )


def _group_starts(values: npt.NDArray[Any]) -> Integers:
    """Return where each group of equal values begins."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1])[: values.size])


def _reduce(function: np.ufunc, values: Integers, begin: Integers) -> Integers:
    """Reduce each group of rows to one; unlike numpy's own, also where there is none."""
    return function.reduceat(values, begin, axis=0) if begin.size else values[:0]


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _refuse_negative(
    value: npt.NDArray[Any], start: Integers, width: int, origin: tuple[int, int]
) -> None:
    if value.size and value.min() < 0:
        run = np.argmin(value)
        row, column = divmod(int(start[run]), width)
        raise RunError(
            f"id {value[run]} at row {origin[0] + row}, column {origin[1] + column} is negative: "
            "ids of objects are positive, and background is 0"
        )
