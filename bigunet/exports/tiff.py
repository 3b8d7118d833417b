"""A label as OME-TIFF: tiled, compressed, with its pyramid; written tile by tile."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from bigunet import __version__
from bigunet.errors import DependencyError, RunError
from bigunet.images.image import Image, Level
from bigunet.images.planes import Plane, image_planes
from bigunet.images.transformations import micrometres

__all__ = ["load_tifffile", "write_label_tiff"]

TILE = 512
"""Side of a tile where chunks cannot be tiles, in pixels."""
TILES = range(64, 2049, 16)
"""Sides of chunks that can be tiles."""
CLASSIC = 2**31
"""Bytes of pixels from which on a file is a BigTIFF."""

Progress = Callable[[int, int], None]


def load_tifffile() -> ModuleType:
    """Import tifffile, or say how to get it."""
    try:
        import tifffile
    except ImportError as error:
        raise DependencyError(
            'OME-TIFF needs the package tifffile: pip install "bigunet[tiff]"'
        ) from error
    return tifffile


def write_label_tiff(
    path: Path, labels: Image, identity: uuid.UUID, progress: Progress | None = None
) -> None:
    """Write all planes of a label, and of its lower levels as sub-images.

    Ids are stored with 8, 16 or 32 bits: OME-TIFF has no more.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    labels : Image
    identity : UUID
        Of the file.
    progress : callable, optional
        Called with the pixels written so far, and in all.

    Raises
    ------
    RunError
        If a chunk cannot be read, or an id is negative or too large.
    """
    levels = _levels(labels)
    dtype = np.dtype(f"u{min(4, np.dtype(levels[0].dtype).itemsize)}")
    total = sum(math.prod(level.shape) for level in levels)
    tell = _Teller(total, progress)
    is_big = total * dtype.itemsize >= CLASSIC
    with load_tifffile().TiffWriter(path, bigtiff=is_big, ome=True) as file:
        for number, level in enumerate(levels):
            file.write(
                tell.passed(_tiles(labels, number, dtype)),
                shape=level.shape,
                dtype=dtype,
                tile=_tile(level),
                compression="zlib",
                photometric="minisblack",
                **(_lower() if number else _first(labels, identity, len(levels) - 1)),
            )


def _levels(labels: Image) -> list[Level]:
    """Return the levels that have all planes of the first: others are no sub-images of its."""
    others = labels.levels[0].shape[:-2]
    return [level for level in labels.levels if level.shape[:-2] == others]


def _first(labels: Image, identity: uuid.UUID, lower: int) -> dict[str, Any]:
    metadata = {
        "axes": labels.axis_names.upper(),
        "Name": labels.path.name,
        "UUID": f"urn:uuid:{identity}",
        "Creator": f"bigunet {__version__}",
        **_physical_sizes(labels),
    }
    return {"subifds": lower, "metadata": metadata, "software": f"bigunet {__version__}"}


def _lower() -> dict[str, Any]:
    return {"subfiletype": 1, "metadata": None, "software": False}


def _physical_sizes(labels: Image) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for axis, scale in zip(labels.axes, labels.levels[0].scale, strict=True):
        unit = micrometres(axis.unit)
        if axis.type == "space" and unit is not None:
            name = f"PhysicalSize{axis.name.upper()}"
            found |= {name: scale * unit, f"{name}Unit": "µm"}
    return found


def _tile(level: Level) -> tuple[int, int]:
    """Return the (Y, X) of a chunk where a tile can have it, so that each is decoded once."""
    height, width = level.chunks[-2:]
    return (height, width) if height in TILES and width in TILES else (TILE, TILE)


def _tiles(labels: Image, number: int, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of all planes of a level in raster order; those at the end are smaller."""
    level = labels.levels[number]
    height, width = _tile(level)
    # Chunks that are wider than a tile are decoded for all tiles of a row at once.
    wide = width * max(1, level.chunks[-1] // width)
    for plane in image_planes(labels, number, (0,)):
        for y in range(0, plane.shape[1], height):
            for x in range(0, plane.shape[2], wide):
                strip = _ids(plane, slice(y, y + height), slice(x, x + wide), dtype)
                for first in range(0, strip.shape[1], width):
                    yield strip[:, first : first + width]


def _ids(plane: Plane, y: slice, x: slice, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    ids: npt.NDArray[Any] = plane.read(y, x)[0]
    low, high, most = int(ids.min()), int(ids.max()), int(np.iinfo(dtype).max)
    if low < 0:
        raise RunError(f"id {low} is negative: ids of objects are positive, and background is 0")
    if high > most:
        raise RunError(
            f"id {high} is larger than {most}, and OME-TIFF has no larger integers: "
            "export the outlines as .geojson"
        )
    return ids.astype(dtype, copy=False)


class _Teller:
    """Tells how many pixels have passed."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def passed(self, tiles: Iterator[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
        for tile in tiles:
            self.done += tile.size
            if self.progress:
                self.progress(self.done, self.total)
            yield tile
