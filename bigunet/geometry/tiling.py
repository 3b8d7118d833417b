"""How one plane is cut: two axes, and the blocks and tiles between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TypeAlias

from bigunet.geometry.axis import AxisTiling
from bigunet.geometry.network import (
    balanced_tile,
    input_size,
    legal_output,
    margin,
    pooling_grid,
    round_up,
)
from bigunet.geometry.spans import Span

__all__ = ["Block", "Tiling"]

Region: TypeAlias = tuple[Span, Span]
"""Rows and columns of a part of the plane."""


@dataclass(frozen=True)
class Block:
    """One unit of work: its place in the grid of blocks and the pixels it writes."""

    index: tuple[int, int]
    y: Span
    x: Span

    @property
    def pixels(self) -> int:
        """Output pixels."""
        return self.y.size * self.x.size


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How one plane is cut: blocks for Dask, tiles for the network.

    Parameters
    ----------
    shape : (Y, X)
        Size of the plane in pixels.
    depth : int
        Pooling levels of the network.
    tile : (y, x)
        Pitch of the lattice of tiles, a multiple of ``2**depth``.
    block : (y, x)
        Size of a block, a multiple of the tile and at least the halo, unless one
        block holds the whole axis.
    """

    shape: tuple[int, int]
    depth: int
    tile: tuple[int, int]
    block: tuple[int, int]

    def __post_init__(self) -> None:
        grid = pooling_grid(self.depth)
        for size, tile, block in zip(self.shape, self.tile, self.block, strict=True):
            if size < 1 or tile < 1 or tile % grid or block % tile:
                raise ValueError(
                    f"blocks of {block} in tiles of {tile} on {size} pixels; "
                    f"blocks are multiples of tiles, tiles multiples of {grid}"
                )

    @classmethod
    def fit(
        cls,
        shape: tuple[int, int],
        depth: int,
        *,
        tile: tuple[int, int] | int | None,
        block: tuple[int, int] | int | None,
        target_tile: int,
        target_block: int,
    ) -> Tiling:
        """Return the tiling nearest to what is asked for.

        Parameters
        ----------
        shape : (Y, X)
            Size of the plane in pixels.
        depth : int
            Pooling levels of the network.
        tile, block : int, (y, x) or None
            What is asked for, in pixels. A block smaller than the tile is one tile.
        target_tile, target_block : int
            About what to take where nothing is asked for; tiles are then
            balanced so that the last ones are nearly full.
        """
        tiles, blocks = [], []
        for axis, size in enumerate(shape):
            t, b = _along(tile, axis), _along(block, axis)
            tiles.append(_fit_tile(size, depth, t, b, target_tile))
            blocks.append(_fit_block(size, depth, tiles[-1], b or target_block))
        return cls(
            shape=shape, depth=depth, tile=(tiles[0], tiles[1]), block=(blocks[0], blocks[1])
        )

    @property
    def margin(self) -> int:
        """Pixels that a read begins before its block."""
        return margin(self.depth)

    @property
    def tile_output(self) -> tuple[int, int]:
        """Size in pixels of what one forward pass gives."""
        return legal_output(self.tile[0], self.depth), legal_output(self.tile[1], self.depth)

    @property
    def tile_input(self) -> tuple[int, int]:
        """Size in pixels of what one forward pass sees."""
        y, x = self.tile_output
        return input_size(y, self.depth), input_size(x, self.depth)

    @property
    def halo(self) -> tuple[int, int]:
        """Symmetric depth that map_overlap needs; 0 along an axis of one block."""
        y, x = self._axes
        return y.halo, x.halo

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Block sizes along y and x, as Dask writes chunks."""
        ys, xs = self.spans()
        return tuple(s.size for s in ys), tuple(s.size for s in xs)

    @property
    def largest_block(self) -> tuple[int, int]:
        """Size of the largest block; the last one may have grown."""
        ys, xs = self.chunks
        return max(ys), max(xs)

    @property
    def extra_work(self) -> float:
        """Pixels that the network computes for every pixel that is asked for.

        1.0 would be a network without margins on a plane that tiles fill; an
        input pixel costs about what an output pixel costs.
        """
        return self.tile_count() * prod(self.tile_input) / prod(self.shape)

    def grid(self, region: Region | None = None) -> tuple[range, range]:
        """Return the rows and columns of blocks that have pixels in a part of the plane."""
        y, x = self._within(region)
        along_y, along_x = self._axes
        return along_y.places(y), along_x.places(x)

    def spans(self, region: Region | None = None) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns of blocks, cut to the ``region`` if one is given.

        Blocks are all pairs of the two, in order of `blocks`.
        """
        y, x = self._within(region)
        along_y, along_x = self._axes
        return along_y.spans(y), along_x.spans(x)

    def sources(self, region: Region | None = None) -> tuple[list[Span], list[Span]]:
        """Return the rows and the columns that blocks need, for each of `spans`."""
        ys, xs = self.spans(region)
        along_y, along_x = self._axes
        return [along_y.source(y) for y in ys], [along_x.source(x) for x in xs]

    def blocks(self, region: Region | None = None) -> Iterator[Block]:
        """Yield the blocks in raster order, cut to the ``region`` if one is given."""
        rows, columns = self.grid(region)
        ys, xs = self.spans(region)
        for i, y in zip(rows, ys, strict=True):
            for j, x in zip(columns, xs, strict=True):
                yield Block((i, j), y, x)

    def block_count(self, region: Region | None = None) -> int:
        """Return the number of `blocks`."""
        return prod(len(places) for places in self.grid(region))

    def tile_count(self, region: Region | None = None) -> int:
        """Return the number of tiles of all blocks; no tile lies in two of them."""
        pairs = zip(self._axes, self._within(region), strict=True)
        return prod(len(axis.tiles(wanted)) for axis, wanted in pairs)

    def block_at(self, index: tuple[int, int]) -> Block:
        """Return the block at a place in the grid of blocks."""
        y, x = (axis.span(place) for axis, place in zip(self._axes, index, strict=True))
        return Block(index, y, x)

    def tiles(self, block: Block) -> Iterator[tuple[Span, Span]]:
        """Yield the tiles of a block; the last ones may go on beyond the plane."""
        along_y, along_x = self._axes
        for y in along_y.tiles(block.y):
            for x in along_x.tiles(block.x):
                yield Span(y, y + self.tile[0]), Span(x, x + self.tile[1])

    def source(self, block: Block) -> tuple[Span, Span]:
        """Return the pixels of the plane that a block needs; mirrored ones are among them."""
        along_y, along_x = self._axes
        return along_y.source(block.y), along_x.source(block.x)

    @property
    def readers(self) -> tuple[Callable[[Span], int], Callable[[Span], int]]:
        """How many rows of blocks have some rows of the plane in their `source`, and how many columns
        of blocks some columns."""
        along_y, along_x = self._axes
        return along_y.readers, along_x.readers

    def tile_read(self, tile: tuple[Span, Span]) -> tuple[Span, Span]:
        """Return what a tile sees, in pixels of the mirrored plane (may be negative)."""
        along_y, along_x = self._axes
        return along_y.read(tile[0]), along_x.read(tile[1])

    def _within(self, region: Region | None) -> Region:
        return region or (Span(0, self.shape[0]), Span(0, self.shape[1]))

    @cached_property
    def _axes(self) -> tuple[AxisTiling, AxisTiling]:
        parts = zip(self.shape, self.tile, self.block, strict=True)
        y, x = (AxisTiling(size, self.depth, tile, block) for size, tile, block in parts)
        return y, x


def _along(value: tuple[int, int] | int | None, axis: int) -> int | None:
    return value if value is None or isinstance(value, int) else value[axis]


def _fit_tile(size: int, depth: int, tile: int | None, block: int | None, target: int) -> int:
    """Round a tile up to the grid; none is larger than its block or the axis."""
    grid = pooling_grid(depth)
    wanted = balanced_tile(size, target, depth) if tile is None else round_up(tile, grid)
    limit = size if block is None else min(block, size)
    return min(wanted, round_up(limit, grid))


def _fit_block(size: int, depth: int, tile: int, block: int) -> int:
    """Round a block up to whole tiles and, unless it holds the axis, to the halo."""
    fitted = round_up(block, tile)
    if fitted >= size:
        return fitted
    return round_up(max(fitted, AxisTiling(size, depth, tile, fitted).after), tile)
