"""A mask: which pixels of a level are inside, whatever the window that is asked for.

Its pixels are those of a label that may be coarser or finer than the level. A pixel of the
level takes the label's pixel that its centre lies in, found in integers from the exact
ratio of the two scales, so windows always agree with the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Cells", "Mask", "Source"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Lines: TypeAlias = npt.NDArray[np.int64]
"""Rows, or columns, of a source."""

MOST_READ = 2**24
"""Pixels of the label that are read at once."""
SMALL = 2**26
"""Pixels of a label that is kept in memory, 8 MiB of bits, and travels with the mask."""
SIDE = 2048
"""Side of the windows in which a label is read from end to end."""


class Source(Protocol):
    """One plane of a label; a `bigunet.images.open.Plane` is one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, Y, X)."""

    def read(self, y: slice, x: slice) -> npt.NDArray[Any]:
        """Read a window (1, h, w); what is not zero is inside."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A plane in memory, a bit for each cell; pickles small."""

    bits: bytes
    """Of `numpy.packbits`."""
    shape: tuple[int, int, int]
    """(1, rows, columns)."""

    @classmethod
    def of(cls, cells: Bools) -> Cells:
        """Pack cells (rows, columns)."""
        return cls(bits=np.packbits(cells).tobytes(), shape=(1, *cells.shape[-2:]))

    def read(self, y: slice, x: slice) -> Bools:
        """Read a window (1, h, w)."""
        return _unpacked(self)[:, y, x]


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Which pixels of a level are inside; small, picklable, read on demand.

    Law: ``read(at, y, x)`` is ``read(at, all, all)[y, x]``.
    """

    name: str
    """Of the label."""
    shape: tuple[int, int]
    """(Y, X) of the level."""
    label_shape: tuple[int, int]
    """(Y, X) of the label, or of the level of it that is used."""
    ratio: tuple[Fraction, Fraction]
    """(y, x): pixels of the label in one of the level."""
    sources: tuple[Source, ...]
    """Planes of the label, over t, then z."""
    outer: tuple[tuple[int, int], ...] = ()
    """Along t and z: planes of the level, and of the label, which are as many or one for all."""
    side: int = 1
    """Pixels of the label's finest level along what is one cell of the sources."""
    step: int = 1
    """Pixels of the label's finest level from one pixel of the label to the next."""

    def read(self, at: int, y: slice, x: slice) -> Bools:
        """Read a window.

        Parameters
        ----------
        at : int
            Number of the plane of the level, over t, then z.
        y, x : slice
            Pixels of the level, without step and not negative; cut to the plane.

        Returns
        -------
        (h, w) bool array
            True inside.

        Raises
        ------
        RunError
            If the label cannot be read.
        """
        rows, columns = (self._lines(axis, span) for axis, span in enumerate((y, x)))
        return self._take(self.sources[self.number(at)], rows, columns)

    def is_empty_in(self, at: int, y: slice, x: slice) -> bool:
        """Tell whether no pixel of a window is inside; costs no more than the label's pixels."""
        return not self.touches(at, [y], [x]).any()

    def touches(self, at: int, ys: Iterable[slice], xs: Iterable[slice]) -> Bools:
        """Tell which windows have a pixel inside: each of some rows, with each of some columns."""
        source = self.sources[self.number(at)]
        rows, columns = (
            [_once(self._lines(axis, span)) for span in spans]
            for axis, spans in enumerate((ys, xs))
        )
        return np.array([[self._take(source, y, x).any() for x in columns] for y in rows])

    def number(self, at: int) -> int:
        """Return which of the sources counts for a plane of the level."""
        index = np.unravel_index(at, [level for level, _ in self.outer]) if self.outer else ()
        number = 0
        for place, (_, label) in zip(index, self.outer, strict=True):
            number = number * label + (int(place) if label > 1 else 0)
        return number

    def share(self) -> float:
        """Return the fraction of pixels inside; reads the whole label."""
        weights = [self._weights(axis) for axis in (0, 1)]
        inside = 0.0
        for source in self.sources:
            for y, x in _windows(source.shape):
                found = source.read(y, x)[0] != 0
                inside += float(weights[0][y] @ (found @ weights[1][x]))
        return inside / (math.prod(self.shape) * len(self.sources))

    def in_memory(self) -> Mask:
        """Return the same mask, held in memory if it is small."""
        if sum(math.prod(source.shape) for source in self.sources) > SMALL:
            return self
        return replace(self, sources=tuple(_loaded(source) for source in self.sources))

    def _lines(self, axis: int, span: slice) -> Lines:
        """Return the source's row (or column) for each of the level's: that of its centre."""
        start, stop, _ = span.indices(self.shape[axis])
        ratio, size = self.ratio[axis], self.label_shape[axis]
        centres = 2 * np.arange(start, stop) + 1  # in half pixels
        # A lower level rounds its size down, or up: the last pixel may lie just beyond.
        pixels = np.minimum(centres * ratio.numerator // (2 * ratio.denominator), size - 1)
        lines: Lines = pixels * self.step // self.side
        return lines

    def _weights(self, axis: int) -> npt.NDArray[np.float64]:
        """Count the pixels of the level for each row (or column) of the sources."""
        lines = self._lines(axis, slice(0, self.shape[axis]))
        return np.bincount(lines, minlength=self.sources[0].shape[1 + axis]).astype(np.float64)

    def _take(self, source: Source, rows: Lines, columns: Lines) -> Bools:
        """Read rows and columns of a source, both ascending; a part at a time if it is finer."""
        if not rows.size or not columns.size:
            return np.zeros((rows.size, columns.size), dtype=bool)
        box = int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
        parts = np.array_split(rows, min(rows.size, -(-box // MOST_READ)))
        x = slice(int(columns[0]), int(columns[-1]) + 1)
        read = ((part, source.read(slice(int(part[0]), int(part[-1]) + 1), x)[0]) for part in parts)
        taken = [(pixels != 0)[part - part[0]][:, columns - columns[0]] for part, pixels in read]
        return np.concatenate(taken)


@lru_cache(maxsize=8)
def _unpacked(cells: Cells) -> Bools:
    """Unpack cells, once in each process."""
    flat = np.unpackbits(np.frombuffer(cells.bits, dtype=np.uint8), count=math.prod(cells.shape))
    return flat.reshape(cells.shape).astype(bool)


def _once(lines: Lines) -> Lines:
    """Return ascending lines without repeats."""
    return lines[np.flatnonzero(np.diff(lines, prepend=-1))]


def _windows(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice]]:
    _, height, width = shape
    for y in range(0, height, SIDE):
        for x in range(0, width, SIDE):
            yield slice(y, min(y + SIDE, height)), slice(x, min(x + SIDE, width))


def _loaded(source: Source) -> Source:
    if isinstance(source, Cells):
        return source
    inside = np.empty(source.shape[1:], dtype=bool)
    for y, x in _windows(source.shape):
        inside[y, x] = source.read(y, x)[0] != 0
    return Cells.of(inside)
