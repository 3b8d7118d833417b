"""OME-Zarr slides with given pixels, written with zarr alone, and what is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from bigunet.models.unet import UNet

TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write_slide(
    path: Path,
    pixels: np.ndarray,
    axes: str,
    *,
    version: str = "0.5",
    chunk: int = 64,
    shard: int | None = None,
    levels: int = 2,
    pixel_size: float = 0.5,
) -> Path:
    """Write an image with every level a stride of the one before."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for level in range(levels):
        step = 2**level
        data = pixels[..., ::step, ::step]
        chunks = tuple(
            1 if a not in "yx" else min(chunk, n) for a, n in zip(axes, data.shape, strict=True)
        )
        shards = shard and tuple(1 if a not in "yx" else shard for a in axes)
        group.create_array(
            f"s{level}", data=np.ascontiguousarray(data), chunks=chunks, shards=shards
        )
        scale = [pixel_size * step if a in "yx" else 1.0 for a in axes]
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": f"s{level}", "coordinateTransformations": transforms})
    described: list[dict[str, Any]] = [
        {"name": a, "type": TYPES[a]} | ({"unit": "micrometer"} if a in "yx" else {}) for a in axes
    ]
    multiscale = {"axes": described, "datasets": datasets}
    if version == "0.5":
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [multiscale | {"version": version}]
    return path


def read_label(path: Path, name: str, level: int = 0) -> np.ndarray:
    """Return a level of a label."""
    array = zarr.open_array(path / "labels" / name / str(level), mode="r")
    return np.asarray(array[:])


def is_listed(path: Path, name: str) -> bool:
    """Tell whether readers find a label, or anything at its place that looks like one."""
    listed: Any = []
    for folder in (path / "labels", path / "labels" / name):
        try:
            attributes = dict(zarr.open_group(folder, mode="r", use_consolidated=False).attrs)
        except FileNotFoundError:
            continue
        attributes = attributes.get("ome", attributes)
        if folder.name == name and "multiscales" in attributes:
            return True
        listed = attributes.get("labels", listed)
    return name in listed


def files(path: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def constant_speed_model(channels: int = 1, depth: int = 1) -> UNet:
    """Return the smallest network: for tests of everything but its answers."""
    return UNet(channels, 2, width=1, depth=depth)


def identity_model(classes: int = 2, depth: int = 1) -> UNet:
    """Return a network that finds class k exactly where the pixel is k: tests choose the classes."""
    model = UNet(1, classes, width=1, depth=depth)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # The pixel goes over the skip connection unchanged.
        for convolutions in (model.contract[0], model.expand[0]):
            for layer in convolutions:
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight[0, 0, 1, 1] = 1
        for k in range(classes):
            # k·v − k²/2 is largest for the k nearest to v.
            model.head.weight[k] = k
            model.head.bias[k] = -k * k / 2
    return model
