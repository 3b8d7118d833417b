"""The nuclei of the sample slide: which there are, where, and of what shape.

Nothing here depends on how the slide is cut. Nuclei stand on a lattice of cells, and
all that is random about one is a function of seed and cell; whether it gives way to
a neighbour depends on the cells around.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from bigunet.images.synthetic.fields import (
    Floats,
    Positions,
    Stream,
    draw_words,
    smooth_field,
    uniform,
)

__all__ = ["MARGIN", "PITCH", "Nuclei", "Slide", "place_nuclei", "tissue_density"]

PITCH = 19  # px between cells that may hold a nucleus
REACH = 24  # px, a little more than the largest radius of a nucleus
OVERLAP = 0.8  # centres nearer than this share of both radii: one nucleus gives way
MARGIN = 4  # cells beyond the slide's border whose nuclei reach in
MITOTIC = 0.03  # share of nuclei that are small and bright
SPARE = 3  # cells in which a neighbour may stand that is too close


@dataclass(frozen=True, kw_only=True)
class Slide:
    """What the pixels are a pure function of."""

    height: int
    """Rows, in pixels."""
    width: int
    """Columns, in pixels."""
    seed: int = 0
    """0 to 2**64 - 1."""

    @property
    def tissue_pitch(self) -> float:
        """Scale of tissue and emptiness in pixels; small slides have both, too."""
        return min(max(max(self.height, self.width) / 5, 96.0), 2048.0)

    @property
    def cells(self) -> tuple[int, int]:
        """Cells down and across, those around the slide included."""
        down, across = (-(-n // PITCH) + 2 * MARGIN for n in (self.height, self.width))
        return down, across


@dataclass(frozen=True, kw_only=True)
class Nuclei:
    """Nuclei in raster order of their cells; all arrays (n,), or (rows, columns) of cells."""

    ids: npt.NDArray[np.uint32]
    y: Floats
    x: Floats
    cos: Floats
    sin: Floats
    long: Floats
    short: Floats
    lobes: Floats
    corners: Floats
    brightness: Floats
    defocus: Floats

    def select(self, chosen: npt.NDArray[np.bool_]) -> Nuclei:
        """Take some of the nuclei."""
        return Nuclei(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def tissue_density(slide: Slide, ys: npt.NDArray[Any], xs: npt.NDArray[Any]) -> Floats:
    """Say how densely cells are filled: below 0 empty glass, above 1 packed; float32."""
    pitch = slide.tissue_pitch
    wide = smooth_field(slide.seed, Stream.TISSUE, pitch, ys, xs)
    fine = smooth_field(slide.seed, Stream.CLUSTERS, pitch / 3.7, ys, xs)
    down, across = (2 * ys + 1) / slide.height - 1, (2 * xs + 1) / slide.width - 1
    edge = (down * down).astype(np.float32)[:, None] + (across * across).astype(np.float32)
    return 2.6 * (0.62 * wide + 0.38 * fine) - 0.85 - 0.45 * edge


def place_nuclei(slide: Slide, ys: Positions, xs: Positions) -> Nuclei:
    """Place the nuclei that may reach into a canvas; those too close give way."""
    rows, columns = (
        range((int(at[0]) - REACH) // PITCH - SPARE, (int(at[-1]) + REACH) // PITCH + SPARE + 1)
        for at in (ys, xs)
    )
    u = np.moveaxis(uniform(draw_words(slide.seed, Stream.CELLS, rows, columns, 13)), -1, 0)
    middle = [(np.arange(at.start, at.stop) + 0.5) * PITCH for at in (rows, columns)]
    tissue = tissue_density(slide, *middle).astype(np.float64)
    cells = _candidates(_ids(slide, rows, columns), u, tissue, *middle)
    alive = u[9] < np.clip(1.35 * tissue, 0, 0.97)
    alive &= ~_crowded_out(cells, np.where(alive, u[10], 2.0))
    return cells.select(alive & (cells.ids > 0))


def _candidates(
    ids: npt.NDArray[np.uint32], u: Floats, tissue: Floats, y: Floats, x: Floats
) -> Nuclei:
    """Make a nucleus for every cell, from its random numbers u (13, rows, columns)."""
    mitotic = u[2] < MITOTIC
    radius = 8.2 + 5.5 * u[3] * u[3] + 1.5 * u[4] - 1.2 * np.clip(tissue, 0, 1)
    stretch = np.sqrt(1 + 0.85 * u[5] * u[5] + 0.15 * u[6])
    radius, stretch = np.where(mitotic, (5.5 + 2 * u[3], 1.1 + 0.25 * u[5]), (radius, stretch))
    turn = np.sqrt((u[7] - 0.5) ** 2 + (u[8] - 0.5) ** 2) + 1e-9
    glow = 0.45 + 0.75 * u[11] + 0.6 * u[11] ** 6 + 0.25 * u[4]
    return Nuclei(
        ids=ids,
        y=y[:, None] + PITCH * 0.7 * (u[0] - 0.5),
        x=x + PITCH * 0.7 * (u[1] - 0.5),
        cos=(u[7] - 0.5) / turn,
        sin=(u[8] - 0.5) / turn,
        long=radius * stretch,
        short=radius / stretch,
        lobes=0.24 * u[12] - 0.12,
        corners=0.12 * u[6] - 0.06,
        brightness=np.where(mitotic, 2.2 + 1.6 * u[11], glow),
        defocus=0.16 + 0.75 * np.where(mitotic, 0.0, u[2]) ** 7,
    )


def _ids(slide: Slide, rows: range, columns: range) -> npt.NDArray[np.uint32]:
    """Give each cell its id, 0 for cells too far outside for their nuclei to reach the slide."""
    down, across = slide.cells
    r = np.arange(rows.start, rows.stop)[:, None] + MARGIN
    c = np.arange(columns.start, columns.stop) + MARGIN
    inside = (r >= 0) & (r < down) & (c >= 0) & (c < across)
    return np.where(inside, r * across + c + 1, 0).astype(np.uint32)


def _crowded_out(cells: Nuclei, order: Floats) -> npt.NDArray[np.bool_]:
    """Find cells whose nuclei give way: too close to one that comes earlier in order.

    Whether the other one has given way itself does not matter: that would have no end.
    """
    ellipse = np.stack([cells.y, cells.x, cells.cos, cells.sin, cells.long, cells.short])
    out = np.zeros(order.shape, bool)
    for dr in range(-SPARE, SPARE + 1):
        for dc in range(-SPARE, SPARE + 1):
            here, there = _pair(order.shape, dr, dc)
            if (dr, dc) == (0, 0) or out[here].size == 0:
                continue
            mine, other = ellipse[:, *here], ellipse[:, *there]
            gap = other[:2] - mine[:2]
            close = OVERLAP * (_radius(mine, gap) + _radius(other, gap)) > 1
            out[here] |= close & (order[there] < order[here])
    return out


def _pair(shape: tuple[int, ...], dr: int, dc: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Pair the cells that have a neighbour (dr, dc) away with those neighbours."""
    here, there = [], []
    for n, d in zip(shape, (dr, dc), strict=True):
        here.append(slice(max(0, -d), max(0, min(n, n - d))))
        there.append(slice(max(0, d), max(0, min(n, n + d))))
    return tuple(here), tuple(there)


def _radius(ellipse: Floats, gap: Floats) -> Floats:
    """Measure ellipses in the direction of a gap, as a share of its length."""
    _, _, cos, sin, long, short = ellipse
    u, v = (gap[1] * cos + gap[0] * sin) / long, (gap[0] * cos - gap[1] * sin) / short
    share: Floats = 1 / np.sqrt(u * u + v * v + 1e-12)
    return share
