"""Masks in image files, one by one or a folder of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.images.files import SUFFIXES, read_samples

__all__ = ["SUFFIXES", "list_files", "read_file"]

Array: TypeAlias = npt.NDArray[Any]


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
    """Read a mask, (Y, X), with the values that the file holds; one bit gives 0 and 1.

    Raises
    ------
    InputError
        If it cannot be read or has more than one value for a pixel.
    DependencyError
        If that needs a package which is not installed.
    """
    samples = read_samples(path, mask=True)
    plane = samples[..., 0]
    if any((samples[..., k] != plane).any() for k in range(1, samples.shape[-1])):
        raise InputError(
            f"{path} has {' × '.join(map(str, samples.shape))} values; a mask is one plane "
            "with one value for a pixel"
        )
    return plane.astype(np.uint8) if plane.dtype == bool else plane
