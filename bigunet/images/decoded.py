"""Chunks that several blocks need, decoded once.

Blocks overlap by their halos, and rarely end where chunks do; so chunks at their borders are
needed by up to four of them, and a codec gives whole chunks only. In each process those chunks
are kept until all of these have read them, at most so many bytes of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby, pairwise, product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.geometry import Span
from bigunet.images.planes import Plane

__all__ = ["KEPT_BYTES", "DecodedChunks", "is_kept"]

KEPT_BYTES = 2**28
"""Of decoded chunks in a process, at most."""

# A few chunks that fill the room would push each other out before anyone needs them again.
_LEAST_CHUNKS = 16

Pixels: TypeAlias = npt.NDArray[Any]
_Window: TypeAlias = tuple[Span, Span]
_Place: TypeAlias = tuple[int, int]
"""Row and column of a chunk."""
_Readers: TypeAlias = tuple[Callable[[Span], int], Callable[[Span], int]]
"""How many windows lie side by side on some rows, and on some columns."""


@dataclass(eq=False)
class _Chunk:
    """A chunk that others need: how many of them have yet to ask, and its pixels once decoded."""

    left: int
    pixels: Future[Pixels] = field(default_factory=Future)
    bytes: int = 0


_Mine: TypeAlias = dict[_Place, _Chunk | None]
"""Chunks to decode, with what others may wait for; None where nobody else needs them."""


def is_kept(chunk_bytes: int, room: int = KEPT_BYTES) -> bool:
    """Tell whether chunks of so many bytes are kept at all."""
    return _LEAST_CHUNKS * chunk_bytes <= room


class DecodedChunks:
    """Reads windows of the planes of one run, and keeps what their neighbours need too.

    Safe to use from several threads: who needs a chunk that another is about to decode waits for
    it. Copies that are sent to other processes are empty.

    Parameters
    ----------
    room : int
        Bytes of chunks that are kept. A chunk is let go when all have read it; where some never do
        (blocks that were left out), those that were not needed for longest give way.
    """

    def __init__(self, room: int = KEPT_BYTES) -> None:
        self._room, self._bytes = room, 0
        self._kept: OrderedDict[tuple[Any, ...], _Chunk] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[DecodedChunks], tuple[int]]:
        return DecodedChunks, (self._room,)

    def read(self, plane: Plane, window: _Window, readers: _Readers) -> Pixels:
        """Read a window of a plane.

        Parameters
        ----------
        plane : Plane
            All planes have the same channels and chunks.
        window : (Span, Span)
            Rows and columns, inside of the plane.
        readers : (callable, callable)
            How many rows of windows have pixels of some rows of the plane, and how many columns of
            windows of some columns; this window's own are among them.

        Returns
        -------
        (C, h, w) array

        Raises
        ------
        RunError
            A chunk cannot be read; see `Plane.read`.
        """
        if not is_kept(_chunk_bytes(plane), self._room):
            return plane.read(window[0].slice, window[1].slice)
        mine, theirs = self._share_out(plane, window, readers)
        found = np.empty((plane.shape[0], *(span.size for span in window)), plane.dtype)
        try:
            for part in _rectangles(mine):
                self._decode(plane, part, mine, found, window)
        except BaseException as error:
            self._forget(plane, mine, error)
            raise
        try:
            # Not before all that others may wait for is decoded: nobody waits in a circle.
            for place, chunk in theirs.items():
                _fill(found, window, chunk.pixels.result(), _corner(plane, place))
        except Exception:
            # Another's failure; this one tries for itself, and may say what is wrong.
            return plane.read(window[0].slice, window[1].slice)
        return found

    def _share_out(
        self, plane: Plane, window: _Window, readers: _Readers
    ) -> tuple[_Mine, dict[_Place, _Chunk]]:
        """Return the chunks to decode, and those that others decode or have decoded."""
        mine: _Mine = {}
        theirs: dict[_Place, _Chunk] = {}
        counts = _reader_counts(plane, window, readers)
        with self._lock:
            for place, count in counts.items():
                key = (plane.index, place)
                if key in self._kept:
                    theirs[place] = self._take(key)
                elif count > 1:
                    mine[place] = self._kept[key] = _Chunk(left=count - 1)
                else:
                    mine[place] = None
        return mine, theirs

    def _take(self, key: tuple[Any, ...]) -> _Chunk:
        """Return a kept chunk, and let go of it if nobody else is going to ask."""
        chunk = self._kept[key]
        chunk.left -= 1
        if chunk.left:
            self._kept.move_to_end(key)
        else:
            self._drop(key)
        return chunk

    def _drop(self, key: tuple[Any, ...]) -> None:
        self._bytes -= self._kept.pop(key).bytes

    def _decode(
        self,
        plane: Plane,
        part: _Window,
        mine: _Mine,
        found: Pixels,
        window: _Window,
    ) -> None:
        """Read a rectangle of chunks at once, and hand out those that are waited for."""
        rows, columns = (
            Span(span.start * size, min(span.stop * size, whole))
            for span, size, whole in zip(part, plane.decoded, plane.shape[1:], strict=True)
        )
        pixels = plane.read(rows.slice, columns.slice)
        _fill(found, window, pixels, (rows.start, columns.start))
        for place, chunk in mine.items():
            if chunk is not None and _lies_in(place, part):
                y, x = _extent(plane, place)
                y, x = y.shift(-rows.start), x.shift(-columns.start)
                self._keep((plane.index, place), chunk, pixels[:, y.slice, x.slice].copy())

    def _keep(self, key: tuple[Any, ...], chunk: _Chunk, pixels: Pixels) -> None:
        with self._lock:
            chunk.pixels.set_result(pixels)
            # Those who wait for it may have been the last.
            if self._kept.get(key) is chunk:
                chunk.bytes = pixels.nbytes
                self._bytes += chunk.bytes
            while self._bytes > self._room:
                self._drop(next(k for k, one in self._kept.items() if one.bytes))

    def _forget(self, plane: Plane, mine: _Mine, error: BaseException) -> None:
        """Let go of what was not decoded, and tell those who wait for it."""
        for place, chunk in mine.items():
            if chunk is not None and not chunk.pixels.done():
                with self._lock:
                    if self._kept.get((plane.index, place)) is chunk:
                        self._drop((plane.index, place))
                chunk.pixels.set_exception(error)


def _chunk_bytes(plane: Plane) -> int:
    return plane.shape[0] * plane.decoded[0] * plane.decoded[1] * plane.dtype.itemsize


def _reader_counts(plane: Plane, window: _Window, readers: _Readers) -> dict[_Place, int]:
    """Return the chunks that a window touches, and how many windows read each.

    Counted along rows and columns, for of small chunks a window has a thousand.
    """
    rows, columns = (
        [
            (at, count(Span(at * size, min((at + 1) * size, whole))))
            for at in range(span.start // size, -(-span.stop // size))
        ]
        for span, size, whole, count in zip(
            window, plane.decoded, plane.shape[1:], readers, strict=True
        )
    )
    return {(row, column): n * m for (row, n), (column, m) in product(rows, columns)}


def _corner(plane: Plane, place: _Place) -> tuple[int, int]:
    return place[0] * plane.decoded[0], place[1] * plane.decoded[1]


def _extent(plane: Plane, place: _Place) -> _Window:
    """Return the rows and columns of a chunk, cut to the plane."""
    y, x = (
        Span(start, min(start + size, whole))
        for start, size, whole in zip(
            _corner(plane, place), plane.decoded, plane.shape[1:], strict=True
        )
    )
    return y, x


def _lies_in(place: _Place, part: _Window) -> bool:
    return all(span.start <= at < span.stop for at, span in zip(place, part, strict=True))


def _rectangles(places: Iterable[_Place]) -> Iterator[_Window]:
    """Yield rectangles of chunks that make up the places, each of them as high as it goes."""
    runs: dict[Span, list[int]] = {}
    for row, group in groupby(sorted(places), key=lambda place: place[0]):
        for columns in _runs([column for _, column in group]):
            runs.setdefault(columns, []).append(row)
    for columns, rows in runs.items():
        for span in _runs(rows):
            yield span, columns


def _runs(numbers: list[int]) -> Iterator[Span]:
    """Yield runs of ascending numbers without a hole."""
    ends = [0, *(i for i, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1), len(numbers)]
    for first, stop in pairwise(ends):
        yield Span(numbers[first], numbers[stop - 1] + 1)


def _fill(found: Pixels, window: _Window, pixels: Pixels, corner: tuple[int, int]) -> None:
    """Copy what pixels (C, Y, X) that lie at a corner have of a window."""
    here, there = [slice(None)], [slice(None)]
    for span, start, size in zip(window, corner, pixels.shape[1:], strict=True):
        both = Span(start, start + size).cut(span)
        here.append(both.shift(-span.start).slice)
        there.append(both.shift(-start).slice)
    found[tuple(here)] = pixels[tuple(there)]
