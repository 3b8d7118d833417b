"""Panels put together to one picture, with titles, scale bars and a legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from bigunet.images.pictures.classes import LabelClass
from bigunet.images.pictures.colors import Color
from bigunet.images.pictures.panels import Panel
from bigunet.images.pictures.resampling import Region, Size

__all__ = ["draw_figure"]

Place: TypeAlias = tuple[int, int, int, int]
"""x, y, width and height in pixels of the picture."""
Render: TypeAlias = Callable[[Panel, Size], npt.NDArray[np.uint8]]
"""Draws the pixels of a panel, (height, width, 3)."""

PAPER, INK = (18, 18, 20), (225, 225, 225)
GAP, TEXT, LINE = 10, 14, 22  # px
MOST_NAMES = 12  # in the legend


def draw_figure(
    panels: Sequence[Panel],
    classes: Sequence[LabelClass],
    max_side: int,
    *,
    pixel: float | None,
    render: Render,
) -> Pillow.Image:
    """Draw panels, their titles and the legend.

    Parameters
    ----------
    panels : sequence of Panel
    classes : sequence of LabelClass
        What the legend names.
    max_side : int
        Longest side of the picture in pixels.
    pixel : float or None
        Side of a pixel of the labels' finest level in micrometres, for the scale bars.
    render : callable
        Draws a panel at a size.
    """
    font = ImageFont.load_default(TEXT)
    lines = 0
    for _ in range(3):  # the legend takes room, and how much depends on the room it has
        places, (width, height) = _layout(
            [panel.size for panel in panels], max_side, max_side - LINE * lines
        )
        legend, lines = _legend(classes, width, font.getlength)
    picture = Pillow.new("RGB", (width, height + LINE * lines), PAPER)
    pen = ImageDraw.Draw(picture)
    for panel, (x, y, w, h) in zip(panels, places, strict=True):
        drawn = Pillow.fromarray(render(panel, (h, w)))
        _draw_marks(drawn, panel, pixel, font)
        picture.paste(drawn, (x, y))
        pen.text((x, y - LINE + 3), _cut(panel.title, w, font), INK, font)
    for x, line, color, name in legend:
        y = height + line * LINE
        pen.rectangle((x, y, x + TEXT, y + TEXT), fill=color)
        pen.text((x + TEXT + 6, y - 1), name, INK, font)
    return picture


def _draw_marks(picture: Pillow.Image, panel: Panel, pixel: float | None, font: Any) -> None:
    """Draw the frame and the scale bar of a panel onto it."""
    down, across = picture.height / panel.size[0], picture.width / panel.size[1]
    if panel.frame:
        _draw_frame(picture, panel.frame, down, across)
    if pixel is not None:
        _draw_scale(picture, pixel / across, font)


def _draw_frame(picture: Pillow.Image, frame: Region, down: float, across: float) -> None:
    (top, bottom), (left, right) = frame
    box = [left * across, top * down, right * across, bottom * down]
    pen = ImageDraw.Draw(picture)
    for out, color, width in ((3, "black", 4), (2, "white", 2)):
        grown = [round(n) + d for n, d in zip(box, (-out, -out, out, out), strict=True)]
        pen.rectangle(grown, outline=color, width=width)


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
    sizes: Sequence[Size], most_wide: int, most_high: int
) -> tuple[list[Place], tuple[int, int]]:
    """Put panels of (height, width) beside or below each other, whatever makes them larger.

    Returns the place of each, and (width, height) of all.
    """
    count = len(sizes)
    # A panel is at least a pixel wide and high: one pixel of each is kept for that.
    row = max(count, most_wide - GAP * (count + 1) - count)
    column = max(count, most_high - (LINE + GAP) * count - GAP - count)
    most_wide, most_high = max(1, most_wide - 2 * GAP), max(1, most_high - LINE - 2 * GAP)
    height = min(row / sum(w / h for h, w in sizes), most_high)
    width = min(column / sum(h / w for h, w in sizes), most_wide)
    smallest_beside = height**2 * min(w / h for h, w in sizes)
    smallest_below = width**2 * min(h / w for h, w in sizes)
    # Beside, unless that makes them much smaller.
    is_row = 1.5 * smallest_beside >= smallest_below
    places = _beside(sizes, height) if is_row else _below(sizes, width)
    right = max(x + w for x, _, w, _ in places) + GAP
    return places, (right, max(y + h for _, y, _, h in places) + GAP)


def _beside(sizes: Sequence[Size], height: float) -> list[Place]:
    places, x = [], GAP
    for h, w in sizes:
        places.append((x, LINE + GAP // 2, _fit(height * w / h), _fit(height)))
        x += places[-1][2] + GAP
    return places


def _below(sizes: Sequence[Size], width: float) -> list[Place]:
    places, y = [], GAP
    for h, w in sizes:
        places.append((GAP, y + LINE - GAP // 2, _fit(width), _fit(width * h / w)))
        y += places[-1][3] + LINE + GAP // 2
    return places


def _fit(side: float) -> int:
    return max(1, int(side))


def _legend(
    classes: Sequence[LabelClass], width: int, measure: Callable[[str], float]
) -> tuple[list[tuple[int, int, Color, str]], int]:
    """Place swatches and names: (x, line, colour, name) of each, and the lines they take."""
    entries = [(c.color, c.name) for c in classes[:MOST_NAMES]]
    if len(classes) > MOST_NAMES:
        entries.append((PAPER, f"and {len(classes) - MOST_NAMES} more"))
    placed, x, line = [], GAP, 0
    for color, name in entries:
        need = TEXT + 6 + int(measure(name)) + 2 * GAP
        if x > GAP and x + need > width:
            x, line = GAP, line + 1
        placed.append((x, line, color, name))
        x += need
    return placed, line + 1 if placed else 0


def _cut(title: str, width: int, font: Any) -> str:
    """Shorten a title until it fits."""
    while title and font.getlength(title) > width:
        title = title[:-4].rstrip() + "..." if len(title) > 4 else ""
    return title
