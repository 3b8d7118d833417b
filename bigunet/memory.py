"""How much memory a run is going to take, from sizes alone.

*allowed* is what a process may take, *projected* what it is going to take at
most. Both are bytes of one process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bigunet.geometry import Tiling
from bigunet.images.intensity import WINDOW, WINDOWS
from bigunet.models.unet import UNet

__all__ = ["Memory", "forward_bytes", "project_memory"]

# Interpreter, torch, Dask and their thread pools, before the first block.
_RUNTIME_BYTES = 350 * 2**20
# What torch's convolutions keep beside their input and output (measured: 40-85 MB).
_WORKSPACE_BYTES = 100 * 2**20
# zarr decodes this many chunks of one read at once.
_DECODED_AT_ONCE = 10


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process: what it may take and what it is going to take at most."""

    allowed: int
    projected: int


def forward_bytes(model: UNet, size: tuple[int, int], itemsize: int = 4) -> int:
    """Return the most bytes that live at once in a forward pass without gradients.

    The network's steps are replayed with sizes only; what is referenced at each
    is added up. ``size`` is the (y, x) of the input in pixels.
    """
    (y, x), width, depth = size, model.width, model.depth
    image = current = model.in_channels * y * x
    skips: list[int] = []
    peak = 0
    for level in range(depth + 1):
        features = width * 2**level
        if level:
            y, x = y // 2, x // 2
            current = features // 2 * y * x
        after = features * (y - 4) * (x - 4)
        peak = max(peak, image + sum(skips) + current + features * (y - 2) * (x - 2) + after)
        skips.append(after)
        y, x = y - 4, x - 4
    current = skips.pop()
    for level in reversed(range(depth)):
        features = width * 2**level
        y, x = 2 * y, 2 * x
        up, both = features * y * x, 2 * features * y * x
        peak = max(peak, image + sum(skips) + max(current + up, up + both))
        skips.pop()
        current = features * (y - 4) * (x - 4)
        peak = max(peak, image + sum(skips) + both + features * (y - 2) * (x - 2) + current)
        y, x = y - 4, x - 4
    return (peak + 2 * model.classes * y * x) * itemsize


def project_memory(
    model: UNet,
    tiling: Tiling,
    *,
    channels: int,
    itemsize: int,
    source_chunk: tuple[int, int],
    result_bytes: int,
    workers: int,
    whole_plane: bool = False,
) -> int:
    """Return the most bytes that a process is going to take.

    Parameters
    ----------
    source_chunk : (Y, X)
        Chunk of the source, decoded whole even for a few of its pixels.
    result_bytes : int
        Bytes per output pixel of all that is saved.
    workers : int
        Blocks at work at once; one forward pass at a time.
    whole_plane : bool
        Dask's overlap holds most of the plane.
    """
    pixel = channels * itemsize
    network = sum(p.numel() for p in model.parameters()) * 4
    forward = round(1.15 * forward_bytes(model, tiling.tile_input)) + _WORKSPACE_BYTES
    tile_pixels = math.prod(tiling.tile_input)
    height, width = tiling.largest_block
    source = pixel * (height + 2 * tiling.halo[0]) * (width + 2 * tiling.halo[1])
    source = max(source, pixel * tile_pixels)
    decoded = pixel * _DECODED_AT_ONCE * math.prod(source_chunk)
    # The window and its decoded chunks; the result and its encoded copy.
    per_block = 2 * source + decoded + 2 * result_bytes * height * width + 5 * pixel * tile_pixels
    plane = 3 * pixel * math.prod(tiling.shape) if whole_plane else 0
    run = forward + workers * per_block + plane
    # Intensities are measured before the first block, so the two do not add up.
    sample = 2 * pixel * min(math.prod(tiling.shape), WINDOWS * WINDOW**2)
    return _RUNTIME_BYTES + 3 * network + max(run, sample)
