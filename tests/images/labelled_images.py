"""Images with labels made for the tests of pictures, and the pictures read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image as Pillow


def write_image(
    path: Path,
    levels: list[np.ndarray | tuple[int, ...]],
    axes: str,
    scales: list[tuple[float, ...]],
    unit: str | None = "micrometer",
    **ome: Any,
) -> Path:
    """Write arrays (or empty ones of a shape) as the levels of an OME-Zarr 0.5 image."""
    group = zarr.open_group(path, mode="a", zarr_format=3)
    datasets = []
    for k, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        shape = level if isinstance(level, tuple) else level.shape
        dtype = np.uint16 if isinstance(level, tuple) else level.dtype
        chunks = tuple(min(n, 1024) for n in shape)
        array = group.create_array(str(k), shape=shape, dtype=dtype, chunks=chunks)
        if not isinstance(level, tuple):
            array[...] = level
        transformations = [{"type": "scale", "scale": list(scale)}]
        datasets.append({"path": str(k), "coordinateTransformations": transformations})
    kinds = {"t": "time", "c": "channel"}
    named: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in named[-2:]:
        axis.update({"unit": unit} if unit else {})
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": named, "datasets": datasets}],
        **ome,
    }
    return path


def write_labels(image: Path, name: str, *args: Any, **ome: Any) -> Path:
    group = zarr.open_group(image / "labels", mode="a", zarr_format=3)
    listed = [*group.attrs.get("ome", {}).get("labels", []), name]
    group.attrs["ome"] = {"version": "0.5", "labels": listed}
    stated = {"image-label": {"version": "0.5"}, **ome}
    return write_image(image / "labels" / name, *args, **stated)


def opened(out: Path) -> np.ndarray:
    with Pillow.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
        return np.asarray(picture)


def square(height: int, width: int, top: int, left: int, side: int) -> np.ndarray:
    array = np.zeros((height, width), np.uint8)
    array[top : top + side, left : left + side] = 1
    return array
