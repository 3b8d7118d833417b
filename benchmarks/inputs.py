"""What speed is measured with: networks nobody trained, and slides that cost next to nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

__all__ = ["SEED", "make_network", "sample_chunk", "write_image", "write_repeated_slide"]

CHUNK = 1024
"""Side in pixels of what is repeated."""
SEED = 0


def make_network(width: int, depth: int) -> Any:
    """Return a U-Net of random weights for one channel and two classes, by percentiles."""
    import torch

    from bigunet import UNet
    from bigunet.images.intensity import as_rule
    from bigunet.models.card import ModelCard

    torch.manual_seed(SEED)
    model = UNet(1, 2, width=width, depth=depth).eval()
    model.card = ModelCard(intensity=as_rule("percentile"))
    return model


def sample_chunk() -> np.ndarray:
    """Return (1024, 1024) uint8 pixels with nuclei, so that codecs have what they usually have."""
    from bigunet.images.sample import sample_arrays

    image, _ = sample_arrays(CHUNK, SEED)
    return np.minimum(image.compute(scheduler="sync") >> 5, 255).astype(np.uint8)


def write_image(path: Path, pixels: np.ndarray, chunk: int = 512) -> Path:
    """Write (Y, X) pixels as an OME-Zarr of one level."""
    array = _create(path, pixels.shape, chunk, pixels.dtype)
    array[:] = pixels
    return path


def write_repeated_slide(path: Path, size: int, pixels: np.ndarray) -> Path:
    """Write a (size, size) slide whose chunks are links to one file with these pixels.

    Reading it decodes every chunk, as any slide's, but the file comes from the page cache.
    """
    side = min(size, len(pixels))
    array = _create(path, (size, size), side, pixels.dtype)
    array[:side, :side] = pixels[:side, :side]
    first = path / "0" / "c" / "0" / "0"
    count = -(-size // side)
    for row in range(count):
        folder = path / "0" / "c" / str(row)
        folder.mkdir(exist_ok=True)
        for column in range(count):
            if (row, column) != (0, 0):
                _link(first, folder / str(column))
    return path


def _create(path: Path, shape: tuple[int, ...], chunk: int, dtype: Any) -> zarr.Array[Any]:
    group = zarr.create_group(path, zarr_format=3)
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    chunks = tuple(min(chunk, size) for size in shape)
    return group.create_array("0", shape=shape, chunks=chunks, dtype=dtype)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
