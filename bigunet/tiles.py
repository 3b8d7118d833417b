"""One block, tile by tile: the function behind every way of feeding the network.

`bigunet.inference` calls it on lazy arrays, `bigunet.work` on pixels that it read
itself. Why the result does not depend on the blocks: see `bigunet.geometry`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bigunet.errors import DeviceMemoryError
from bigunet.geometry import Block, Span, Tiling, mirror_indices
from bigunet.images.intensity import Limits
from bigunet.memory import device_memory, smaller_tiling
from bigunet.models.devices import device_room
from bigunet.models.predictor import Predictor

__all__ = ["mirrored", "predict_block", "time_tile"]


def predict_block(
    pixels: np.ndarray,
    origin: tuple[int, int],
    block: Block,
    *,
    tiling: Tiling,
    predictor: Predictor,
    limits: Limits | None,
    kinds: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return what is asked of one block, tile by tile.

    Parameters
    ----------
    pixels : (C, y, x) array
        At least ``tiling.source(block)``; pixels of the plane itself.
    origin : (y, x)
        Place of ``pixels[:, 0, 0]`` in the plane; negative where Dask put a
        mirrored border in front.
    kinds : sequence of {"scores", "classes", "probabilities"}
        What to return: (K, y, x) float32 logits, (y, x) uint8 classes, (K, y, x)
        uint8 softmax in steps of 1/255.

    Raises
    ------
    DeviceMemoryError
        The device has no room for a single tile; names one that would fit.
    """
    tiles = list(tiling.tiles(block))
    reads = (mirrored(pixels, origin, tiling.tile_read(tile), tiling.shape) for tile in tiles)
    results: dict[str, np.ndarray] = {}
    with _fitting_tile_named(predictor, tiling):
        outputs = predictor.outputs(reads, limits, lambda scores: _finished(scores, kinds))
        for tile, parts in zip(tiles, outputs, strict=True):
            inside = tile[0].cut(block.y), tile[1].cut(block.x)
            part_of = inside[0].shift(-tile[0].start), inside[1].shift(-tile[1].start)
            place = inside[0].shift(-block.y.start), inside[1].shift(-block.x.start)
            for kind, part in zip(kinds, parts, strict=True):
                if kind not in results:
                    shape = (*part.shape[:-2], block.y.size, block.x.size)
                    results[kind] = np.empty(shape, part.dtype)
                cut = part[..., part_of[0].slice, part_of[1].slice]
                results[kind][..., place[0].slice, place[1].slice] = cut
    return results


def _finished(scores: torch.Tensor, kinds: Sequence[str]) -> list[torch.Tensor]:
    """Return what is asked of the scores (N, K, y, x) of a batch."""
    return [_KINDS[kind](scores) for kind in kinds]


def _classes(scores: torch.Tensor) -> torch.Tensor:
    """Return the class of the best score, of equal ones the first, of scores (N, K, y, x)."""
    # Torch's argmax and max take 4 to 20 times as long on a CPU: they keep indices of 8 bytes.
    best, *others = scores.unbind(1)
    classes = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number, score in enumerate(others, 1):
        torch.maximum(classes, (score > best).view(torch.uint8) * number, out=classes)
        best = torch.maximum(best, score)
    return classes


def _probabilities(scores: torch.Tensor) -> torch.Tensor:
    return scores.softmax(1).mul_(255).round_().to(torch.uint8)


_KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "scores": lambda scores: scores,
    "classes": _classes,
    "probabilities": _probabilities,
}


@contextmanager
def _fitting_tile_named(predictor: Predictor, tiling: Tiling) -> Iterator[None]:
    """Say which tile would fit, where one does not; none is taken in its stead, for bits."""

    def projected(tried: Tiling) -> int:
        averaged = predictor.augment != "none"
        return device_memory(predictor.model, tried, 1, predictor.precision, averaged=averaged)

    try:
        yield
    except DeviceMemoryError as error:
        room = device_room(predictor.device)
        fitting = smaller_tiling(tiling, projected, projected(tiling) if room is None else room)
        way_out = "use another device" if fitting is None else f"pass --tile {max(fitting.tile)}"
        raise DeviceMemoryError(f"{error}; {way_out}") from error


def mirrored(
    pixels: np.ndarray, origin: tuple[int, int], read: tuple[Span, Span], shape: tuple[int, int]
) -> np.ndarray:
    """Cut a read out of pixels (C, y, x), mirrored where it leaves the plane of ``shape``."""
    for axis in (0, 1):
        span, size, first = read[axis], shape[axis], origin[axis]
        if 0 <= span.start and span.stop <= size:
            chosen: Any = slice(span.start - first, span.stop - first)
        else:
            chosen = np.asarray(mirror_indices(span.start, span.stop, size)) - first
        pixels = pixels[:, chosen] if axis == 0 else pixels[:, :, chosen]
    return pixels


def time_tile(predictor: Predictor, tiling: Tiling) -> float:
    """Return the seconds that all passes over a tile of noise take; a first time warms up."""
    shape = (predictor.model.in_channels, *tiling.tile_input)
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    batch = [noise] * predictor.batch
    with _fitting_tile_named(predictor, tiling):
        for _ in range(2):
            began = time.perf_counter()
            for _ in predictor.outputs(batch, None, lambda scores: [_classes(scores)]):
                pass
    return (time.perf_counter() - began) / len(batch)
