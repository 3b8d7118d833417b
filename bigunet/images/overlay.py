"""Draw an image and its labels into one picture that is small enough to look at.

Of a large slide it shows the whole from a low level, and one window at full
resolution where there is most to judge; never more is read than the picture needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.files import check_new_file, written_aside
from bigunet.images.open import open_image, open_labels
from bigunet.images.pictures.classes import class_colors, label_classes
from bigunet.images.pictures.colors import composite, label_edges, paint_labels
from bigunet.images.pictures.figure import draw_figure
from bigunet.images.pictures.panels import Panel, choose_panels
from bigunet.images.pictures.resampling import Region, Size, Source

__all__ = ["overlay", "write_preview"]

Array: TypeAlias = npt.NDArray[Any]

FILL = 0.35  # how much of the label's colour covers the image
FILL_ALONE = 0.6  # where no outline is drawn


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
    picture = composite(image, channel_colors)
    paint, seen = paint_labels(labels, colors or {})
    part = FILL if outlined else FILL_ALONE
    picture = np.where(seen[..., None], (1 - part) * picture + part * paint, picture)
    if outlined:
        line = seen & label_edges(labels)
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
    overwrite: bool = False,
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
        PNG file to write.
    region : ((int, int), (int, int)), optional
        First and last + 1 of rows and of columns, in pixels of the labels' finest level.
    max_side : int
        Longest side of the picture in pixels, at least 200.
    channels : sequence of int or str, optional
        Channels to draw; all (at most six) by default.
    overwrite : bool
        Replace a file that is there.

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
    OutputExistsError
        If the file is there and `overwrite` is not given.
    OutputError
        If the picture cannot be written.
    RunError
        If a chunk cannot be read, or the disk is full; no picture is left then.

    Notes
    -----
    Of several time points the first is drawn, of several z planes the middle one.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: the picture is a PNG, so its name must end in .png")
    check_new_file(out, overwrite=overwrite)
    if max_side < 200:
        raise InputError(f"a picture of {max_side} pixels is too small to draw: at least 200")
    image = open_image(path)
    source = Source(image, open_labels(image, labels), channels)
    panels = choose_panels(source, labels if labels in image.labels else Path(labels).name, region)
    classes = label_classes(source.labels)
    render = partial(_render, source, class_colors(classes))
    pixel = source.micrometres()
    with written_aside(out) as aside:
        picture = draw_figure(panels, classes, max_side, pixel=pixel, render=render)
        picture.save(aside, format="PNG")
    return out


def _render(
    source: Source, colors: Mapping[int, Sequence[int]], panel: Panel, size: Size
) -> npt.NDArray[np.uint8]:
    pixels = source.pixels(panel.region, size)
    ids = source.ids(panel.region, size) if panel.labelled else np.zeros(size, np.uint8)
    stated = [source.image.channels[c].color for c in source.channels]
    channel_colors = [color and color[:6] for color in stated]
    return overlay(pixels, ids, colors, outlined=panel.outlined, channel_colors=channel_colors)


def _check_arrays(image: Array, labels: Array) -> None:
    if image.ndim not in (2, 3) or labels.shape != image.shape[-2:]:
        raise InputError(
            f"an image of shape {image.shape} and labels of shape {labels.shape} do not match: "
            "give (Y, X) or (C, Y, X), and (Y, X)"
        )
    if labels.dtype.kind not in "iub":
        raise InputError(f"labels of type {labels.dtype}: they must be integers")
