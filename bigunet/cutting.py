"""How a plane is cut, stored and fed to blocks: choices that cost time; of these only the tile
may change bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from bigunet.errors import InputError
from bigunet.geometry import Span, Tiling
from bigunet.images.decoded import KEPT_BYTES, is_kept
from bigunet.images.open import Plane

__all__ = [
    "TARGET_BLOCK",
    "Size",
    "changed_size",
    "choose_overlap",
    "fit_tiling",
    "kept_bytes",
    "pixels_decoded",
    "target_block",
    "write_chunk",
    "write_shard",
]

Size: TypeAlias = int | tuple[int, int]

# Large enough that neighbours read little twice, small enough for every core to have one.
TARGET_BLOCK = 2048

_SMALLEST_BLOCK = 1024
_BLOCKS_PER_WORKER = 8
_LARGEST_CHUNK = 1024
_LARGEST_SHARD = 4096
# Rough costs of the two ways to feed blocks, to choose between them only. Chunks are decoded beside
# the network, but what map_overlap copies, and copies again, holds it up (measured: docs/performance.md).
_DECODE_BYTES_PER_SECOND, _COPY_BYTES_PER_SECOND = 500e6, 150e6
_OVERLAP_TASKS, _SECONDS_PER_TASK = 14, 6e-4


def fit_tiling(
    shape: tuple[int, int],
    depth: int,
    *,
    tile: Size | None,
    block: Size | None,
    target_tile: int,
    target_block: int = TARGET_BLOCK,
) -> Tiling:
    """Return the tiling of a plane for what a caller asked, in pixels.

    Raises
    ------
    InputError
        A size is not positive.
    """
    for name, value in (("tile", tile), ("block", block)):
        sizes = (value,) if isinstance(value, int) else value or ()
        if any(size < 1 for size in sizes):
            raise InputError(f"{name} is {value}; it has to be a positive number of pixels")
    return Tiling.fit(
        shape, depth, tile=tile, block=block, target_tile=target_tile, target_block=target_block
    )


def changed_size(asked: Size, used: tuple[int, int], tiling: Tiling) -> bool:
    """Tell whether a size is not what was asked, beyond being cut to the plane."""
    wanted = (asked, asked) if isinstance(asked, int) else asked
    pairs = zip(wanted, used, tiling.shape, strict=True)
    return any(w != u and min(w, u) < size for w, u, size in pairs)


def target_block(shape: tuple[int, int], workers: int) -> int:
    """Return a block's side that gives every worker several, if the plane is large enough."""
    side = math.isqrt(shape[0] * shape[1] // (_BLOCKS_PER_WORKER * workers))
    return min(max(side, _SMALLEST_BLOCK), TARGET_BLOCK)


def write_chunk(tiling: Tiling) -> tuple[int, int]:
    """Return the write unit of labels in pixels: it divides the block and is at most 1,024."""
    y, x = (
        min(_chunk_along(tile, block), size)
        for tile, block, size in zip(tiling.tile, tiling.block, tiling.shape, strict=True)
    )
    return y, x


def write_shard(tiling: Tiling) -> tuple[int, int]:
    """Return the shard of labels in pixels: whole chunks, that divide the block, at most 4,096."""
    y, x = (
        max((k for k in range(chunk, _LARGEST_SHARD + 1, chunk) if block % k == 0), default=chunk)
        for chunk, block in zip(write_chunk(tiling), tiling.block, strict=True)
    )
    return y, x


def _chunk_along(tile: int, block: int) -> int:
    if tile > _LARGEST_CHUNK:
        return next(
            tile // k for k in range(2, tile + 1) if tile // k <= _LARGEST_CHUNK and tile % k == 0
        )
    tiles = block // tile
    fits = [k for k in range(1, tiles + 1) if tiles % k == 0 and k * tile <= _LARGEST_CHUNK]
    return max(fits) * tile


def choose_overlap(
    wanted: str,
    tiling: Tiling,
    plane: Plane,
    planes: int,
    allowed: int,
    *,
    whole: bool = True,
) -> str:
    """Return ``direct`` or ``map_overlap``, by projected cost where nobody chose.

    Direct reads decode a chunk of the source for each block that touches it, unless it is kept;
    map_overlap decodes each once but costs some 14 tasks a block, copies pixels, and holds most
    of a plane in memory. It computes whole blocks, so a region (``whole=False``) is
    read directly.

    Raises
    ------
    InputError
        The choice is unknown.
    """
    if wanted not in ("auto", "direct", "map_overlap"):
        raise InputError(f"overlap '{wanted}' is unknown; choose auto, map_overlap or direct")
    if wanted != "auto":
        return wanted
    if not whole:
        return "direct"
    once = math.prod(tiling.shape) * plane.dtype.itemsize * plane.shape[0]
    decoded = plane.dtype.itemsize * plane.layers / _DECODE_BYTES_PER_SECOND  # seconds per pixel
    direct = pixels_decoded(tiling, plane) * decoded
    tasks = tiling.block_count() * _OVERLAP_TASKS
    overlap = math.prod(tiling.shape) * decoded + once / _COPY_BYTES_PER_SECOND
    overlap += tasks * _SECONDS_PER_TASK
    fits = planes == 1 and 6 * once < allowed
    return "map_overlap" if fits and overlap < direct else "direct"


def kept_bytes(plane: Plane) -> int:
    """Return the bytes of decoded chunks that a process keeps between blocks, at most."""
    pixel = plane.dtype.itemsize * plane.shape[0]
    if not is_kept(pixel * math.prod(plane.decoded)):
        return 0
    sides = zip(plane.shape[1:], plane.decoded, strict=True)
    return min(KEPT_BYTES, pixel * math.prod(-(-whole // chunk) * chunk for whole, chunk in sides))


def pixels_decoded(
    tiling: Tiling,
    plane: Plane,
    region: tuple[Span, Span] | None = None,
    *,
    at_once: int = 1,
    processes: int = 1,
) -> int:
    """Return the pixels of chunks that direct reads decode, at most.

    Each chunk is decoded once where a process keeps those of a whole row of blocks beside those
    of the blocks at work, once for each row where it keeps those of one block more than these,
    else once for each block that touches it. Of several processes it is not known which takes
    which block.
    """
    touched = [
        [Span(span.start // size, -(-span.stop // size)) for span in along]
        for along, size in zip(tiling.sources(region), plane.decoded, strict=True)
    ]
    each = [sum(span.size for span in along) for along in touched]
    once = [_covered(along) for along in touched]
    tallest, widest = (max(span.size for span in along) for along in touched)
    chunk = math.prod(plane.decoded)
    pixel = plane.dtype.itemsize * plane.shape[0]
    kept = kept_bytes(plane) // (pixel * chunk) if processes == 1 else 0
    at_work = at_once * tallest * widest
    if math.prod(once) <= kept or tallest * once[1] + at_work <= kept:
        return math.prod(once) * chunk
    if tallest * widest + at_work <= kept:
        return each[0] * once[1] * chunk
    return math.prod(each) * chunk


def _covered(spans: Sequence[Span]) -> int:
    """Return how many numbers lie in one of the spans, whose starts and stops ascend."""
    total = end = 0
    for span in spans:
        total += span.stop - max(span.start, end)
        end = span.stop
    return total
