"""Where tiles and blocks lie and what they read, in integers only.

Words: a *block* is the unit of Dask work; a *tile* is one forward pass; the
*margin* is what the unpadded convolutions eat on each side; the *grid* is
``2**depth``, the raster on which max pooling looks at the slide.

One axis, with one block of two tiles and what it reads::

        margin        tile          tile        after
      |--------|--------------|--------------|----------|
      read.start              |                         read.stop
               |=========== block ===========|
               start ≡ 0 (mod 2**depth)      stop

``network(read)[:tile] == network(whole slide)[tile]`` holds for the pixels of
every tile because all reads start ``margin`` before a multiple of ``2**depth``:
each tile sees the pooling grid of the whole-image pass. A legal output is a
few pixels longer than a tile (388 = 384 + 4 for the paper's network), so a
read goes on a little further behind the block than before it.

All tiles of a slide have one shape and lie on one lattice from its origin, the
last ones included. What a tile contains is therefore a function of the slide
and its place alone, never of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Block",
    "Span",
    "Tiling",
    "balanced_tile",
    "input_size",
    "legal_output",
    "margin",
    "mirror_indices",
    "mirror_span",
    "pooling_grid",
    "round_up",
]

# A 3×3 convolution eats one pixel a side; every level of the network has two.
_EATEN = 4


def pooling_grid(depth: int) -> int:
    """Return ``2**depth``, the raster in pixels on which tiles have to start."""
    if depth < 1:
        raise ValueError(f"depth is {depth}; a U-Net has at least one pooling level")
    return int(2**depth)


def margin(depth: int) -> int:
    """Return the pixels that the network eats on each side.

    Examples
    --------
    >>> margin(4), margin(3)
    (92, 44)
    """
    return 6 * pooling_grid(depth) - 4


def legal_output(size: int, depth: int) -> int:
    """Return the smallest output size, at least ``size``, that the network can give.

    Examples
    --------
    >>> legal_output(388, 4), legal_output(389, 4)
    (388, 404)
    """
    if size < 1:
        raise ValueError(f"output size is {size}; it has to be positive")
    grid = pooling_grid(depth)
    return size + (_EATEN - size) % grid


def input_size(output: int, depth: int) -> int:
    """Return the input size that gives a legal ``output`` size.

    Examples
    --------
    >>> input_size(388, 4)
    572
    """
    if legal_output(output, depth) != output:
        near = legal_output(output, depth)
        raise ValueError(f"no input gives {output} pixels at depth {depth}; the next is {near}")
    return output + 2 * margin(depth)


def round_up(size: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is at least ``size``."""
    return -(-size // step) * step


def balanced_tile(size: int, target: int, depth: int) -> int:
    """Return a tile length near ``target`` that leaves the last tile of ``size`` nearly full.

    Examples
    --------
    >>> balanced_tile(8192, 512, 4), balanced_tile(1100, 512, 4)
    (512, 560)
    """
    count = max(1, round(size / target))
    return round_up(-(-size // count), pooling_grid(depth))


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

    def meets(self, other: Span) -> bool:
        """Tell whether the two have a pixel in common."""
        return self.start < other.stop and other.start < self.stop


def mirror_span(read: Span, size: int) -> Span:
    """Return the pixels of an axis among which a mirrored read finds all of its own."""
    if read.start >= 0 and read.stop <= size:
        return read
    pixels = mirror_indices(read.start, read.stop, size)
    return Span(min(pixels), max(pixels) + 1)


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


@dataclass(frozen=True)
class _Line:
    """The tiling of one axis; see `Tiling`."""

    size: int
    depth: int
    tile: int
    block: int

    @property
    def after(self) -> int:
        return margin(self.depth) + legal_output(self.tile, self.depth) - self.tile

    def spans(self, halo: int) -> list[Span]:
        """Blocks of the axis. A last one that could not give a neighbour its
        halo, or not be mirrored from its own read, joins the one before it."""
        starts = list(range(0, self.size, self.block))
        last = self.size - starts[-1]
        if len(starts) > 1 and (last < halo or 2 * last < self.tile):
            starts.pop()
        return [Span(a, b) for a, b in zip(starts, [*starts[1:], self.size], strict=True)]

    def tiles(self, span: Span) -> list[Span]:
        first = span.start // self.tile * self.tile
        return [Span(a, a + self.tile) for a in range(first, span.stop, self.tile)]

    def read(self, span: Span) -> Span:
        tiles = self.tiles(span)
        return Span(tiles[0].start - margin(self.depth), tiles[-1].stop + self.after)


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
        y, x = (0 if line.block >= line.size else line.after for line in self._lines)
        return y, x

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Block sizes along y and x, as Dask writes chunks."""
        ys, xs = self._spans
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
        ny, nx = (len(line.tiles(Span(0, line.size))) for line in self._lines)
        y, x = self.tile_input
        return ny * y * nx * x / (self.shape[0] * self.shape[1])

    def blocks(self, region: tuple[Span, Span] | None = None) -> Iterator[Block]:
        """Yield the blocks in raster order, cut to the ``region`` if one is given."""
        ys, xs = self._spans
        wanted_y, wanted_x = region or (Span(0, self.shape[0]), Span(0, self.shape[1]))
        rows, columns = self.grid(region)
        for i in rows:
            for j in columns:
                yield Block((i, j), ys[i].cut(wanted_y), xs[j].cut(wanted_x))

    def grid(self, region: tuple[Span, Span] | None = None) -> tuple[range, range]:
        """Return the rows and columns of blocks that have pixels in the ``region``."""
        whole = Span(0, self.shape[0]), Span(0, self.shape[1])
        met = (
            [place for place, span in enumerate(spans) if span.meets(wanted)]
            for spans, wanted in zip(self._spans, region or whole, strict=True)
        )
        rows, columns = (range(places[0], places[-1] + 1) for places in met)
        return rows, columns

    def block_at(self, index: tuple[int, int]) -> Block:
        """Return the block at a place in the grid of blocks."""
        ys, xs = self._spans
        return Block(index, ys[index[0]], xs[index[1]])

    def tiles(self, block: Block) -> Iterator[tuple[Span, Span]]:
        """Yield the tiles of a block; the last ones may go on beyond the plane."""
        along_y, along_x = self._lines
        for y in along_y.tiles(block.y):
            for x in along_x.tiles(block.x):
                yield y, x

    def read(self, block: Block) -> tuple[Span, Span]:
        """Return what a block reads, in pixels of the mirrored plane (may be negative)."""
        along_y, along_x = self._lines
        return along_y.read(block.y), along_x.read(block.x)

    def source(self, block: Block) -> tuple[Span, Span]:
        """Return the pixels of the plane that a block needs; mirrored ones are among them."""
        y, x = self.read(block)
        return mirror_span(y, self.shape[0]), mirror_span(x, self.shape[1])

    def tile_read(self, tile: tuple[Span, Span]) -> tuple[Span, Span]:
        """Return what a tile sees, in pixels of the mirrored plane (may be negative)."""
        along_y, along_x = self._lines
        return along_y.read(tile[0]), along_x.read(tile[1])

    @property
    def _lines(self) -> tuple[_Line, _Line]:
        parts = zip(self.shape, self.tile, self.block, strict=True)
        y, x = (_Line(size, self.depth, tile, block) for size, tile, block in parts)
        return y, x

    @property
    def _spans(self) -> tuple[list[Span], list[Span]]:
        (y, x), (halo_y, halo_x) = self._lines, self.halo
        return y.spans(halo_y), x.spans(halo_x)


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
    return round_up(max(fitted, _Line(size, depth, tile, fitted).after), tile)
