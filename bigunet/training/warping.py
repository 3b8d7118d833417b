"""Take pixels and ids from places in an image that is mirrored beyond its end.

Pixels are interpolated, ids are those of the nearest pixel; both follow one map.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["mirror_index", "warp_ids", "warp_image"]

Array: TypeAlias = npt.NDArray[Any]
Pixels: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]


def mirror_index(index: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.intp]:
    """Return the pixels that indices show of an axis mirrored at both ends.

    `bigunet.geometry.mirror_indices` for arrays: the edge pixel is repeated, and a
    short axis is mirrored as often as needed.

    Examples
    --------
    >>> mirror_index(np.arange(-2, 5), 3)
    array([1, 0, 0, 1, 2, 2, 1])
    """
    folded = index % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


def warp_image(image: Pixels, places: npt.NDArray[np.float64], order: Literal[1, 3]) -> Pixels:
    """Take the pixels of an image from places in it, mirrored beyond its end.

    Parameters
    ----------
    image : (C, Y, X) float32 array
    places : (2, h, w) float64 array
        In pixels. If all are whole, pixels are copied and nothing is interpolated.
    order : {1, 3}
        Linear, or cubic spline.

    Returns
    -------
    (C, h, w) float32 array
    """
    nearest = np.rint(places)
    if (nearest == places).all():
        y, x = _mirrored(nearest.astype(np.intp), image.shape[1:])
        return image[:, y, x]
    warped = np.empty((image.shape[0], *places.shape[1:]), np.float32)
    for channel, out in zip(image, warped, strict=True):
        ndimage.map_coordinates(
            np.asarray(channel), places, output=out, order=order, mode="reflect"
        )
    return warped


def warp_ids(
    instances: Array, valid: Mask, places: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int32], Mask]:
    """Take ids, and whether they are known, from the pixels nearest to places.

    Parameters
    ----------
    instances : (Y, X) integer array
    valid : (Y, X) bool array
    places : (2, h, w) float64 array

    Returns
    -------
    ids : (h, w) int32 array
        Mirrored beyond the image's end.
    valid : (h, w) bool array
        False beyond the image's end.
    """
    nearest = np.floor(places + 0.5).astype(np.intp)
    y, x = _mirrored(nearest, instances.shape)
    inside = (y == nearest[0]) & (x == nearest[1])
    return instances[y, x].astype(np.int32), valid[y, x] & inside


def _mirrored(
    index: npt.NDArray[np.intp], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return mirror_index(index[0], shape[0]), mirror_index(index[1], shape[1])
