"""Sizes that the unpadded U-Net takes and gives, along one axis."""

from __future__ import annotations

__all__ = [
    "balanced_tile",
    "input_size",
    "legal_output",
    "margin",
    "pooling_grid",
    "round_up",
]

# A 3×3 convolution eats one pixel a side; every level of the network has two.
_EATEN = 4


def pooling_grid(depth: int) -> int:
    """Return ``2**depth``, the raster in pixels on which tiles have to start."""
    if depth < 1:
        raise ValueError(f"depth is {depth}; a U-Net has at least one pooling level")
    return int(2**depth)


def margin(depth: int) -> int:
    """Return the pixels that the network eats on each side.

    Examples
    --------
    >>> margin(4), margin(3)
    (92, 44)
    """
    return 6 * pooling_grid(depth) - 4


def legal_output(size: int, depth: int) -> int:
    """Return the smallest output size, at least ``size``, that the network can give.

    Examples
    --------
    >>> legal_output(388, 4), legal_output(389, 4)
    (388, 404)
    """
    if size < 1:
        raise ValueError(f"output size is {size}; it has to be positive")
    grid = pooling_grid(depth)
    return size + (_EATEN - size) % grid


def input_size(output: int, depth: int) -> int:
    """Return the input size that gives a legal ``output`` size.

    Examples
    --------
    >>> input_size(388, 4)
    572
    """
    if legal_output(output, depth) != output:
        near = legal_output(output, depth)
        raise ValueError(f"no input gives {output} pixels at depth {depth}; the next is {near}")
    return output + 2 * margin(depth)


def round_up(size: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is at least ``size``."""
    return -(-size // step) * step


def balanced_tile(size: int, target: int, depth: int) -> int:
    """Return a tile length near ``target`` that leaves the last tile of ``size`` nearly full.

    Examples
    --------
    >>> balanced_tile(8192, 512, 4), balanced_tile(1100, 512, 4)
    (512, 560)
    """
    count = max(1, round(size / target))
    return round_up(-(-size // count), pooling_grid(depth))
