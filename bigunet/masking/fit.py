"""How a label lies on a level of its image: which of its levels, at which ratio of scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bigunet.errors import InputError
from bigunet.images.image import Image, sizes_text
from bigunet.images.transformations import micrometres

__all__ = ["Grid", "fit_grid", "grids_of", "outer_sizes", "pixel_ratio", "same_field"]

SLACK = 1e-6
"""Of an extent: scales are what somebody wrote down, such as 0.65 / 0.325."""
FINEST = 10**6
"""Largest denominator of a ratio: it is exact for scales of up to six digits."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of a level lie in the world, along y and x."""

    shape: tuple[int, int]
    """In pixels."""
    scale: tuple[float, float]
    """Length of a pixel."""
    start: tuple[float, float]
    """Where the level begins."""


def grids_of(image: Image, frame: Image | None = None) -> tuple[Grid, ...]:
    """Return the grid of each level, in the units of another image where both have units."""
    units = [_unit(image, frame or image, axis) for axis in (-2, -1)]
    return tuple(
        Grid(
            shape=(level.shape[-2], level.shape[-1]),
            scale=(level.scale[-2] * units[0], level.scale[-1] * units[1]),
            start=(level.translation[-2] * units[0], level.translation[-1] * units[1]),
        )
        for level in image.levels
    )


def fit_grid(level: Grid, label: Sequence[Grid], what: str) -> int:
    """Choose the level of a label whose pixels are nearest in size to those of a level.

    Raises
    ------
    InputError
        If the label does not cover the same field; names both sizes. `what` is the label.
    """
    nearest = min(range(len(label)), key=lambda k: _distance(level, label[k]))
    if not same_field(level, label[nearest]):
        raise InputError(
            f"{what} covers {_extent_text(label[nearest], level)} px at "
            f"{_start_text(label[nearest], level)}, and the level that is segmented has "
            f"{sizes_text(level.shape)} px: a mask has to cover the slide; choose another, "
            "or --mask auto"
        )
    return nearest


def same_field(one: Grid, other: Grid) -> bool:
    """Tell whether two levels cover the same field, up to a pixel of the coarser one.

    Levels of one shape do, whatever is said of their scales.
    """
    if one.shape == other.shape:
        return True
    for axis in (0, 1):
        extents = [grid.shape[axis] * grid.scale[axis] for grid in (one, other)]
        slack = max(one.scale[axis], other.scale[axis]) + SLACK * max(extents)
        shift = one.start[axis] - other.start[axis]
        if abs(extents[0] - extents[1]) > slack or abs(shift) > slack:
            return False
    return True


def pixel_ratio(level: Grid, label: Grid) -> tuple[Fraction, Fraction]:
    """Return the pixels of a label in one of a level, along y and x."""
    if level.shape == label.shape:
        return Fraction(1), Fraction(1)
    y, x = (
        Fraction(a / b).limit_denominator(FINEST)
        for a, b in zip(level.scale, label.scale, strict=True)
    )
    return y, x


def outer_sizes(image: Image, level: int, labels: Image) -> tuple[tuple[int, int], ...]:
    """Return planes of a level and of a label along t and z, as far as the image has them.

    Raises
    ------
    InputError
        If the label has more than one plane along t or z, and not as many as the level.
    """
    here = dict(zip(image.axis_names, image.levels[level].shape, strict=True))
    there = dict(zip(labels.axis_names, labels.levels[0].shape, strict=True))
    for axis in "tz":
        if there.get(axis, 1) not in (1, here.get(axis, 1)):
            raise InputError(
                f"{labels.path} has {there[axis]} planes along {axis} and the level that is "
                f"segmented has {here.get(axis, 1)}: a mask has as many, or one for all"
            )
    return tuple((here[axis], there.get(axis, 1)) for axis in "tz" if axis in here)


def _unit(image: Image, frame: Image, axis: int) -> float:
    own, wanted = (micrometres(one.axes[axis].unit) for one in (image, frame))
    return own / wanted if own and wanted else 1.0


def _distance(level: Grid, label: Grid) -> float:
    if level.shape == label.shape:
        return 0.0
    return sum(abs(math.log(a / b)) for a, b in zip(level.scale, label.scale, strict=True))


def _extent_text(label: Grid, level: Grid) -> str:
    sizes = zip(label.shape, label.scale, level.scale, strict=True)
    return " × ".join(f"{n * own / scale:.6g}" for n, own, scale in sizes)


def _start_text(label: Grid, level: Grid) -> str:
    pairs = zip(label.start, level.start, level.scale, strict=True)
    return f"({', '.join(f'{(own - start) / scale:.6g}' for own, start, scale in pairs)})"
