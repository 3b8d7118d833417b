"""Pixels of one axis: from here to there, mirrored where that lies outside."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Span", "mirror_indices", "mirror_span"]


@dataclass(frozen=True)
class Span:
    """Pixels ``start … stop`` of one axis."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Length in pixels."""
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """The same as a slice."""
        return slice(self.start, self.stop)

    def cut(self, other: Span) -> Span:
        """Return what the two have in common."""
        return Span(max(self.start, other.start), min(self.stop, other.stop))

    def shift(self, by: int) -> Span:
        """Return the same length, moved."""
        return Span(self.start + by, self.stop + by)


def mirror_indices(start: int, stop: int, size: int) -> list[int]:
    """Return the pixels that ``start … stop`` show of an axis mirrored at both ends.

    The edge pixel is repeated, as in ``np.pad(mode="symmetric")`` and Dask's
    ``boundary="reflect"``; a short axis is mirrored as often as needed.

    Examples
    --------
    >>> mirror_indices(-2, 5, 3)
    [1, 0, 0, 1, 2, 2, 1]
    """
    period = 2 * size
    return [min(i % period, period - 1 - i % period) for i in range(start, stop)]


def mirror_span(read: Span, size: int) -> Span:
    """Return the pixels of an axis among which a mirrored read finds all of its own.

    Parameters
    ----------
    read : Span
        Some of its pixels are the axis's own.
    size : int
        Length of the axis in pixels.

    Examples
    --------
    >>> mirror_span(Span(-4, 3), 10), mirror_span(Span(8, 15), 10)
    (Span(start=0, stop=4), Span(start=5, stop=10))
    """
    start = min(read.start, 2 * size - read.stop)
    stop = max(read.stop, -read.start)
    return Span(max(start, 0), min(stop, size))
