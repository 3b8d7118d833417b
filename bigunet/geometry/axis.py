"""How one axis is cut into blocks and tiles: their numbers and places, without a walk along it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bigunet.geometry.network import legal_output, margin
from bigunet.geometry.spans import Span, mirror_span

__all__ = ["AxisTiling"]


@dataclass(frozen=True)
class AxisTiling:
    """The tiling of one axis; see `bigunet.geometry.Tiling`. Sizes are in pixels."""

    size: int
    depth: int
    tile: int
    block: int

    @cached_property
    def after(self) -> int:
        """What a read goes on behind its last tile."""
        return margin(self.depth) + legal_output(self.tile, self.depth) - self.tile

    @property
    def halo(self) -> int:
        """Symmetric depth that map_overlap needs; 0 if one block holds the axis."""
        return 0 if self.block >= self.size else self.after

    @cached_property
    def blocks(self) -> int:
        """Number of blocks. A last one that could not give a neighbour its halo, or
        not be mirrored from its own read, joins the one before it."""
        blocks = -(-self.size // self.block)
        last = self.size - (blocks - 1) * self.block
        joins = blocks > 1 and (last < self.halo or 2 * last < self.tile)
        return blocks - joins

    def places(self, wanted: Span) -> range:
        """Return the places of the blocks that have pixels in a part of the axis."""
        last = self.blocks - 1
        first = min(wanted.start // self.block, last)
        return range(first, min((wanted.stop - 1) // self.block, last) + 1)

    def span(self, place: int) -> Span:
        """Return the block at a place."""
        place = range(self.blocks)[place]
        is_last = place == self.blocks - 1
        return Span(place * self.block, self.size if is_last else (place + 1) * self.block)

    def spans(self, wanted: Span) -> list[Span]:
        """Return the blocks that have pixels in a part of the axis, cut to it."""
        return [self.span(place).cut(wanted) for place in self.places(wanted)]

    def tiles(self, span: Span) -> range:
        """Return where the tiles that hold a span start; the last may go on beyond the axis."""
        return range(span.start // self.tile * self.tile, span.stop, self.tile)

    def read(self, span: Span) -> Span:
        """Return what the network sees for a span, in pixels of the mirrored axis."""
        tiles = self.tiles(span)
        return Span(tiles[0] - margin(self.depth), tiles[-1] + self.tile + self.after)

    def source(self, span: Span) -> Span:
        """Return the pixels of the axis among which that is found."""
        return mirror_span(self.read(span), self.size)

    def readers(self, span: Span) -> int:
        """Return how many blocks have pixels of a part of the axis in their `source`."""
        near = Span(max(0, span.start - self.after), min(self.size, span.stop + self.after))
        sources = (self.source(self.span(place)) for place in self.places(near))
        return sum(source.start < span.stop and span.start < source.stop for source in sources)
