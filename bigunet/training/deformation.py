"""Where the pixels of a training tile come from: one geometric map for pixels and ids.

Section 3.1 of the paper [1]_: shift and rotation, and deformations that are "smooth",
from "random displacement vectors on a coarse 3 by 3 grid. The displacements are sampled
from a Gaussian distribution with 10 pixels standard deviation. Per-pixel displacements
are then computed using bicubic interpolation."

A map is a (2, Y, X) array: for each pixel of a tile, the place in the image, (y, x) in
pixels, from which it is taken.

References
----------
.. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical
   Image Segmentation", MICCAI 2015.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Rotation",
    "cubic_weights",
    "draw_linear",
    "draw_origin",
    "elastic_field",
    "tile_map",
]

Array: TypeAlias = npt.NDArray[np.float64]
Rotation: TypeAlias = Literal["any", "quarter", "none"]


def elastic_field(
    shape: tuple[int, int], rng: np.random.Generator, sd: float = 10.0, grid: int = 3
) -> Array:
    """Draw a smooth field of displacements, as in section 3.1 of the paper.

    Normal displacements are drawn at the nodes of a coarse grid, whose outer nodes
    lie on the outer pixels of the tile, and interpolated with `cubic_weights`.

    Parameters
    ----------
    shape : (Y, X)
        Size of the tile in pixels, input margins included.
    rng : numpy.random.Generator
    sd : float
        Standard deviation of a node's displacement in y and in x, in pixels.
    grid : int
        Nodes a side, 2 or more.

    Returns
    -------
    (2, Y, X) float64 array
        Displacements in y and in x, in pixels.
    """
    nodes = rng.normal(0.0, sd, (2, grid, grid))
    along_y, along_x = (cubic_weights(size, grid) for size in shape)
    field: Array = along_y @ nodes @ along_x.T
    return field


def cubic_weights(size: int, nodes: int) -> Array:
    """Return how much each node counts for each pixel in cubic interpolation of an axis.

    Keys' cubic convolution (a = −1/2, the usual "bicubic"), with the end node repeated
    beyond the end. Weights of a pixel sum to 1; at a node, that node has all of it.

    Parameters
    ----------
    size : int
        Pixels.
    nodes : int
        Nodes, evenly spaced from the first pixel to the last.

    Returns
    -------
    (size, nodes) float64 array

    Examples
    --------
    >>> cubic_weights(3, 2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    at = np.linspace(0, nodes - 1, size)
    first = np.floor(at).astype(np.intp)
    weights = np.zeros((size, nodes))
    for neighbour in (first - 1, first, first + 1, first + 2):
        column = np.clip(neighbour, 0, nodes - 1)
        weights[np.arange(size), column] += _keys(at - neighbour)
    return weights


def _keys(distance: Array) -> Array:
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def draw_origin(shape: tuple[int, int], size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw where a tile begins: inside an image that is larger, around one that is smaller.

    This is the shift of section 3.1: every place is as likely.

    Parameters
    ----------
    shape : (Y, X)
        Size of the image in pixels.
    size : int
        Side of the tile in pixels.

    Returns
    -------
    (y, x) int
        Negative where the image is smaller than the tile.
    """
    y, x = (int(rng.integers(min(0, n - size), max(0, n - size), endpoint=True)) for n in shape)
    return y, x


def draw_linear(rng: np.random.Generator, *, rotation: Rotation, flip: bool, scale: float) -> Array:
    """Draw rotation, mirroring and scale (section 3.1: rotation invariance).

    Parameters
    ----------
    rng : numpy.random.Generator
    rotation : {"any", "quarter", "none"}
        Any angle, multiples of 90 degrees, or none.
    flip : bool
        Whether half of the tiles are mirrored.
    scale : float
        Objects become up to so many times larger or smaller, 1 or more; the
        logarithm is uniform.

    Returns
    -------
    (2, 2) float64 array
        From offsets (y, x) in the tile to offsets in the image. Entries are exact
        whole numbers as long as nothing but quarters and flips is drawn.
    """
    linear = np.eye(2)
    if rotation == "quarter":
        linear = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), rng.integers(4))
    elif rotation == "any":
        angle = rng.uniform(0, 2 * np.pi)
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
    if flip and rng.random() < 0.5:
        linear = linear * [1.0, -1.0]
    if scale > 1:
        linear = linear * np.exp(rng.uniform(-np.log(scale), np.log(scale)))
    return linear


def tile_map(
    origin: tuple[int, int], size: int, margin: int, linear: Array, field: Array | None = None
) -> Array:
    """Return where every pixel of a tile's input comes from.

    The middle of the tile stays in place and all else moves around it:
    ``middle + linear @ (pixel - middle) + field``.

    Parameters
    ----------
    origin : (y, x)
        Pixel of the image at which the tile's output begins when nothing moves.
    size : int
        Side of the output in pixels.
    margin : int
        Pixels that the input is larger on each side.
    linear : (2, 2) array
    field : (2, size + 2 margin, size + 2 margin) array, optional
        Displacements in pixels.

    Returns
    -------
    (2, size + 2 margin, size + 2 margin) float64 array
        Whole numbers where `linear` has them and there is no field.
    """
    # Halves are exact in binary, so that the identity gives whole numbers.
    offset = np.arange(size + 2 * margin) - (size - 1 + 2 * margin) / 2
    places = np.empty((2, offset.size, offset.size))
    for axis in (0, 1):
        middle = origin[axis] + (size - 1) / 2
        places[axis] = (middle + linear[axis, 0] * offset)[:, None] + linear[axis, 1] * offset
    if field is not None:
        places += field
    return places
