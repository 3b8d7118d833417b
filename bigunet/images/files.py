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

__all__ = ["SUFFIXES", "read_samples"]

Array: TypeAlias = npt.NDArray[Any]
Samples: TypeAlias = tuple[Array, bool]
"""(Y, X, S) and whether the last sample is transparency."""

SUFFIXES = (".png", ".tif", ".tiff")

_GREY = 0  # of PNG's colour types
_PHOTOMETRIC = 262  # tag of TIFF
_SCALES = {2: 85, 4: 17}
"""By how much Pillow multiplies grey values of so many bits, to fill 8 bits."""


def read_samples(path: Path, *, mask: bool = False) -> Array:
    """Read the samples of a picture without transparency, in native byte order.

    Parameters
    ----------
    path : path of a PNG or TIFF file
        Transparency that is the same everywhere is dropped.
    mask : bool
        Read numbers, not looks: of a palette the indices, of 2 and 4 bits what is stored.

    Returns
    -------
    (Y, X, S) array
        In the type of the file; bool where it has one bit.

    Raises
    ------
    InputError
        The file cannot be read, or holds what would be lost; names the file.
    DependencyError
        TIFF that needs a package which is not installed.
    """
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
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    return _without_alpha(path, samples) if has_alpha else samples


def _without_alpha(path: Path, samples: Array) -> Array:
    low, high = samples[..., -1].min(), samples[..., -1].max()
    if low != high:
        raise InputError(
            f"{path} has transparency that varies from {low} to {high}: flatten it first"
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
    try:
        tifffile = _tifffile()
    except DependencyError:
        if mask and (samples := _read_plain_tiff(path)) is not None:
            return samples
        raise
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


def _read_plain_tiff(path: Path) -> Samples | None:
    """Read by Pillow what it does not change: one page that stores black as 0."""
    from PIL import Image as Pillow

    with Pillow.open(path, formats=("TIFF",)) as opened:
        picture: Any = opened
        white_is_zero = picture.tag_v2[_PHOTOMETRIC] == 0
        if picture.n_frames > 1 or white_is_zero:
            return None
        return np.atleast_3d(np.asarray(picture)), picture.mode in ("LA", "RGBA")


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
