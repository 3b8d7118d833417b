"""An image and its labels in one frame, at any size; never more is read than that needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from bigunet.errors import InputError
from bigunet.images.image import Image, check_chunk_memory
from bigunet.images.pictures.colors import CHANNEL_COLORS, LARGEST
from bigunet.images.planes import Plane, image_planes
from bigunet.images.selection import choose_channels
from bigunet.images.transformations import micrometres

__all__ = ["MOST_READ", "Region", "Size", "Source"]

Array: TypeAlias = npt.NDArray[Any]
Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""
Region: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
"""First and last + 1 of rows and of columns, in pixels of the labels' finest level."""
Box: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""Like a region, in pixels of any level."""

MOST_CHUNK = 2**32  # bytes that one decoded chunk may take
MOST_READ = 2**26  # pixels of one plane read for one panel: a level above that is left alone


class Source:
    """Image and labels in one frame: pixels of the labels' finest level.

    ``(p + 0.5) * scale + translation`` is where pixel p of a level has its middle, so
    levels of different scale lie on each other, whatever levels the labels start at.
    """

    def __init__(
        self, image: Image, labels: Image, channels: Sequence[int | str] | None = None
    ) -> None:
        self.image, self.labels = image, labels
        everything = list(range(len(image.channels)))
        wanted = everything[: len(CHANNEL_COLORS)] if channels is None else channels
        if len(wanted) == 0:
            raise InputError("no channel was chosen: choose at least one, or leave channels out")
        self.channels = choose_channels(image, wanted, len(wanted))
        self.shape = labels.levels[0].shape[-2:]

    def pixels(self, region: Region, size: Size) -> Array:
        """Resample a region of the image to a size in pixels, (C, h, w)."""
        level, box = self._box(self.image, region, size)
        plane = _middle_plane(self.image, level, self.channels)
        pixels, box = _read(plane, box)
        if pixels.dtype == np.uint8:
            return np.stack([_resized(c, box, size) for c in pixels])
        if pixels.dtype == np.float64:
            pixels = pixels.clip(-LARGEST, LARGEST)
        return np.stack([_resized(c.astype(np.float32), box, size) for c in pixels])

    def ids(self, region: Region, size: Size) -> Array:
        """Take the nearest label for each pixel of a region resampled to a size, (h, w)."""
        level, box = self._box(self.labels, region, size)
        pixels, (y, x) = _read(_middle_plane(self.labels, level, (0,)), box)
        rows, columns = (
            np.clip((first + (np.arange(n) + 0.5) / n * (last - first)).astype(int), 0, most - 1)
            for (first, last), n, most in zip((y, x), size, pixels.shape[1:], strict=True)
        )
        ids: Array = pixels[0][rows[:, None], columns]
        return ids

    def smallest(self) -> int:
        """Count the pixels of the largest of the lowest levels of image and labels."""
        return max(math.prod(i.levels[-1].shape[-2:]) for i in (self.image, self.labels))

    def micrometres(self) -> float | None:
        """Return the side of a pixel of the labels' finest level in micrometres."""
        own = self.labels.pixel_size(0)
        if own is not None or self.shape != self.image.levels[0].shape[-2:]:
            return own
        return self.image.pixel_size(0)

    def _box(self, of: Image, region: Region, size: Size) -> tuple[int, Box]:
        """Choose the coarsest level that is fine enough, and find the region in it."""
        boxes = [_in_level(self.labels, region, of, k) for k in range(len(of.levels))]
        fine = [
            k
            for k, box in enumerate(boxes)
            if all((b - a) * 1.001 >= n for (a, b), n in zip(box, size, strict=True))
        ]
        level = max(fine, key=lambda k: math.prod(of.levels[k].scale[-2:]), default=0)
        rows, columns = (math.ceil(b - a) for a, b in boxes[level])
        if rows * columns > MOST_READ:
            raise InputError(
                f"{of.path}: {rows} x {columns} pixels would be read for a picture of "
                f"{size[0]} x {size[1]}, as there is no lower level: choose a --region"
            )
        return level, boxes[level]


def _in_level(frame: Image, region: Region, of: Image, level: int) -> Box:
    """Turn pixels of the frame's finest level into pixels of a level, y and x."""
    here, there = frame.levels[0], of.levels[level]
    found = []
    for axis, span in zip((-2, -1), region, strict=True):
        units = [micrometres(i.axes[axis].unit) for i in (frame, of)]
        unit = units[0] / units[1] if units[0] and units[1] else 1.0
        first, last = (
            ((n * here.scale[axis] + here.translation[axis]) * unit - there.translation[axis])
            / there.scale[axis]
            for n in span
        )
        found.append((first, last))
    return found[0], found[1]


def _middle_plane(image: Image, level: int, channels: tuple[int, ...]) -> Plane:
    """Take the first time point and the middle of z."""
    check_chunk_memory(image, level, MOST_CHUNK)
    z = image.axis_names.find("z")
    planes = image_planes(image, level, channels)
    return planes[image.levels[level].shape[z] // 2 if z >= 0 else 0]


def _read(plane: Plane, box: Box) -> tuple[Array, Box]:
    """Read what a box covers, at least a pixel, and say where the box is in it."""
    windows, inner = [], []
    for (first, last), n in zip(box, plane.shape[1:], strict=True):
        first, last = (min(max(at, 0.0), float(n)) for at in (first, last))
        start = min(int(first + 1e-6), n - 1)
        stop = max(start + 1, math.ceil(last - 1e-6))
        windows.append(slice(start, stop))
        low = min(max(first - start, 0.0), stop - start - 1e-3)
        inner.append((low, max(low + 1e-3, min(last - start, stop - start))))
    return plane.read(*windows), (inner[0], inner[1])


def _resized(channel: Array, box: Box, size: Size) -> Array:
    """Resample one channel; pixels are averaged where they are more than the size asks for."""
    (top, bottom), (left, right) = box
    whole = Pillow.fromarray(np.nan_to_num(channel, posinf=0, neginf=0))
    smooth = Pillow.Resampling.BILINEAR
    return np.asarray(whole.resize(size[::-1], smooth, box=(left, top, right, bottom)))
