"""A slide without pixels, a network without work, an output without a store: what is left of a
run is the machinery. Importable, so that worker processes find what the client sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import zarr

from bigunet.geometry import margin
from bigunet.images.image import Image
from bigunet.images.planes import Plane, image_planes
from bigunet.models.predictor import Predictor

__all__ = ["BlankPlane", "ConstantPredictor", "simulation", "write_blank_slide"]


def write_blank_slide(path: Path, side: int, chunk: int) -> Path:
    """Write the metadata of a (side, side) uint8 slide of one level; no chunk is stored."""
    group = zarr.create_group(path, zarr_format=3)
    chunk = min(chunk, side)
    group.create_array("0", shape=(side, side), chunks=(chunk, chunk), dtype="uint8")
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return path


@dataclass(frozen=True, kw_only=True)
class BlankPlane(Plane):
    """A plane of zeros that takes no memory, however large a window is."""

    def read(self, y: slice, x: slice) -> np.ndarray:
        height, width = (
            len(range(*pixels.indices(size)))
            for pixels, size in zip((y, x), self.shape[1:], strict=True)
        )
        return np.broadcast_to(np.zeros((), self.dtype), (self.shape[0], height, width))


class ConstantPredictor(Predictor):
    """Finds class 0 everywhere, and sees to it that no worker stores or hashes that.

    Zarr stores no chunk of zeros, but needs 30 ms to find them in 16 million pixels.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # Patches do not travel; this object does, once to each process.
        _without_pixels().start()

    def outputs(
        self, tiles: Iterable[np.ndarray], limits: Any, finish: Any
    ) -> Iterator[Sequence[np.ndarray]]:
        eaten = 2 * margin(self.model.depth)
        for tile in tiles:
            height, width = (size - eaten for size in tile.shape[-2:])
            yield [np.broadcast_to(np.uint8(0), (height, width))]


@contextmanager
def simulation() -> Iterator[None]:
    """Let what is planned and run meanwhile have blank planes, a constant network, no writes."""
    with ExitStack() as stack:
        stack.enter_context(_without_pixels())
        stack.enter_context(patch("bigunet.planning.image_planes", _blank_planes))
        stack.enter_context(patch("bigunet.work.Predictor", ConstantPredictor))
        yield


def _without_pixels() -> Any:
    """Leave out what costs time for each pixel of a block, beside the network."""
    return patch.multiple("bigunet.work", write_window=lambda *_: None, digest=lambda *_: "0" * 32)


def _blank_planes(image: Image, level: int, channels: Sequence[int]) -> tuple[BlankPlane, ...]:
    return tuple(BlankPlane(**vars(plane)) for plane in image_planes(image, level, channels))
