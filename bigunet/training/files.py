"""Images and masks for training: what `bigunet.images.files` reads, held to what training takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.images.files import SUFFIXES, read_samples

__all__ = ["SUFFIXES", "read_image", "read_mask"]

Array: TypeAlias = npt.NDArray[Any]


def read_image(path: Path) -> Array:
    """Read the pixels of an image.

    Parameters
    ----------
    path : path of a PNG or TIFF file
        Grey, RGB or several channels, of any integer or float type. Transparency that
        is the same everywhere is dropped.

    Returns
    -------
    (C, Y, X) array
        In the type of the file, native byte order.

    Raises
    ------
    InputError
        The file cannot be read, or holds what would be lost; names the file.
    DependencyError
        TIFF, and tifffile is not installed.
    """
    pixels = _grey_of_bits(read_samples(path))
    if pixels.dtype.kind not in "iuf":
        raise InputError(f"{path} has pixels of type {pixels.dtype}: integers or floats are read")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError(f"{path} has pixels that are not finite: set them to a number")
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def read_mask(path: Path) -> Array:
    """Read the values of a mask: one whole number per pixel.

    Parameters
    ----------
    path : path of a PNG or TIFF file
        Of a palette the numbers are taken, not the colours; black and white of one
        bit become 0 and 255.

    Returns
    -------
    (Y, X) integer array

    Raises
    ------
    InputError
        The file cannot be read, or has colours or fractions; names the file.
    DependencyError
        TIFF, and tifffile is not installed.
    """
    samples = _grey_of_bits(read_samples(path, mask=True))
    if samples.dtype.kind == "f":
        samples = _whole(path, samples)
    if samples.dtype.kind not in "iu":
        raise InputError(f"{path} has values of type {samples.dtype}: a mask holds whole numbers")
    if not (samples == samples[..., :1]).all():
        raise InputError(f"{path} has colours: a mask holds one number per pixel")
    return np.ascontiguousarray(samples[..., 0])


def _whole(path: Path, values: Array) -> Array:
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise InputError(f"{path} has values that are not whole: a mask holds whole numbers")
    if np.abs(values).max(initial=0) > 2**53:
        raise InputError(f"{path} has values above 2**53, which are not exact")
    return values.astype(np.int64)


def _grey_of_bits(samples: Array) -> Array:
    """Turn black and white of one bit into 0 and 255."""
    return samples.astype(np.uint8) * 255 if samples.dtype == bool else samples
