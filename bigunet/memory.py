"""How much memory a run is going to take, from sizes alone.

*allowed* is what a process may take, *projected* what it is going to take at
most. Both are bytes of one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bigunet.geometry import Tiling, pooling_grid, round_up
from bigunet.images.intensity import WINDOW, WINDOWS
from bigunet.instances.rules import Rules
from bigunet.models.devices import library_bytes
from bigunet.models.unet import UNet

__all__ = [
    "Memory",
    "choose_batch",
    "device_memory",
    "forward_bytes",
    "project_memory",
    "smaller_tiling",
]

# Interpreter, torch for CPUs, Dask and their thread pools, before the first block (measured: 300 MB),
# and what malloc keeps for a second thread once it has made a pass (up to 100 MB).
_RUNTIME_BYTES = 420 * 2**20
# Of the model as it was given, as it is run and as it travels; OpenVINO has a graph of its own and
# arranges weights anew.
_COPIES_OF_WEIGHTS = {"eager": 3, "compile": 3, "openvino": 5}
# What torch's convolutions keep beside their input and output (measured: 40-85 MB).
_WORKSPACE_BYTES = 100 * 2**20
# Of activations, what allocators lose between blocks.
_LOST = 1.15
# CUDA's context with the code of its libraries, on the device and in the process (not measured).
_CUDA_BYTES = 2**30
# Enough to fill a GPU; more would only keep more in flight (not measured).
_LARGEST_BATCH, _PIXELS_OF_A_BATCH = 8, 2048**2
# cuDNN may fall back to other algorithms, and other bits, where its workspace finds no room. So a
# batch leaves half of the device alone.
_DEVICE_SHARE = 0.5
_BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}
# Labelling, splitting and refining take this for each pixel of noise, the most objects that
# there can be; of nuclei labelling took 6 and refining 37 bytes.
_LABEL_BYTES, _SPLIT_BYTES, _REFINE_BYTES = 40, 50, 50
# What the merges keep of each object (measured: 170 bytes), and how dense objects may lie.
_BYTES_OF_AN_OBJECT, _PIXELS_OF_AN_OBJECT = 200, 1000
# zarr decodes this many chunks of one read at once.
_DECODED_AT_ONCE = 10


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one process: what it may take and what it is going to take at most."""

    allowed: int
    projected: int


def forward_bytes(
    model: UNet, size: tuple[int, int], itemsize: int = 4, *, averaged: bool = False
) -> int:
    """Return the most bytes that live at once in a forward pass without gradients.

    The network's steps are replayed with sizes only; what is referenced at each
    is added up. ``size`` is the (y, x) of the input in pixels. Of an average the
    input, turned and as it was, and the sum so far stay during each pass.
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
    scores = model.classes * y * x
    kept = 2 * image + scores if averaged else 0
    return (peak + 2 * scores + kept) * itemsize


def device_memory(
    model: UNet, tiling: Tiling, batch: int, precision: str, *, averaged: bool = False
) -> int:
    """Return the most bytes that a process is going to take of a CUDA device.

    Parameters
    ----------
    batch : int
        Tiles in a pass; another batch may be on its way in, and a third on its way out.
    precision : str
        ``float32``, or the type of autocast.
    averaged : bool
        Scores are means over symmetries.
    """
    size, weights = _BYTES_OF[precision], sum(p.numel() for p in model.parameters())
    image = model.in_channels * math.prod(tiling.tile_input)
    scores = model.classes * math.prod(tiling.tile_output)
    # Under autocast the weights are there in both types.
    network = weights * (4 if precision == "float32" else 4 + size)
    forward = forward_bytes(model, tiling.tile_input, size, averaged=averaged)
    # Beside the pass the image as it was sent (twice), cast and mapped, and the results of two.
    tile = round(_LOST * forward) + 4 * (4 * image + 3 * scores)
    return _CUDA_BYTES + _WORKSPACE_BYTES + network + batch * tile


def choose_batch(
    model: UNet,
    tiling: Tiling,
    device_bytes: int | None,
    precision: str,
    *,
    averaged: bool = False,
) -> int:
    """Return the tiles in a pass: the most of 8, 4, 2 and 1 that are neither more than fill a device
    nor projected to take more than half of it.

    Nothing is timed, and blocks do not count: bits may depend on the batch.

    Parameters
    ----------
    device_bytes : int or None
        Memory of the device, used or not; None for one that runs single tiles.
    """
    batch = 1 if device_bytes is None else _LARGEST_BATCH
    while batch > 1:
        projected = device_memory(model, tiling, batch, precision, averaged=averaged)
        pixels = batch * math.prod(tiling.tile)
        if pixels <= _PIXELS_OF_A_BATCH and projected <= _DEVICE_SHARE * (device_bytes or 0):
            break
        batch //= 2
    return batch


def smaller_tiling(
    tiling: Tiling, projected: Callable[[Tiling], int], allowed: int
) -> Tiling | None:
    """Halve the tile until it is projected to fit; None if not even the smallest does.

    Parameters
    ----------
    projected : callable
        From a tiling, whose blocks are as small as its halo allows, to bytes.
    """
    tile, grid = max(tiling.tile), pooling_grid(tiling.depth)
    while tile > grid:
        tile = round_up(tile // 2, grid)
        tried = Tiling.fit(
            tiling.shape, tiling.depth, tile=tile, block=tile, target_tile=tile, target_block=tile
        )
        if projected(tried) <= allowed:
            return tried
    return None


def project_memory(
    model: UNet,
    tiling: Tiling,
    *,
    channels: int,
    itemsize: int,
    source_chunk: tuple[int, int, int],
    result_bytes: int,
    workers: int,
    kept: int = 0,
    whole_plane: bool = False,
    averaged: bool = False,
    rules: Rules | None = None,
    pixels: int = 0,
    device: str = "cpu",
    runtime: str = "eager",
    batch: int = 1,
) -> int:
    """Return the most bytes that a process is going to take, those of a CUDA device apart.

    Parameters
    ----------
    source_chunk : (L, Y, X)
        Chunks of the source at one place, with all channels and planes in them, decoded whole even
        for a few of their pixels.
    result_bytes : int
        Bytes per output pixel of all that is saved.
    workers : int
        Blocks at work at once; one forward pass at a time.
    kept : int
        Bytes of decoded chunks that are kept for other blocks.
    whole_plane : bool
        Dask's overlap holds most of the plane.
    averaged : bool
        Scores are means over symmetries.
    rules : Rules, optional
        What makes objects, where they are made.
    pixels : int
        Of all planes, to guess how many objects there are.
    device : str
        Where the network runs; for what a CUDA device takes itself see `device_memory`.
    runtime : str
        What runs it there.
    batch : int
        Tiles in a pass.
    """
    pixel = channels * itemsize
    network = sum(p.numel() for p in model.parameters()) * 4
    tile_pixels = math.prod(tiling.tile_input)
    if device.startswith("cuda"):
        # Two batches are in flight in pinned memory, which comes in powers of two, and one is cut.
        tile_bytes = pixel * tile_pixels + result_bytes * math.prod(tiling.tile_output)
        forward = _CUDA_BYTES + workers * 5 * batch * tile_bytes
    else:
        forward = batch * forward_bytes(model, tiling.tile_input, averaged=averaged)
        forward = round(_LOST * forward) + _WORKSPACE_BYTES
    height, width = tiling.largest_block
    source = pixel * (height + 2 * tiling.halo[0]) * (width + 2 * tiling.halo[1])
    source = max(source, pixel * tile_pixels)
    decoded = itemsize * _DECODED_AT_ONCE * math.prod(source_chunk)
    if kept:
        # Chunks are read whole, and there is the window that is cut from them.
        sides = zip(tiling.largest_block, tiling.halo, source_chunk[1:], tiling.shape, strict=True)
        decoded += pixel * math.prod(min(b + 2 * (h + c), whole) for b, h, c, whole in sides)
    # The window and its decoded chunks; the result and its encoded copy.
    per_block = 2 * source + decoded + 2 * result_bytes * height * width + 5 * pixel * tile_pixels
    plane = 3 * pixel * math.prod(tiling.shape) if whole_plane else 0
    labelling = assembling = 0
    if rules is not None:
        labelling = _LABEL_BYTES * height * width
        assembling = workers * _assembly_bytes(rules, (height, width))
        assembling += pixels // _PIXELS_OF_AN_OBJECT * _BYTES_OF_AN_OBJECT
    run = max(forward + workers * (per_block + labelling) + plane, assembling)
    # Workers of a cluster let go of chunks when the run ends.
    run += kept
    # Intensities are measured before the first block, so the two do not add up.
    sample = 2 * pixel * min(math.prod(tiling.shape), WINDOWS * WINDOW**2)
    loaded = _RUNTIME_BYTES + library_bytes()
    return loaded + _COPIES_OF_WEIGHTS[runtime] * network + max(run, sample)


def _assembly_bytes(rules: Rules, block: tuple[int, int]) -> int:
    """Return the most bytes that a block takes between the network and its final ids."""

    def grown(margin: int) -> int:
        return math.prod(side + 2 * margin for side in block)

    relabelling = 4 * 8 * math.prod(block)
    splitting = _SPLIT_BYTES * grown(rules.halo) if rules.split else 0
    refining = _REFINE_BYTES * grown(rules.ring) if rules.refine else 0
    return max(relabelling, splitting, refining)
