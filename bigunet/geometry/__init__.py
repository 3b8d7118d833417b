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

The two axes are cut independently: a block is a pair of spans, one of each axis.
So what is asked of all blocks, such as how many pixels they read, is a product of
two sums, and no plan has to walk them.
"""

from __future__ import annotations

from bigunet.geometry.network import (
    balanced_tile,
    input_size,
    legal_output,
    margin,
    pooling_grid,
    round_up,
)
from bigunet.geometry.spans import Span, mirror_indices, mirror_span
from bigunet.geometry.tiling import Block, Tiling

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
