"""Masks in image files: PNG and other pictures by Pillow, TIFF by tifffile where it is there."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError

__all__ = ["SUFFIXES", "list_files", "read_file"]

Array: TypeAlias = npt.NDArray[Any]

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", *TIFF)


def list_files(folder: Path) -> Mapping[str, Path]:
    """Return the masks of a folder by their names without suffix, in order.

    Raises
    ------
    InputError
        If there are none, or two of one name.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no masks: {', '.join(SUFFIXES)} are read")
    found: dict[str, Path] = {}
    for path in paths:
        if found.setdefault(path.stem, path) != path:
            raise InputError(f"{found[path.stem]} and {path} have one name; remove one of them")
    return found


def read_file(path: Path) -> Array:
    """Read a mask, (Y, X), with the values that the file holds.

    Raises
    ------
    InputError
        If it cannot be read or has more than one value for a pixel.
    """
    try:
        array = _read_tiff(path) if path.suffix.lower() in TIFF else _read_picture(path)
    except Exception as error:
        # Decoders raise whatever they like: OSError, ValueError, SyntaxError, struct.error ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read: {reason}") from error
    return _plane(path, array)


def _read_tiff(path: Path) -> Array:
    # tifffile reads types that Pillow does not (32-bit ids), and comes with many packages.
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        return _read_picture(path)
    return np.asarray(tifffile.imread(path))


def _read_picture(path: Path) -> Array:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture)


def _plane(path: Path, array: Array) -> Array:
    """Drop axes of length one, and channels that say the same."""
    plane = array.squeeze() if array.ndim > 2 else array
    if plane.ndim == 3 and plane.shape[-1] in (3, 4):
        colors = plane[..., :3]
        if (colors == colors[..., :1]).all():
            plane = colors[..., 0]
    if plane.ndim != 2:
        raise InputError(
            f"{path} has {' × '.join(map(str, array.shape))} values; a mask is one plane "
            "with one value for a pixel"
        )
    return plane.astype(np.uint8) if plane.dtype == bool else plane
