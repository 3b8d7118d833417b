"""Images with labels of objects, as small as tests need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write_labelled(
    path: Path,
    labels: np.ndarray,
    axes: str = "yx",
    *,
    shape: tuple[int, ...] | None = None,
    level: int = 0,
    levels: int = 2,
    unit: str | None = "micrometer",
    chunk: int = 16,
    scale: float = 0.5,
    zarr_format: int = 3,
    label_levels: int = 1,
    **label: Any,
) -> Path:
    """Write an image without pixels whose level `level` has the label ``cells``.

    `shape` is that of the image's level 0; without it levels are twice the one below.
    """
    pairs = zip(axes, labels.shape, strict=True)
    whole = shape or tuple(n << level if a in "yx" else n for a, n in pairs)
    image = [
        tuple(-(-n >> k) if a in "yx" else n for a, n in zip(axes, whole, strict=True))
        for k in range(max(levels, level + 1))
    ]
    _write(path, image, axes, scale, unit, chunk, zarr_format, {}, dtype="uint8")
    listing = zarr.create_group(path / "labels", zarr_format=zarr_format)
    _state(listing, {"labels": ["cells"]})
    data = [labels[..., :: 2**k, :: 2**k] for k in range(label_levels)]
    group = _write(
        path / "labels" / "cells",
        [d.shape for d in data],
        axes,
        scale * 2**level,
        unit,
        chunk,
        zarr_format,
        label,
        dtype=labels.dtype,
    )
    for k, pixels in enumerate(data):
        group[str(k)][...] = pixels
    return path


def _write(
    path: Path,
    shapes: list[tuple[int, ...]],
    axes: str,
    scale: float,
    unit: str | None,
    chunk: int,
    zarr_format: int,
    ome: dict[str, Any],
    dtype: Any,
) -> zarr.Group:
    group = zarr.create_group(path, zarr_format=zarr_format)
    datasets = []
    for k, shape in enumerate(shapes):
        chunks = tuple(min(chunk, n) if a in "yx" else 1 for a, n in zip(axes, shape, strict=True))
        group.create_array(str(k), shape=shape, chunks=chunks, dtype=dtype)
        factors = [scale * 2**k if a in "yx" else 1.0 for a in axes]
        transformations = [{"type": "scale", "scale": factors}]
        datasets.append({"path": str(k), "coordinateTransformations": transformations})
    named = [
        {"name": a, "type": TYPES[a]} | ({"unit": unit} if unit and a in "yx" else {}) for a in axes
    ]
    _state(group, {"multiscales": [{"axes": named, "datasets": datasets}], **ome})
    return group


def _state(group: zarr.Group, ome: dict[str, Any]) -> None:
    if group.metadata.zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", **ome}
        return
    for entry in ome.get("multiscales", []):
        entry["version"] = "0.4"
    group.attrs.update(ome)
