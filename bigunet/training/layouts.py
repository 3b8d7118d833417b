"""Find images and their masks on disk, in each layout that people keep them in.

* A folder with ``images/`` and ``masks/`` (or ``image/``, ``labels/``, ``label/``):
  PNG and TIFF, paired by name.
* The Cell Tracking Challenge: ``01/t000.tif`` with ``01_GT/SEG/man_seg000.tif``, or
  ``01_ST/SEG`` where there is no gold truth.
* OME-Zarr images whose labels are the annotation, alone or in a folder.

Nothing is decoded here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from bigunet.errors import InputError, NotFoundError
from bigunet.training.file_layouts import find_files
from bigunet.training.pairs import Layout
from bigunet.training.zarr_layouts import find_planes

__all__ = ["Paths", "find_pairs"]

Paths: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_ZARR = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def find_pairs(
    data: Paths,
    *,
    mask_suffix: str | None = None,
    labels: str | None = None,
    channels: Sequence[int | str] | None = None,
) -> Layout:
    """Find images with masks.

    Parameters
    ----------
    data : path, or sequence of paths of OME-Zarr images
    mask_suffix : str, optional
        What a mask's name has behind that of its image: ``_mask`` for ``a_mask.png``.
    labels : str, optional
        Name of the labels in OME-Zarr images; needed where an image has several.
    channels : sequence of int or str, optional
        Channels of OME-Zarr images; all by default.

    Returns
    -------
    Layout
        At least one pair, in the order of names.

    Raises
    ------
    NotFoundError
        If there is nothing at a path.
    InputError
        If no pair is found; says what was looked for.
    """
    paths = [Path(p) for p in ([data] if isinstance(data, str | os.PathLike) else data)]
    for path in paths:
        if not path.exists():
            raise NotFoundError(f"there is nothing at {path}")
    stores = [path for path in paths if _is_zarr(path)]
    if len(paths) == 1 and not stores and paths[0].is_dir():
        stores = [path for path in sorted(paths[0].iterdir()) if _is_zarr(path)]
        if not stores:
            _check_options("folders of files", labels=labels, channels=channels)
            return find_files(paths[0], mask_suffix)
    elif len(stores) < len(paths) or not paths:
        odd = next((path for path in paths if path not in stores), "an empty list")
        raise InputError(f"{odd} is no folder of images and masks, nor an OME-Zarr image")
    _check_options("OME-Zarr images", mask_suffix=mask_suffix)
    return find_planes(stores, labels, channels)


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in _ZARR)


def _check_options(what: str, **options: object) -> None:
    """Refuse what would be ignored in silence."""
    for name, value in options.items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is given and means nothing for {what}: leave it out")
