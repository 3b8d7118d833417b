"""Draw an image and its labels into one picture that is small enough to look at.

Of a large slide it shows the whole from a low level, and one window at full
resolution where there is most to judge; never more is read than the picture needs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from bigunet.errors import InputError, NotFoundError, OutputError
from bigunet.images.ngff import micrometres, read_group
from bigunet.images.open import (
    Image,
    Plane,
    check_chunk_memory,
    choose_channels,
    image_planes,
    open_image,
)

__all__ = ["overlay", "write_preview"]

Array = npt.NDArray[Any]
Color = tuple[int, int, int]
Region = tuple[tuple[int, int], tuple[int, int]]

CROP = 512  # px of the labels' finest level that are shown at full resolution
SEARCH = 1024  # px on the longer side of the map in which the crop's place is looked for
MOST_CHUNK = 2**32  # bytes that one decoded chunk may take
MOST_READ = 2**26  # pixels of one plane read for one panel: a level above that is left alone
FILL = 0.35  # how much of the label's colour covers the image
MOST = 3e38  # what float32 can hold
PERCENTILES = (1.0, 99.8)  # become black and white
CHANNEL_COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
PAPER, INK = (18, 18, 20), (225, 225, 225)
GAP, TEXT, LINE = 10, 14, 22  # px
MOST_NAMES = 12  # in the legend


@dataclass(frozen=True, kw_only=True)
class _Class:
    """A label value that has a colour or a name in the metadata."""

    value: int
    name: str
    rgba: tuple[int, int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One picture in the picture."""

    title: str
    region: Region
    """In pixels of the labels' finest level."""
    labelled: bool
    """Whether labels are drawn over the image."""
    outlined: bool = True
    frame: Region | None = None
    """What the other panels show, in pixels of the labels' finest level."""

    @property
    def size(self) -> tuple[int, int]:
        (top, bottom), (left, right) = self.region
        return bottom - top, right - left


def overlay(
    image: Array,
    labels: Array,
    colors: Mapping[int, Sequence[int]] | None = None,
    *,
    outlined: bool = True,
    channel_colors: Sequence[str | None] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw labels over an image: a translucent fill and an outline for each.

    Parameters
    ----------
    image : (Y, X) or (C, Y, X) array
        One channel is drawn grey, three of uint8 as they are, others in their
        colours; contrast is stretched between the 1st and the 99.8th percentile.
    labels : (Y, X) integer array
        0 is background.
    colors : mapping of int to (r, g, b) or (r, g, b, a), optional
        Colours of label values, 0 to 255; a value of alpha 0 is not drawn. Other
        values get colours of their own.
    outlined : bool
        Whether outlines are drawn; the fill is stronger without.
    channel_colors : sequence of RRGGBB, optional
        Colours of the channels of `image`.

    Returns
    -------
    (Y, X, 3) uint8 array

    Raises
    ------
    InputError
        If the shapes do not match, or labels are not integers.

    Examples
    --------
    >>> overlay(np.zeros((3, 3)), np.eye(3, dtype=int), {1: (255, 0, 0)})[0, 0]
    array([255,   0,   0], dtype=uint8)
    """
    image, labels = np.asarray(image), np.asarray(labels)
    _check_arrays(image, labels)
    picture = _picture(image, channel_colors)
    paint, seen = _paint(labels, colors or {})
    part = FILL if outlined else 0.6
    picture = np.where(seen[..., None], (1 - part) * picture + part * paint, picture)
    if outlined:
        line = seen & _edges(labels)
        picture[line] = paint[line]
    return np.rint(picture).astype(np.uint8)


def write_preview(
    path: str | os.PathLike[str],
    labels: str,
    out: str | os.PathLike[str],
    *,
    region: Region | None = None,
    max_side: int = 1600,
    channels: Sequence[int | str] | None = None,
) -> Path:
    """Draw an OME-Zarr image and one of its labels into a PNG.

    A slide of more than 1,024 pixels on a side is shown whole, from a low level,
    beside a window of 512 x 512 pixels where most label borders are. Smaller ones,
    and a given region, are shown without and with their labels.

    Parameters
    ----------
    path : path
        The image.
    labels : str
        Name of labels inside the image, or path of a label image elsewhere.
    out : path
        PNG file to write; replaced if it is there.
    region : ((int, int), (int, int)), optional
        First and last + 1 of rows and of columns, in pixels of the labels' finest level.
    max_side : int
        Longest side of the picture in pixels, at least 200.
    channels : sequence of int or str, optional
        Channels to draw; all (at most six) by default.

    Returns
    -------
    Path
        The picture.

    Raises
    ------
    NotFoundError
        If there is no such image, or it has no such labels; names those it has.
    InputError
        If labels are not integers, or the region or another argument is out of range.
    OutputError
        If the picture cannot be written.
    RunError
        If a chunk cannot be read.

    Notes
    -----
    Of several time points the first is drawn, of several z planes the middle one.
    """
    out = _checked_out(Path(out))
    if max_side < 200:
        raise InputError(f"a picture of {max_side} pixels is too small to draw: at least 200")
    image = open_image(path)
    truth = _open_labels(image, labels)
    source = _Source(image, truth, channels)
    title = labels if labels in image.labels else Path(labels).name
    panels = _panels(source, title, region)
    picture = _draw(source, panels, max_side)
    try:
        picture.save(out, format="PNG")
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error}") from error
    return out


class _Source:
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
        names = [image.channels[c].color for c in self.channels]
        self.channel_colors: list[str | None] = [name and name[:6] for name in names]
        self.classes = _classes(labels)
        self.shape = labels.levels[0].shape[-2:]

    @property
    def colors(self) -> dict[int, tuple[int, int, int, int]]:
        return {c.value: c.rgba for c in self.classes if c.rgba is not None}

    def pixels(self, region: Region, size: tuple[int, int]) -> Array:
        """Resample a region of the image to a size in pixels, (C, h, w)."""
        level, box = self._box(self.image, region, size)
        plane = _middle_plane(self.image, level, self.channels)
        pixels, box = _read(plane, box)
        if pixels.dtype == np.uint8:
            return np.stack([_resized(c, box, size) for c in pixels])
        if pixels.dtype == np.float64:
            pixels = pixels.clip(-MOST, MOST)
        return np.stack([_resized(c.astype(np.float32), box, size) for c in pixels])

    def ids(self, region: Region, size: tuple[int, int]) -> Array:
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
        if own is not None or self.labels.levels[0].shape[-2:] != self.image.levels[0].shape[-2:]:
            return own
        return self.image.pixel_size(0)

    def _box(
        self, of: Image, region: Region, size: tuple[int, int]
    ) -> tuple[int, tuple[tuple[float, float], tuple[float, float]]]:
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


# Where things are


def _open_labels(image: Image, name: str) -> Image:
    elsewhere = Path(name)
    if name in image.labels:
        elsewhere = image.path / "labels" / name
    elif not ((elsewhere / "zarr.json").is_file() or (elsewhere / ".zattrs").is_file()):
        those = f"it has {', '.join(image.labels)}" if image.labels else "it has none"
        raise NotFoundError(f"{image.path} has no labels {name!r}: {those}")
    labels = open_image(elsewhere)
    dtype = np.dtype(labels.levels[0].dtype)
    if dtype.kind not in "iu" or "c" in labels.axis_names:
        raise InputError(
            f"{labels.path} is not a label image: its axes are {labels.axis_names} and its "
            f"type is {dtype}; labels are integers and have no channels"
        )
    return labels


def _in_level(
    frame: Image, region: Region, of: Image, level: int
) -> tuple[tuple[float, float], tuple[float, float]]:
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


def _read(
    plane: Plane, box: tuple[tuple[float, float], ...]
) -> tuple[Array, tuple[tuple[float, float], tuple[float, float]]]:
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


def _resized(
    channel: Array, box: tuple[tuple[float, float], tuple[float, float]], size: tuple[int, int]
) -> Array:
    """Resample one channel; pixels are averaged where they are more than the size asks for."""
    (top, bottom), (left, right) = box
    whole = Pillow.fromarray(np.nan_to_num(channel, posinf=0, neginf=0))
    smooth = Pillow.Resampling.BILINEAR
    return np.asarray(whole.resize(size[::-1], smooth, box=(left, top, right, bottom)))


# Which panels


def _panels(source: _Source, name: str, region: Region | None) -> list[_Panel]:
    height, width = source.shape
    whole = ((0, height), (0, width))
    large = max(height, width) > 2 * CROP
    if region is not None or not large:
        shown = _checked_region(region, source.shape) if region else whole
        where = _place(shown) if region else f"{height} x {width} px"
        return [
            _Panel(title=where, region=shown, labelled=False),
            _Panel(title=f"labels {name}", region=shown, labelled=True),
        ]
    seen = source.smallest() <= MOST_READ
    crop = _busiest(source) if seen else _around((height // 2, width // 2), source.shape)
    parts = [
        _Panel(title=f"full resolution, {_place(crop)}", region=crop, labelled=False),
        _Panel(title=f"labels {name}", region=crop, labelled=True),
    ]
    title = f"whole slide, {height} x {width} px"
    overview = _Panel(title=title, region=whole, labelled=True, outlined=False, frame=crop)
    return [overview, *parts] if seen else parts


def _busiest(source: _Source) -> Region:
    """Find the window with most label borders, on a map of low resolution."""
    shape = source.shape
    step = max(1.0, max(shape) / SEARCH)
    size = (max(1, round(shape[0] / step)), max(1, round(shape[1] / step)))
    edges = _edges(source.ids(((0, shape[0]), (0, shape[1])), size)).astype(np.float32)
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


def _checked_out(out: Path) -> Path:
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: the picture is a PNG, so its name must end in .png")
    if out.is_dir() or not out.parent.is_dir():
        problem = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise OutputError(f"{out} cannot be written: {problem}")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise OutputError(f"{out} cannot be written: permission denied")
    return out


def _place(region: Region) -> str:
    (top, bottom), (left, right) = region
    return f"{top}:{bottom}, {left}:{right}"


# Colours


def _check_arrays(image: Array, labels: Array) -> None:
    if image.ndim not in (2, 3) or labels.shape != image.shape[-2:]:
        raise InputError(
            f"an image of shape {image.shape} and labels of shape {labels.shape} do not match: "
            "give (Y, X) or (C, Y, X), and (Y, X)"
        )
    if labels.dtype.kind not in "iub":
        raise InputError(f"labels of type {labels.dtype}: they must be integers")


def _picture(image: Array, channel_colors: Sequence[str | None] | None = None) -> Array:
    """Turn an image into (Y, X, 3) float, 0 to 255."""
    stack = image[None] if image.ndim == 2 else image
    if stack.shape[0] == 3 and stack.dtype == np.uint8:
        return np.moveaxis(stack, 0, -1).astype(np.float32)
    if stack.shape[0] == 1:
        return np.repeat(_stretched(stack[0])[..., None], 3, axis=-1)
    given = list(channel_colors or [])[: stack.shape[0]]
    given += [None] * (stack.shape[0] - len(given))
    picture = np.zeros((*stack.shape[1:], 3), np.float32)
    for k, (channel, color) in enumerate(zip(stack, given, strict=True)):
        fallback = CHANNEL_COLORS[k % len(CHANNEL_COLORS)]
        rgb = _hex(color) or _hex(fallback) or (255, 255, 255)
        picture += _stretched(channel)[..., None] * (np.array(rgb, np.float32) / 255)
    return np.minimum(picture, 255)


def _hex(color: str | None) -> Color | None:
    try:
        value = int(color or "", 16)
    except ValueError:
        return None
    return value >> 16 & 255, value >> 8 & 255, value & 255


def _stretched(channel: Array) -> Array:
    """Stretch the contrast between percentiles, to 0 to 255."""
    values = np.nan_to_num(channel.astype(np.float64), posinf=0, neginf=0).clip(-MOST, MOST)
    low, high = np.percentile(values, PERCENTILES)
    spread = (high - low) or (values.max() - low) or 1.0
    stretched: Array = np.clip((values - low) / spread, 0, 1).astype(np.float32) * np.float32(255)
    return stretched


def _paint(
    labels: Array, colors: Mapping[int, Sequence[int]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the colour of each pixel's label, (Y, X, 3), and where one is drawn."""
    values, place = np.unique(labels, return_inverse=True)
    table = _distinct(values)
    drawn = values != 0
    for k, value in enumerate(values.tolist()):
        if value in colors and value != 0:
            rgba = colors[value]
            table[k] = rgba[:3]
            drawn[k] = len(rgba) < 4 or rgba[3] > 0
    place = place.reshape(labels.shape)
    return table[place], drawn[place]


def _distinct(values: Array) -> npt.NDArray[np.float32]:
    """Give each id a bright colour by hashing it, (n, 3): neighbours' ids look different."""
    mixed = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    hue = (mixed >> np.uint64(40)).astype(np.float32)[:, None] / np.float32(2**24)
    light = 0.75 + 0.25 * (mixed >> np.uint64(20) & np.uint64(1)).astype(np.float32)[:, None]
    turn = np.abs((hue + np.array([0, 2 / 3, 1 / 3], np.float32)) % 1 * 6 - 3) - 1
    return np.asarray(255 * light * (0.2 + 0.8 * np.clip(turn, 0, 1)), np.float32)


def _edges(labels: Array) -> npt.NDArray[np.bool_]:
    """Find pixels of an object that have another label beside them."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        first, second = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        differ = first != second
        along = np.moveaxis(edge, axis, 0)
        along[:-1] |= differ
        along[1:] |= differ
    edge &= labels != 0
    return edge


def _classes(labels: Image) -> list[_Class]:
    """Read colours and names of label values, as far as the metadata is usable."""
    group = read_group(labels.path)
    stated = group.ome.get("image-label") if group else None
    stated = stated if isinstance(stated, Mapping) else {}
    colors = {k: _rgba(entry.get("rgba")) for k, entry in _entries(stated.get("colors"))}
    names = {k: _entry_name(entry) for k, entry in _entries(stated.get("properties"))}
    values = sorted((colors.keys() | {k for k, name in names.items() if name}) - {0})
    return [_Class(value=k, name=names.get(k) or str(k), rgba=colors.get(k)) for k in values]


def _entries(listed: Any) -> list[tuple[int, Mapping[str, Any]]]:
    entries = [e for e in listed if isinstance(e, Mapping)] if isinstance(listed, list) else []
    values = ((entry.get("label-value"), entry) for entry in entries)
    return [(value, entry) for value, entry in values if isinstance(value, int)]


def _entry_name(entry: Mapping[str, Any]) -> str:
    found = (entry.get(key) for key in ("name", "class", "label", "title"))
    name = next((value for value in found if isinstance(value, str)), "")
    return "".join(c for c in name if c.isprintable())[:40]


def _rgba(value: Any) -> tuple[int, int, int, int] | None:
    if not isinstance(value, list) or len(value) not in (3, 4):
        return None
    if not all(isinstance(v, int | float) and 0 <= v <= 255 for v in value):
        return None
    r, g, b, a = (*map(int, value), 255)[:4]
    return r, g, b, a


# The picture


def _draw(source: _Source, panels: list[_Panel], max_side: int) -> Pillow.Image:
    """Draw panels, their titles and the legend."""
    font = ImageFont.load_default(TEXT)
    text = ImageDraw.Draw(Pillow.new("RGB", (1, 1)))
    lines = 0
    for _ in range(3):  # the legend takes room, and how much depends on the room it has
        sizes = [p.size for p in panels]
        places, (width, height) = _layout(sizes, max_side, max_side - LINE * lines)
        legend, lines = _legend(source, width, lambda s: text.textlength(s, font=font))
    picture = Pillow.new("RGB", (width, height + LINE * lines), PAPER)
    for panel, (x, y, w, h) in zip(panels, places, strict=True):
        picture.paste(_drawn(source, panel, (h, w), font), (x, y))
        pen = ImageDraw.Draw(picture)
        pen.text((x, y - LINE + 3), _cut(panel.title, w, font), INK, font)
    pen = ImageDraw.Draw(picture)
    for x, line, color, name in legend:
        y = height + line * LINE
        pen.rectangle((x, y, x + TEXT, y + TEXT), fill=color)
        pen.text((x + TEXT + 6, y - 1), name, INK, font)
    return picture


def _drawn(source: _Source, panel: _Panel, size: tuple[int, int], font: Any) -> Pillow.Image:
    """Draw one panel with its frame and scale bar."""
    pixels = source.pixels(panel.region, size)
    ids = source.ids(panel.region, size) if panel.labelled else np.zeros(size, np.uint8)
    drawn = overlay(
        pixels,
        ids,
        source.colors,
        outlined=panel.outlined,
        channel_colors=source.channel_colors,
    )
    picture = Pillow.fromarray(drawn)
    down, across = (n / most for n, most in zip(size, panel.size, strict=True))
    if panel.frame:
        (top, bottom), (left, right) = panel.frame
        box = [left * across, top * down, right * across, bottom * down]
        pen = ImageDraw.Draw(picture)
        for out, color, width in ((3, "black", 4), (2, "white", 2)):
            grown = [round(n) + d for n, d in zip(box, (-out, -out, out, out), strict=True)]
            pen.rectangle(grown, outline=color, width=width)
    pixel = source.micrometres()
    if pixel is not None:
        _draw_scale(picture, pixel / across, font)
    return picture


def _draw_scale(picture: Pillow.Image, pixel: float, font: Any) -> None:
    """Draw a bar of a round length; ``pixel`` is in micrometres."""
    length = _round_length(0.3 * picture.width * pixel)
    if length is None or picture.height < 3 * LINE or picture.width < 6 * LINE:
        return
    pen = ImageDraw.Draw(picture)
    right, bottom = picture.width - GAP, picture.height - GAP
    left = right - round(length / pixel)
    pen.rectangle((left - 1, bottom - 5, right + 1, bottom + 1), fill="black")
    pen.rectangle((left, bottom - 4, right, bottom), fill="white")
    # Pillow's own font has no letter beyond ASCII, so no µ.
    unit, factor = ("nm", 1000) if length < 1 else ("mm", 0.001) if length >= 1000 else ("um", 1)
    at = ((left + right) // 2, bottom - 8)
    name = f"{length * factor:g} {unit}"
    pen.text(at, name, "white", font, anchor="mb", stroke_width=2, stroke_fill="black")


def _round_length(most: float) -> float | None:
    """Return the largest 1, 2 or 5 times a power of ten that is not above."""
    if not (math.isfinite(most) and most > 0):
        return None
    power = 10.0 ** math.floor(math.log10(most))
    return max(f for f in (power / 2, power, 2 * power, 5 * power) if f <= most)


def _layout(
    sizes: list[tuple[int, int]], most_wide: int, most_high: int
) -> tuple[list[tuple[int, int, int, int]], tuple[int, int]]:
    """Put panels of (height, width) beside or below each other, whatever makes them larger.

    Returns (x, y, width, height) of each, and (width, height) of all.
    """
    count = len(sizes)
    # A panel is at least a pixel wide and high: one pixel of each is kept for that.
    row = max(count, most_wide - GAP * (count + 1) - count)
    column = max(count, most_high - (LINE + GAP) * count - GAP - count)
    most_wide, most_high = max(1, most_wide - 2 * GAP), max(1, most_high - LINE - 2 * GAP)
    row_height = min(row / sum(w / h for h, w in sizes), most_high)
    column_width = min(column / sum(h / w for h, w in sizes), most_wide)
    areas = (
        row_height**2 * min(w / h for h, w in sizes),
        column_width**2 * min(h / w for h, w in sizes),
    )
    beside = 1.5 * areas[0] >= areas[1]  # beside, unless that makes them much smaller
    places, at = [], GAP
    for h, w in sizes:
        if beside:
            wide, high = _fit(row_height * w / h), _fit(row_height)
            places.append((at, LINE + GAP // 2, wide, high))
            at += wide + GAP
        else:
            wide, high = _fit(column_width), _fit(column_width * h / w)
            places.append((GAP, at + LINE - GAP // 2, wide, high))
            at += high + LINE + GAP // 2
    right = max(x + w for x, _, w, _ in places) + GAP
    return places, (right, max(y + h for _, y, _, h in places) + GAP)


def _fit(side: float) -> int:
    return max(1, int(side))


def _legend(
    source: _Source, width: int, measure: Any
) -> tuple[list[tuple[int, int, Color, str]], int]:
    """Place swatches and names: (x, line, colour, name) of each, and the lines they take."""
    shown = source.classes[:MOST_NAMES]
    entries: list[tuple[Color, str]] = []
    for c in shown:
        rgb = (
            c.rgba[:3] if c.rgba else tuple(_distinct(np.array([c.value]))[0].astype(int).tolist())
        )
        entries.append((rgb, c.name))
    if len(source.classes) > len(shown):
        entries.append((PAPER, f"and {len(source.classes) - len(shown)} more"))
    placed, x, line = [], GAP, 0
    for rgb, name in entries:
        need = TEXT + 6 + int(measure(name)) + 2 * GAP
        if x > GAP and x + need > width:
            x, line = GAP, line + 1
        placed.append((x, line, rgb, name))
        x += need
    return placed, line + 1 if placed else 0


def _cut(title: str, width: int, font: Any) -> str:
    """Shorten a title until it fits."""
    while title and font.getlength(title) > width:
        title = title[:-4].rstrip() + "..." if len(title) > 4 else ""
    return title
