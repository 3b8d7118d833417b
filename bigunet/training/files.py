"""Read the pictures people annotate: PNG and TIFF of 8, 16 or 32 bits, grey or colour.

What a reader could lose in silence is refused instead: transparency that varies, 16-bit
colour PNG (Pillow halves its depth), inverted grey, stacks. Every refusal names the file.

Letters: Y and X pixels, S samples of a pixel, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import BigunetError, DependencyError, InputError
from bigunet.images.groups import one_line

__all__ = ["SUFFIXES", "read_image", "read_mask"]

Array: TypeAlias = npt.NDArray[Any]
Samples: TypeAlias = tuple[Array, bool]
"""(Y, X, S) and whether the last sample is transparency."""

SUFFIXES = (".png", ".tif", ".tiff")

_GREY, _GREY_ALPHA, _ALPHA = 0, 4, 4  # colour types of PNG; the bit 4 says transparency
_SCALES = {2: 85, 4: 17}
"""By how much Pillow multiplies grey values of so many bits, to fill 8 bits."""


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
    pixels = _read(path, mask=False)
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
    samples = _read(path, mask=True)
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


def _read(path: Path, *, mask: bool) -> Array:
    """Read (Y, X, S) samples without transparency, in native byte order."""
    read: Callable[..., Samples] = _read_png if path.suffix.lower() == ".png" else _read_tiff
    try:
        samples, has_alpha = read(path, mask=mask)
    except BigunetError:
        raise
    except Exception as error:
        # Decoders raise whatever they like: OSError, SyntaxError, struct.error, ValueError ...
        raise InputError(f"{path} cannot be read: {one_line(error)}") from error
    if 0 in samples.shape:
        raise InputError(f"{path} has no pixels")
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * 255
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    return _without_alpha(path, samples) if has_alpha else samples


def _without_alpha(path: Path, samples: Array) -> Array:
    low, high = samples[..., -1].min(), samples[..., -1].max()
    if low != high:
        raise InputError(
            f"{path} has transparency that varies from {low} to {high}: flatten it before training"
        )
    return samples[..., :-1]


def _read_png(path: Path, *, mask: bool) -> Samples:
    from PIL import Image as Pillow

    header = path.read_bytes()[:26]
    with Pillow.open(path, formats=("PNG",)) as opened:
        bits, colour = header[24], header[25]
        if bits == 16 and colour != _GREY:
            raise InputError(
                f"{path} is a PNG of 16-bit colour, of which only 8 bits can be read: "
                "store it as TIFF"
            )
        picture: Any = opened
        if opened.mode == "P" and not mask:
            picture = opened.convert("RGBA" if "transparency" in opened.info else "RGB")
        samples = np.asarray(picture)
    if bits == 16:
        samples = samples.astype(np.uint16)  # some versions of Pillow say int32
    if mask and colour == _GREY:
        samples = samples // _SCALES.get(bits, 1) if bits in _SCALES else samples
    return np.atleast_3d(samples), picture.mode in ("LA", "RGBA")


def _read_tiff(path: Path, *, mask: bool) -> Samples:
    tifffile = _tifffile()
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages.first
        kind = int(page.photometric)
        if kind == tifffile.PHOTOMETRIC.MINISWHITE:
            raise InputError(f"{path} stores white as 0: save it with black as 0, or as PNG")
        if kind == tifffile.PHOTOMETRIC.PALETTE and not mask:
            raise InputError(f"{path} has a palette: save it as grey or RGB")
        try:
            samples = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise DependencyError(
                f"{path} is compressed in a way that needs a package: pip install imagecodecs"
            ) from error
        return _channels_last(path, samples, series.axes), _has_alpha(page)


def _has_alpha(page: Any) -> bool:
    """Tell whether the one sample beyond grey or RGB is said to be transparency."""
    return len(page.extrasamples) == 1 and int(page.extrasamples[0]) in (1, 2)


def _channels_last(path: Path, samples: Array, axes: str) -> Array:
    """Bring what tifffile read to (Y, X, S); axes of size 1 count for nothing."""
    keep = [i for i, name in enumerate(axes) if name in "YX" or samples.shape[i] > 1]
    names = "".join(axes[i] for i in keep)
    samples = samples.reshape([samples.shape[i] for i in keep])
    if names == "YX":
        return samples[..., None]
    if len(names) != 3 or not {"Y", "X"} < set(names) or not set(names) & {"S", "C"}:
        sizes = ", ".join(f"{name} {n}" for name, n in zip(names, samples.shape, strict=True))
        raise InputError(f"{path} is a stack ({sizes}): store each plane in a file of its own")
    channel = next(i for i, name in enumerate(names) if name not in "YX")
    return np.moveaxis(samples, channel, -1)


def _tifffile() -> ModuleType:
    try:
        import tifffile
    except ImportError as error:
        raise DependencyError(
            'TIFF needs the package tifffile: pip install "bigunet[train]"'
        ) from error
    return tifffile
