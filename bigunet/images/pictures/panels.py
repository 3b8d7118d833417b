"""Which parts of a slide a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.images.pictures.colors import label_edges
from bigunet.images.pictures.resampling import MOST_READ, Region, Size, Source

__all__ = ["Panel", "choose_panels"]

CROP = 512  # px of the labels' finest level that are shown at full resolution
SEARCH = 1024  # px on the longer side of the map in which the crop's place is looked for


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture in the picture."""

    title: str
    region: Region
    labelled: bool
    """Whether labels are drawn over the image."""
    outlined: bool = True
    frame: Region | None = None
    """What the other panels show."""

    @property
    def size(self) -> Size:
        """Height and width in pixels of the labels' finest level."""
        (top, bottom), (left, right) = self.region
        return bottom - top, right - left


def choose_panels(source: Source, name: str, region: Region | None) -> list[Panel]:
    """Show the whole slide beside a crop, or a region without and with its labels."""
    height, width = source.shape
    whole = ((0, height), (0, width))
    large = max(height, width) > 2 * CROP
    if region is not None or not large:
        shown = _checked_region(region, source.shape) if region else whole
        where = _place(shown) if region else f"{height} x {width} px"
        return [
            Panel(title=where, region=shown, labelled=False),
            Panel(title=f"labels {name}", region=shown, labelled=True),
        ]
    seen = source.smallest() <= MOST_READ
    crop = _busiest(source) if seen else _around((height // 2, width // 2), source.shape)
    parts = [
        Panel(title=f"full resolution, {_place(crop)}", region=crop, labelled=False),
        Panel(title=f"labels {name}", region=crop, labelled=True),
    ]
    title = f"whole slide, {height} x {width} px"
    overview = Panel(title=title, region=whole, labelled=True, outlined=False, frame=crop)
    return [overview, *parts] if seen else parts


def _busiest(source: Source) -> Region:
    """Find the window with most label borders, on a map of low resolution."""
    shape = source.shape
    step = max(1.0, max(shape) / SEARCH)
    size = (max(1, round(shape[0] / step)), max(1, round(shape[1] / step)))
    edges = label_edges(source.ids(((0, shape[0]), (0, shape[1])), size)).astype(np.float32)
    if not edges.any():
        return _around((shape[0] // 2, shape[1] // 2), shape)
    window = [min(n, max(1, round(CROP / step))) for n in size]
    crowd = ndimage.uniform_filter(edges, window, mode="constant")
    y, x = np.unravel_index(np.argmax(crowd), crowd.shape)
    return _around((int((y + 0.5) * step), int((x + 0.5) * step)), shape)


def _around(center: tuple[int, int], shape: Sequence[int]) -> Region:
    """Put the crop around a pixel, inside the slide."""
    spans = []
    for at, n in zip(center, shape, strict=True):
        side = min(CROP, n)
        start = min(max(0, at - side // 2), n - side)
        spans.append((start, start + side))
    return spans[0], spans[1]


def _checked_region(region: Region, shape: Sequence[int]) -> Region:
    for (first, last), n in zip(region, shape, strict=True):
        if not 0 <= first < last <= n:
            raise InputError(
                f"the region {_place(region)} is not inside the labels' {shape[0]} x {shape[1]} px"
            )
    return region


def _place(region: Region) -> str:
    (top, bottom), (left, right) = region
    return f"{top}:{bottom}, {left}:{right}"
