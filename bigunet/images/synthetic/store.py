"""The sample slide as OME-Zarr: created without a word of what it is, named when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from bigunet.errors import OutputError, OutputExistsError

__all__ = ["CHUNK", "create_sample", "finish_sample", "make_room"]

CHUNK = 512  # px on a side; levels go down to one chunk
PIXEL = 0.5  # micrometres
WINDOW = {"min": 0, "max": 65535, "start": 250, "end": 7000}


def make_room(path: Path) -> None:
    """Refuse a path where something is, unless an unfinished sample is all there is."""
    if not os.path.lexists(path):
        return
    if not _is_unfinished(path):
        raise OutputExistsError(f"{path} exists already: remove it, or choose another path")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise OutputError(f"{path} holds an unfinished sample that stays: {error}") from error


def create_sample(
    path: Path, levels: Sequence[tuple[int, int]], origin: dict[str, Any]
) -> zarr.Group:
    """Create empty arrays under groups that do not say yet that they are an image."""
    try:
        root = zarr.create_group(path, zarr_format=3, attributes={"bigunet": origin})
        truth = root.create_group("labels").create_group("truth")
        for level, shape in enumerate(levels):
            _create_level(root, level, (1, *shape), np.uint16)
            _create_level(truth, level, shape, np.uint32)
    except OSError as error:
        raise OutputError(f"{path} cannot be written to: {error}") from error
    return root


def finish_sample(
    root: zarr.Group, levels: Sequence[tuple[int, int]], origin: dict[str, Any]
) -> None:
    """Say what it is, from the inside out: the image's own metadata comes last."""
    labels, truth = root["labels"], root["labels/truth"]
    label = {"version": "0.5", "source": {"image": "../../"}}
    truth.attrs.put({"ome": _multiscales("truth", len(levels), 2) | {"image-label": label}})
    labels.attrs.put({"ome": {"version": "0.5", "labels": ["truth"]}})
    channel = {"label": "DAPI", "color": "FFFFFF", "active": True, "window": WINDOW}
    image = _multiscales("sample", len(levels), 3) | {"omero": {"channels": [channel]}}
    root.attrs.put({"ome": image, "bigunet": origin})


def _is_unfinished(path: Path) -> bool:
    """Tell what a killed run left: its first file says what it was to become."""
    if path.is_symlink() or not path.is_dir():
        return False
    file = path / "zarr.json"
    if not file.exists():  # killed before the first file had its name
        return all(p.match("zarr.json.*.partial") for p in path.iterdir())
    try:
        attributes = json.loads(file.read_text())["attributes"]
        return "ome" not in attributes and "recipe" in attributes["bigunet"]["sample"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _create_level(group: zarr.Group, level: int, shape: tuple[int, ...], dtype: Any) -> None:
    group.create_array(
        str(level),
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(n, CHUNK) for n in shape),
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=["c", "y", "x"][-len(shape) :],
    )


def _multiscales(name: str, levels: int, ndim: int) -> dict[str, Any]:
    """Describe a pyramid as NGFF 0.5 does."""
    axes: list[dict[str, str]] = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, PIXEL * 2**level, PIXEL * 2**level][-ndim:]},
            ],
        }
        for level in range(levels)
    ]
    pyramid = {"name": name, "axes": axes[-ndim:], "datasets": datasets}
    return {"version": "0.5", "multiscales": [pyramid]}
