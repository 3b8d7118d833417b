"""What is known of an image without reading a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigunet.errors import InputError, MemoryLimitError
from bigunet.images.ngff import Axis, Channel
from bigunet.images.transformations import micrometres

__all__ = ["Image", "Level", "check_chunk_memory", "checked_level", "sizes_text"]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of an image."""

    path: str
    """Relative to the group of the image."""
    shape: tuple[int, ...]
    dtype: str
    """Name of the NumPy type."""
    chunks: tuple[int, ...]
    """As stored: may be larger than the shape."""
    shards: tuple[int, ...] | None
    """As stored; None where chunks are stored one by one."""
    scale: tuple[float, ...]
    """Per axis, in the axis' unit."""
    translation: tuple[float, ...]
    """Per axis, in the axis' unit."""

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of what is stored in one piece: the shard where there is one, else the chunk."""
        return self.shards or self.chunks


@dataclass(frozen=True, kw_only=True)
class Image:
    """What is known of an image without reading a pixel."""

    path: Path
    """The group that holds the multiscales."""
    version: str
    """OME-Zarr 0.1 to 0.5."""
    zarr_format: int
    """2 or 3."""
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    channels: tuple[Channel, ...]
    """One where the image has no axis c."""
    name: str
    labels: tuple[str, ...]
    """Listed label images."""

    @property
    def axis_names(self) -> str:
        """The axes as one word, such as ``czyx``."""
        return "".join(axis.name for axis in self.axes)

    def pixel_size(self, level: int) -> float | None:
        """Side of a pixel in micrometres, the geometric mean of y and x; None without unit."""
        y, x = (micrometres(axis.unit) for axis in self.axes[-2:])
        if y is None or x is None:
            return None
        height, width = (
            n * um for n, um in zip(self.levels[level].scale[-2:], (y, x), strict=True)
        )
        return height if height == width else math.sqrt(height) * math.sqrt(width)


def checked_level(image: Image, level: int) -> Level:
    """Return a level, or say which there are."""
    if not 0 <= level < len(image.levels):
        last = len(image.levels) - 1
        has = f"has levels 0 to {last}" if last else "has level 0 only"
        raise InputError(f"there is no level {level}: {image.path} {has}")
    return image.levels[level]


def check_chunk_memory(image: Image, level: int, allowed_bytes: int) -> None:
    """Refuse a level of which one decoded chunk, or shard, is larger than the memory.

    A chunk is decoded whole, however little of it is asked for, and a few
    kilobytes on disk can decode to gigabytes.

    Parameters
    ----------
    image : Image
    level : int
    allowed_bytes : int
        Memory that one chunk may take, in bytes.

    Raises
    ------
    MemoryLimitError
        Names both figures.
    """
    facts = checked_level(image, level)
    size = math.prod(facts.stored) * np.dtype(facts.dtype).itemsize
    if size > allowed_bytes:
        kind = "shard" if facts.shards else "chunk"
        raise MemoryLimitError(
            f"{image.path / facts.path}: one {kind} of {sizes_text(facts.stored)} {facts.dtype} "
            f"decodes to {size / 1e9:,.2f} GB, and {allowed_bytes / 1e9:,.2f} GB are allowed: "
            f"allow more with --memory-limit or store the image in smaller {kind}s"
        )


def sizes_text(sizes: Sequence[int]) -> str:
    """Write a shape as people do: 512 × 512."""
    return " × ".join(map(str, sizes))
