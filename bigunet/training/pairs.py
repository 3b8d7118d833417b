"""An image and its mask before anything of them is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bigunet.images.planes import Plane

__all__ = ["Layout", "Pair", "Source", "source_path"]

Source: TypeAlias = Path | Plane
"""Where pixels are read from: a file, or a plane of an OME-Zarr image."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its mask, unread."""

    name: str
    """Of the image; planes of one image share it."""
    group: str
    """What may only be held back together."""
    pixels: Source
    mask: Source


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What was found."""

    pairs: tuple[Pair, ...]
    has_instances: bool = False
    """Whether the layout itself says that masks hold instances."""
    pixel_size: float | None = None
    """In micrometres, where all images agree."""
    notes: tuple[str, ...] = ()
    """Lines for the user."""


def source_path(source: Source) -> Path:
    """Return the file or the array, for messages."""
    return source if isinstance(source, Path) else Path(source.store, source.key)
