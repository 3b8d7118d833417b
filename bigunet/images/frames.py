"""Where the pixels of a label lie on the image that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bigunet.errors import InputError
from bigunet.images.image import Image, sizes_text
from bigunet.images.transformations import relative_scales

__all__ = ["LabelFrame", "label_frame"]


@dataclass(frozen=True, kw_only=True)
class LabelFrame:
    """How to get from pixels of a label to those of an image's level 0.

    Corners of pixels, counted from the first pixel's, are multiplied: every level of an
    image covers the same field.
    """

    level: int
    """Of the image: its pixels are the label's."""
    scale: tuple[float, float]
    """(y, x): pixels of level 0 in one of the label."""
    plane_scale: tuple[float, ...]
    """Planes of level 0 in one of the label, along t and z as far as there are such axes."""

    def plane(self, index: Sequence[int]) -> tuple[int, ...]:
        """Return the plane of level 0 at a plane of the label."""
        return tuple(int(i * by) for i, by in zip(index, self.plane_scale, strict=True))


def label_frame(image: Image, labels: Image) -> LabelFrame:
    """Find the level of an image that a label was made on, by its shape.

    Raises
    ------
    InputError
        If the label has the shape of no level.
    """
    wanted = _sizes(labels, 0)
    for number in range(len(image.levels)):
        if _sizes(image, number) == wanted:
            return _frame(image, number, labels.axis_names[:-2])
    shapes = ", ".join(sizes_text(level.shape) for level in image.levels)
    raise InputError(
        f"{labels.path} has {sizes_text(labels.levels[0].shape)} ({labels.axis_names}) pixels, "
        f"and no level of {image.path} has as many: {shapes} ({image.axis_names})"
    )


def _sizes(image: Image, level: int) -> list[int]:
    """Return the sizes along t, z, y and x; an axis that is not there has one plane."""
    named = dict(zip(image.axis_names, image.levels[level].shape, strict=True))
    return [named.get(name, 1) for name in "tzyx"]


def _frame(image: Image, number: int, others: str) -> LabelFrame:
    first, level = image.levels[0], image.levels[number]
    by_scale = [b / a for a, b in zip(first.scale, level.scale, strict=True)]
    # Scales are what somebody wrote down: 0.65 / 0.325 may be off in the last digit.
    by_shape = relative_scales([first.shape, level.shape])[1]
    pairs = zip(by_scale, by_shape, strict=True)
    factors = [shape if abs(scale - shape) < 1e-6 * shape else scale for scale, shape in pairs]
    named = dict(zip(image.axis_names, factors, strict=True))
    return LabelFrame(
        level=number,
        scale=(named["y"], named["x"]),
        plane_scale=tuple(named.get(name, 1.0) for name in others),
    )
