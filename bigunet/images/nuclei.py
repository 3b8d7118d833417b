"""The pixels of the sample slide: fluorescent nuclei with their true instances.

Nothing here depends on how the slide is cut. Every random number belongs to a
lattice (cells that may hold a nucleus, corners of smooth fields, pixels) and is
drawn from a counter-based generator keyed on seed, purpose and place. A window is
drawn with everything that reaches into it, so windows fit together without a seam:

    draw(slide, y, x) == draw(slide, all, all)[y, x]        bit for bit

Only sums, products, quotients and roots touch pixels: those are exact to the bit
wherever a pixel lies in a vector register, which exp or cos are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["Slide", "draw"]

Floats = npt.NDArray[np.floating[Any]]
Positions = npt.NDArray[np.int64]  # of pixels, in a row

BLOCK = 64  # cells on a side that share one random stream
PITCH = 19  # px between cells that may hold a nucleus
REACH = 24  # px, a little more than the largest radius of a nucleus
OVERLAP = 0.8  # centres nearer than this share of both radii: one nucleus gives way
CANVAS = 13  # px drawn around a window: what the blur reaches, and the clean-up's pixel
MARGIN = 4  # cells beyond the slide's border whose nuclei reach in
MITOTIC = 0.03  # share of nuclei that are small and bright


class Stream(IntEnum):
    """What random numbers are for; no two purposes share any."""

    CELLS = 1
    TISSUE = 2
    CLUSTERS = 3
    LIGHT = 4
    HAZE = 5
    CHROMATIN = 6
    SENSOR = 7


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
    """Nuclei in raster order of their cells; all arrays (n,)."""

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


def draw(slide: Slide, y: slice, x: slice) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """Draw a window of the slide.

    Parameters
    ----------
    slide : Slide
        Size and seed.
    y, x : slice
        Rows and columns of the window, in pixels, inside the slide.

    Returns
    -------
    image : (h, w) uint16 array
        What a camera would see.
    truth : (h, w) uint32 array
        The id of the nucleus a pixel belongs to, 0 elsewhere. Ids are the same in
        every window, and no two nuclei of the slide share one.
    """
    ys = np.arange(y.start - CANVAS, y.stop + CANVAS)
    xs = np.arange(x.start - CANVAS, x.stop + CANVAS)
    nuclei = _nuclei(slide, ys, xs)
    owner, depth = _shapes(nuclei, ys, xs)
    inner = slice(CANVAS, -CANVAS)
    light = _light(slide, nuclei, owner, depth, ys, xs)
    image = _camera(slide, light, ys[inner], xs[inner])
    truth = np.append(nuclei.ids, np.uint32(0))[owner[inner, inner]]
    return image, truth


def _raw(
    seed: int, stream: Stream, rows: range, columns: range, words: int = 1
) -> npt.NDArray[np.uint64]:
    """Draw the random words of lattice cells, (rows, columns, words)."""
    out = np.empty((len(rows), len(columns), words), np.uint64)
    key = np.array([seed, stream], np.uint64)
    for top in range(rows.start // BLOCK * BLOCK, rows.stop, BLOCK):
        for left in range(columns.start // BLOCK * BLOCK, columns.stop, BLOCK):
            place = [0, 0, top % 2**64, left % 2**64]
            source = np.random.Philox(key=key, counter=np.array(place, np.uint64))
            block = source.random_raw(BLOCK * BLOCK * words).reshape(BLOCK, BLOCK, words)
            into, of = zip(
                *(_shared(cells, at) for cells, at in ((rows, top), (columns, left))), strict=True
            )
            out[into] = block[of]
    return out


def _shared(cells: range, block: int) -> tuple[slice, slice]:
    """Return where the wanted part of a block goes, and where it is in the block."""
    start, stop = max(cells.start, block), min(cells.stop, block + BLOCK)
    return slice(start - cells.start, stop - cells.start), slice(start - block, stop - block)


def _uniform(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Turn random words into numbers in [0, 1)."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _field(
    seed: int, stream: Stream, pitch: float, ys: npt.NDArray[Any], xs: npt.NDArray[Any]
) -> Floats:
    """Return a smooth random field in [0, 1) at rows ys and columns xs, float32."""
    rows, down = _between(ys, pitch)
    columns, right = _between(xs, pitch)
    of = [range(int(at[0]), int(at[-1]) + 2) for at in (rows, columns)]
    corner = _uniform(_raw(seed, stream, of[0], of[1]))[..., 0].astype(np.float32)
    rows, columns = rows - rows[0], columns - columns[0]
    lines = corner[rows] * (1 - down)[:, None] + corner[rows + 1] * down[:, None]
    field: Floats = lines[:, columns] * (1 - right) + lines[:, columns + 1] * right
    return field


def _between(at: npt.NDArray[Any], pitch: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the corner before each position, and the way to the next (eased, 0 to 1)."""
    corner = np.floor(at / pitch)
    part = (at / pitch - corner).astype(np.float32)
    return corner.astype(np.int64), part * part * (3 - 2 * part)


def _tissue(slide: Slide, ys: npt.NDArray[Any], xs: npt.NDArray[Any]) -> Floats:
    """Say how densely cells are filled: below 0 empty glass, above 1 packed; float32."""
    pitch = slide.tissue_pitch
    wide = _field(slide.seed, Stream.TISSUE, pitch, ys, xs)
    fine = _field(slide.seed, Stream.CLUSTERS, pitch / 3.7, ys, xs)
    down, across = (2 * ys + 1) / slide.height - 1, (2 * xs + 1) / slide.width - 1
    edge = (down * down).astype(np.float32)[:, None] + (across * across).astype(np.float32)
    return 2.6 * (0.62 * wide + 0.38 * fine) - 0.85 - 0.45 * edge


def _nuclei(slide: Slide, ys: Positions, xs: Positions) -> Nuclei:
    """Place the nuclei that may reach into a canvas; those too close give way."""
    spare = 3  # cells in which a neighbour may stand that is too close
    rows, columns = (
        range((int(at[0]) - REACH) // PITCH - spare, (int(at[-1]) + REACH) // PITCH + spare + 1)
        for at in (ys, xs)
    )
    u = np.moveaxis(_uniform(_raw(slide.seed, Stream.CELLS, rows, columns, 13)), -1, 0)
    middle = [(np.arange(at.start, at.stop) + 0.5) * PITCH for at in (rows, columns)]
    tissue = _tissue(slide, *middle).astype(np.float64)
    y = middle[0][:, None] + PITCH * 0.7 * (u[0] - 0.5)
    x = middle[1] + PITCH * 0.7 * (u[1] - 0.5)

    mitotic = u[2] < MITOTIC
    radius = 8.2 + 5.5 * u[3] * u[3] + 1.5 * u[4] - 1.2 * np.clip(tissue, 0, 1)
    stretch = np.sqrt(1 + 0.85 * u[5] * u[5] + 0.15 * u[6])
    radius, stretch = np.where(mitotic, (5.5 + 2 * u[3], 1.1 + 0.25 * u[5]), (radius, stretch))
    turn = np.sqrt((u[7] - 0.5) ** 2 + (u[8] - 0.5) ** 2) + 1e-9
    cos, sin = (u[7] - 0.5) / turn, (u[8] - 0.5) / turn
    long, short = radius * stretch, radius / stretch

    alive = u[9] < np.clip(1.35 * tissue, 0, 0.97)
    alive &= ~_crowded_out(np.stack([y, x, cos, sin, long, short]), np.where(alive, u[10], 2.0))
    glow = 0.45 + 0.75 * u[11] + 0.6 * u[11] ** 6 + 0.25 * u[4]
    ids = _ids(slide, rows, columns)
    alive &= ids > 0
    return Nuclei(
        ids=ids[alive],
        y=y[alive],
        x=x[alive],
        cos=cos[alive],
        sin=sin[alive],
        long=long[alive],
        short=short[alive],
        lobes=(0.24 * u[12] - 0.12)[alive],
        corners=(0.12 * u[6] - 0.06)[alive],
        brightness=np.where(mitotic, 2.2 + 1.6 * u[11], glow)[alive],
        defocus=(0.16 + 0.75 * np.where(mitotic, 0.0, u[2]) ** 7)[alive],
    )


def _ids(slide: Slide, rows: range, columns: range) -> npt.NDArray[np.uint32]:
    """Give each cell its id, 0 for cells too far outside for their nuclei to reach the slide."""
    down, across = slide.cells
    r = np.arange(rows.start, rows.stop)[:, None] + MARGIN
    c = np.arange(columns.start, columns.stop) + MARGIN
    inside = (r >= 0) & (r < down) & (c >= 0) & (c < across)
    return np.where(inside, r * across + c + 1, 0).astype(np.uint32)


def _crowded_out(ellipse: Floats, order: Floats) -> npt.NDArray[np.bool_]:
    """Find cells whose nuclei give way: too close to one that comes earlier in order.

    ``ellipse`` is (y, x, cos, sin, long, short) by cell, (6, rows, columns). Whether
    the other one has given way itself does not matter: that would have no end.
    """
    out = np.zeros(order.shape, bool)
    for dr in range(-3, 4):
        for dc in range(-3, 4):
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


def _shapes(nuclei: Nuclei, ys: Positions, xs: Positions) -> tuple[npt.NDArray[np.int32], Floats]:
    """Say who owns a pixel (-1: nobody), and how far from its middle it is (0 to 1).

    Where nuclei overlap, a pixel goes to the one in which it lies deeper: touching
    nuclei have no gap between them.
    """
    owner = np.full((len(ys), len(xs)), -1, np.int32)
    depth = np.ones(owner.shape, np.float32)
    for k in range(len(nuclei.ids)):
        window, shape = _shape(nuclei, k, ys, xs)
        mine = shape < depth[window]
        np.copyto(depth[window], shape, where=mine)
        np.copyto(owner[window], np.int32(k), where=mine)
    return _without_specks(owner), depth


def _shape(
    nuclei: Nuclei, k: int, ys: Positions, xs: Positions
) -> tuple[tuple[slice, slice], Floats]:
    """Draw one nucleus in its bounding box: 0 in its middle, 1 on its outline."""
    cos, sin, long, short = (a[k] for a in (nuclei.cos, nuclei.sin, nuclei.long, nuclei.short))
    half = 1.15 * np.sqrt(
        [(long * sin) ** 2 + (short * cos) ** 2, (long * cos) ** 2 + (short * sin) ** 2]
    )
    box = [
        slice(
            max(0, int(np.ceil(c - h)) - int(at[0])), max(0, int(np.floor(c + h)) + 1 - int(at[0]))
        )
        for c, h, at in zip((nuclei.y[k], nuclei.x[k]), half, (ys, xs), strict=True)
    ]
    dy = (ys[box[0]] - nuclei.y[k])[:, None].astype(np.float32)
    dx = (xs[box[1]] - nuclei.x[k]).astype(np.float32)
    u = dx * np.float32(cos / long) + dy * np.float32(sin / long)
    v = dy * np.float32(cos / short) - dx * np.float32(sin / short)
    uu, vv = u * u, v * v
    lobes, corners = np.float32(nuclei.lobes[k]), np.float32(nuclei.corners[k])
    shape = (uu + vv) + lobes * u * (uu - 3 * vv) + corners * (uu * uu - 6 * uu * vv + vv * vv)
    return (box[0], box[1]), shape


def _without_specks(owner: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Give pixels that touch no other pixel of their nucleus back to the background."""
    padded = np.pad(owner, 1, constant_values=-2)
    alone = np.ones(owner.shape, bool)
    for near in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        alone &= near != owner
    owner[alone] = -1
    return owner


def _light(
    slide: Slide,
    nuclei: Nuclei,
    owner: npt.NDArray[np.int32],
    depth: Floats,
    ys: Positions,
    xs: Positions,
) -> Floats:
    """Return what nuclei send through the optics: sharp and out-of-focus light, float32."""
    grain = _field(slide.seed, Stream.CHROMATIN, 4.3, ys, xs)
    glow = np.append(nuclei.brightness, 0.0).astype(np.float32)[owner]
    glow *= (1.15 - 0.45 * np.minimum(depth, 1)) * (0.55 + 0.9 * grain)
    soft = glow * np.append(nuclei.defocus, 0.0).astype(np.float32)[owner]
    return _blur(glow - soft, 1.2, 5) + _blur(soft, 4.0, 12)


def _blur(image: Floats, sigma: float, radius: int) -> Floats:
    """Blur a canvas with a Gaussian and crop it to its window."""
    taps = np.array([np.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)])
    for axis in (0, 1):
        image = ndimage.correlate1d(image, taps / taps.sum(), axis, mode="constant")
    return image[CANVAS:-CANVAS, CANVAS:-CANVAS]


def _camera(slide: Slide, light: Floats, ys: Positions, xs: Positions) -> npt.NDArray[np.uint16]:
    """Add uneven illumination, haze, shot and read noise; count."""
    pitch = 1.7 * slide.tissue_pitch
    lamp = 0.65 + 0.7 * _field(slide.seed, Stream.LIGHT, pitch, ys, xs)
    haze = 80 + 450 * _field(slide.seed, Stream.HAZE, pitch / 2, ys, xs)
    haze += 300 * np.clip(_tissue(slide, ys, xs) + 0.15, 0, 1)
    signal = lamp * (haze + 4200 * light)
    noise = np.sqrt(4.5 * signal + 900) * _noise(slide.seed, ys, xs)
    return np.clip(np.rint(180 + signal + noise), 0, 65535).astype(np.uint16)


def _noise(seed: int, ys: Positions, xs: Positions) -> Floats:
    """Sum eight random bytes a pixel: nearly Gaussian, mean 0, deviation 1; float32."""
    rows, columns = (range(int(at[0]), int(at[-1]) + 1) for at in (ys, xs))
    raw = _raw(seed, Stream.SENSOR, rows, columns)[..., 0]
    odd = np.uint64(0x00FF00FF00FF00FF)
    pairs = (raw & odd) + ((raw >> np.uint64(8)) & odd)
    total = (pairs * np.uint64(0x0001000100010001)) >> np.uint64(48)
    return (total.astype(np.float32) - 1020) * np.float32(1 / 209.02153)
