"""The pixels of the sample slide: what a camera sees of its nuclei, with true instances.

A window is drawn with everything that reaches into it, so windows fit together
without a seam:

    draw(slide, y, x) == draw(slide, all, all)[y, x]        bit for bit
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bigunet.images.synthetic.fields import Floats, Positions, Stream, pixel_noise, smooth_field
from bigunet.images.synthetic.nuclei import Nuclei, Slide, place_nuclei, tissue_density

__all__ = ["draw"]

CANVAS = 13  # px drawn around a window: what the blur reaches, and the clean-up's pixel


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
    nuclei = place_nuclei(slide, ys, xs)
    owner, depth = _shapes(nuclei, ys, xs)
    inner = slice(CANVAS, -CANVAS)
    light = _light(slide, nuclei, owner, depth, ys, xs)
    image = _camera(slide, light, ys[inner], xs[inner])
    truth = np.append(nuclei.ids, np.uint32(0))[owner[inner, inner]]
    return image, truth


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
    grain = smooth_field(slide.seed, Stream.CHROMATIN, 4.3, ys, xs)
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
    lamp = 0.65 + 0.7 * smooth_field(slide.seed, Stream.LIGHT, pitch, ys, xs)
    haze = 80 + 450 * smooth_field(slide.seed, Stream.HAZE, pitch / 2, ys, xs)
    haze += 300 * np.clip(tissue_density(slide, ys, xs) + 0.15, 0, 1)
    signal = lamp * (haze + 4200 * light)
    noise = np.sqrt(4.5 * signal + 900) * pixel_noise(slide.seed, ys, xs)
    return np.clip(np.rint(180 + signal + noise), 0, 65535).astype(np.uint16)
