"""Open an OME-Zarr image: its facts, its levels and channels.

Opening reads metadata only. What an image claims (sizes, types) is checked before a
pixel is asked for. Levels and channels are chosen in `selection`, pixels are read
through `planes`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from bigunet.errors import BigunetError, InputError, NotFoundError
from bigunet.images.arrays import open_array
from bigunet.images.containers import (
    image_group,
    image_name,
    inner_group,
    local_folder,
    store_root,
)
from bigunet.images.groups import one_line, read_group
from bigunet.images.image import Image, Level, check_chunk_memory, sizes_text
from bigunet.images.ngff import (
    PROVENANCE,
    Axis,
    Channel,
    Dataset,
    Multiscale,
    parse_channels,
    parse_labels,
    parse_multiscale,
)
from bigunet.images.planes import Plane, image_planes
from bigunet.images.selection import choose_channels, choose_level
from bigunet.images.transformations import relative_scales

__all__ = [
    "Axis",
    "Channel",
    "Image",
    "Level",
    "Plane",
    "check_chunk_memory",
    "choose_channels",
    "choose_level",
    "image_planes",
    "open_image",
    "open_labels",
    "read_provenance",
]

# Above these, a file is a hoax or a mistake; below, Python objects for each still fit in memory.
MOST_CHUNKS = 2**28
"""Chunks in one plane."""
MOST_PLANES = 2**20
MOST_CHANNELS = 2**12


def open_image(path: str | os.PathLike[str]) -> Image:
    """Open the OME-Zarr image at a local path; no pixel is read.

    Parameters
    ----------
    path : path
        Group of a multiscale image (OME-Zarr 0.1 to 0.5), or the root of a
        bioformats2raw layout that holds one image.

    Returns
    -------
    Image

    Raises
    ------
    NotFoundError
        If there is nothing at `path`.
    InputError
        If it is no OME-Zarr image that bigunet can read; says what to do.
    """
    try:
        return _image(os.fspath(path))
    except OSError as error:
        if isinstance(error, BigunetError):
            raise
        raise InputError(f"{os.fspath(path)} cannot be read: {one_line(error)}") from error


def open_labels(image: Image, name: str) -> Image:
    """Open labels by their name in the image, or by the path of a label image elsewhere.

    Raises
    ------
    NotFoundError
        If there are no such labels; names those that are there.
    InputError
        If what is there cannot be labels.
    """
    elsewhere = Path(name)
    if name in image.labels:
        elsewhere = image.path / "labels" / name
    elif not ((elsewhere / "zarr.json").is_file() or (elsewhere / ".zattrs").is_file()):
        those = f"it has {', '.join(image.labels)}" if image.labels else "it has none"
        raise NotFoundError(f"{image.path} has no labels {name!r}: {those}")
    labels = open_image(elsewhere)
    dtype = np.dtype(labels.levels[0].dtype)
    if dtype.kind not in "iu" or "c" in labels.axis_names:
        raise InputError(
            f"{labels.path} is not a label image: its axes are {labels.axis_names} and its "
            f"type is {dtype}; labels are integers and have no channels"
        )
    return labels


def read_provenance(image: Image) -> Mapping[str, Any] | None:
    """Return what bigunet wrote about a result of its own; None for everything else."""
    group = read_group(image.path)
    record = group.attributes.get(PROVENANCE) if group else None
    # A slide of `bigunet sample` has a record too, but no model made it.
    return record if isinstance(record, Mapping) and "model" in record else None


def _image(given_path: str) -> Image:
    given = local_folder(given_path)
    root = store_root(given)
    folder, group = image_group(root, given)
    try:
        parsed = parse_multiscale(group)
        levels = _levels(root, folder, parsed, group.zarr_format)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    labels = inner_group(root, folder / "labels")
    c = parsed.axis_names.find("c")
    return Image(
        path=folder,
        version=parsed.version,
        zarr_format=group.zarr_format,
        axes=parsed.axes,
        levels=levels,
        channels=parse_channels(group.ome, 1 if c < 0 else levels[0].shape[c]),
        name=image_name(given),
        labels=parse_labels(labels.ome) if labels else (),
    )


def _levels(root: Path, folder: Path, parsed: Multiscale, zarr_format: int) -> tuple[Level, ...]:
    axes = parsed.axis_names
    levels = [_level(root, folder, d, axes, zarr_format) for d in parsed.datasets]
    if "c" in axes:
        counts = {level.shape[axes.index("c")] for level in levels}
        if len(counts) > 1:
            raise InputError(f"its levels have different numbers of channels: {sorted(counts)}")
    if any(dataset.has_scale for dataset in parsed.datasets):
        return tuple(levels)
    # Version 0.1 to 0.3: how the levels relate is known from their shapes alone.
    relative = relative_scales([level.shape for level in levels])
    return tuple(
        replace(level, scale=tuple(a * b for a, b in zip(level.scale, by, strict=True)))
        for level, by in zip(levels, relative, strict=True)
    )


def _level(root: Path, folder: Path, dataset: Dataset, axes: str, zarr_format: int) -> Level:
    stored = inner_group(root, folder / dataset.path)
    if stored is None or stored.node != "array" or stored.zarr_format != zarr_format:
        raise InputError(f"its level {dataset.path!r} is missing: there is no such array")
    key = (folder.relative_to(root) / dataset.path).as_posix()
    try:
        array = open_array(root, key, zarr_format)
    except Exception as error:
        # zarr raises whatever the metadata provokes: KeyError, TypeError, ValueError ...
        raise InputError(f"its level {dataset.path!r} is broken: {one_line(error)}") from error
    _check_array(array, dataset.path, axes)
    return Level(
        path=dataset.path,
        shape=array.shape,
        dtype=array.dtype.name,
        chunks=array.chunks,
        shards=array.shards,
        scale=dataset.scale,
        translation=dataset.translation,
    )


def _check_array(array: zarr.Array[Any], path: str, axes: str) -> None:
    """Refuse what no model can take, and sizes that no plan could hold."""
    shape, stored, dtype = array.shape, array.shards or array.chunks, array.dtype
    what = f"its level {path!r} has"
    if len(shape) != len(axes):
        raise InputError(f"{what} {len(shape)} axes and the image {len(axes)} ({axes})")
    if min(shape) < 1 or min(stored) < 1 or min(array.chunks) < 1:
        raise InputError(f"{what} an axis without pixels: {sizes_text(shape)}")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{what} pixels of type {dtype.name}: only integers and floats are read")
    size = dict(zip(axes, shape, strict=True))
    chunks = math.prod(-(-n // c) for n, c in zip(shape[-2:], stored[-2:], strict=True))
    planes = size.get("t", 1) * size.get("z", 1)
    if chunks > MOST_CHUNKS or planes > MOST_PLANES or size.get("c", 1) > MOST_CHANNELS:
        raise InputError(
            f"{what} {sizes_text(shape)} ({axes}) pixels in chunks of {sizes_text(stored)}: "
            f"more than {MOST_CHUNKS} chunks in a plane, {MOST_PLANES} planes or "
            f"{MOST_CHANNELS} channels"
        )
