"""Draw a training tile: section 3.1 of the paper, every part of it a small function.

Pixels and ids go through one and the same map, once: pixels are interpolated, ids are
taken from the nearest pixel. **Ids** are warped and never classes, because a gap of one
or two pixels between touching cells does not survive nearest neighbours, while ids keep
two cells apart whatever happens to them. Gap and classes are derived afterwards.

Beyond its end an image is mirrored exactly as in segmentation (the edge pixel is
repeated, as in ``np.pad(mode="symmetric")``). What is mirrored is input only: as target
it is not valid.

Letters: C channels, Y and X pixels of the image; h and w pixels of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.training.deformation import (
    Rotation,
    draw_linear,
    draw_origin,
    elastic_field,
    tile_map,
)
from bigunet.training.empty_edges import draw_empty, empty_value
from bigunet.training.grey_values import (
    add_noise,
    blur,
    jitter_stains,
    rotate_hue,
    vary_contrast,
)
from bigunet.training.warping import warp_ids, warp_image

__all__ = [
    "IDENTITY",
    "Augmentation",
    "Tile",
    "draw_map",
    "draw_tile",
    "vary_grey_values",
]

Array: TypeAlias = npt.NDArray[Any]
Pixels: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much training tiles vary; the defaults are the paper's where it has numbers.

    Raises
    ------
    InputError
        A value that cannot be meant.
    """

    elastic_sd: float = 10.0
    """Standard deviation of the displacements, in pixels; 0: no elastic deformation."""
    elastic_grid: int = 3
    """Nodes of the coarse grid, a side."""
    rotation: Rotation = "any"
    """``any`` angle, ``quarter`` turns, or ``none``."""
    flip: bool = True
    """Whether half of the tiles are mirrored."""
    scale: float = 1.0
    """Objects become up to so many times larger or smaller; the paper has none."""
    gain: float = 0.1
    """Standard deviation of the logarithm of a channel's gain; with `hue` or `stain`, and
    also for `offset` and `gamma`, that of all channels."""
    offset: float = 0.05
    """Standard deviation of what is added to a channel."""
    gamma: float = 0.1
    """Standard deviation of the logarithm of a channel's gamma."""
    noise: float = 0.02
    """Largest standard deviation of the noise."""
    blur: float = 1.0
    """Largest sigma of the blur in pixels; half of the tiles get one."""
    hue: float = 0.0
    """Standard deviation of the turn of hue in radians; RGB only."""
    stain: float = 0.0
    """Standard deviation of the logarithm of a stain's strength; bright-field RGB only."""
    empty: float | None = None
    """Share of tiles in which all beyond a straight edge is empty, as at the rim of a scan;
    by default a quarter where masks are instances, for there 0 is sure to mean nothing."""
    order: Literal[1, 3] = 1
    """Interpolation of pixels: 1 linear, 3 cubic spline (several times slower)."""

    def __post_init__(self) -> None:
        for name in ("elastic_sd", "gain", "offset", "gamma", "noise", "blur", "hue", "stain"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise InputError(f"augmentation {name} {value}: 0 or more is needed")
        if self.empty is not None and not 0 <= self.empty <= 1:
            raise InputError(f"augmentation empty {self.empty}: a share from 0 to 1 is needed")
        if not 1 <= self.scale < np.inf:
            raise InputError(f"augmentation scale {self.scale}: 1 (none) or more is needed")
        if self.rotation not in ("any", "quarter", "none"):
            raise InputError(f"rotation {self.rotation!r}: use 'any', 'quarter' or 'none'")
        if self.elastic_grid < 2 or self.order not in (1, 3):
            raise InputError(
                f"elastic grid {self.elastic_grid} and order {self.order}: "
                "2 nodes or more, and order 1 or 3, are needed"
            )


IDENTITY = Augmentation(
    elastic_sd=0, rotation="none", flip=False, gain=0, offset=0, gamma=0, noise=0, blur=0, empty=0
)
"""Nothing but the shift: tiles are crops, bit for bit."""


class Tile(NamedTuple):
    """What one step of training sees."""

    image: Pixels
    """(C, size + 2 margin, size + 2 margin), the input."""
    ids: npt.NDArray[np.int32]
    """(size, size), objects of the output."""
    valid: Mask
    """(size, size); False where the weight is 0: not known, or beyond the image; what was
    made empty is known."""


def draw_tile(
    image: Pixels,
    instances: Array,
    valid: Mask | None,
    rng: np.random.Generator | int | None,
    size: int,
    margin: int,
    settings: Augmentation = Augmentation(),
) -> Tile:
    """Draw one tile of an image, varied as in section 3.1 of the paper.

    Laws: with `IDENTITY` a tile is a crop of the mirrored image, bit for bit. An id in
    the tile is the id of a pixel in the image. The same state of `rng` gives the same
    tile.

    Parameters
    ----------
    image : (C, Y, X) float32 array
        Normalised: about 0 to 1.
    instances : (Y, X) integer array
        0 is background.
    valid : (Y, X) bool array, optional
        False where nothing is known; by default all is.
    rng : numpy.random.Generator, int or None
        The only source of chance.
    size : int
        Side of the network's output in pixels.
    margin : int
        Pixels that its input is larger on each side.
    settings : Augmentation

    Returns
    -------
    Tile

    Raises
    ------
    InputError
        Shapes or sizes that do not fit.
    """
    rng = np.random.default_rng(rng)
    known = np.ones(instances.shape, np.bool_) if valid is None else valid
    _check(image, instances, known, size, margin)
    places = draw_map(instances.shape, size, margin, rng, settings)
    inner = slice(margin, margin + size)
    ids, inside = warp_ids(instances, known, places[:, inner, inner])
    pixels = vary_grey_values(warp_image(image, places, settings.order), rng, settings)
    tile = Tile(pixels, ids, inside)
    if settings.empty and rng.random() < settings.empty:
        return _with_empty_edge(tile, margin, rng)
    return tile


def _with_empty_edge(tile: Tile, margin: int, rng: np.random.Generator) -> Tile:
    empty = draw_empty(tile.image.shape[-1], rng)
    size = tile.ids.shape[0]
    inner = empty[margin : margin + size, margin : margin + size]
    image = np.where(empty, np.float32(empty_value(tile.image, rng)), tile.image)
    return Tile(image, np.where(inner, np.int32(0), tile.ids), tile.valid | inner)


def draw_map(
    shape: tuple[int, ...],
    size: int,
    margin: int,
    rng: np.random.Generator,
    settings: Augmentation,
) -> npt.NDArray[np.float64]:
    """Draw where the pixels of a tile come from; see `tile_map`."""
    side = size + 2 * margin
    origin = draw_origin((shape[0], shape[1]), size, rng)
    linear = draw_linear(rng, rotation=settings.rotation, flip=settings.flip, scale=settings.scale)
    field = None
    if settings.elastic_sd:
        field = elastic_field((side, side), rng, settings.elastic_sd, settings.elastic_grid)
    return tile_map(origin, size, margin, linear, field)


def vary_grey_values(tile: Pixels, rng: np.random.Generator, settings: Augmentation) -> Pixels:
    """Vary colour, contrast, focus and noise of a normalised tile, in this order."""
    s, channels = settings, tile.shape[0]
    has_colours = channels == 3 and bool(s.hue or s.stain)
    if has_colours and s.stain:
        strength = np.exp(rng.normal(0, s.stain, 3))
        tile = jitter_stains(tile, strength, rng.normal(0, s.stain / 10, 3))
    if has_colours and s.hue:
        tile = rotate_hue(tile, rng.normal(0, s.hue))
    if s.gain or s.offset or s.gamma:
        # Colours vary above; a gain of each channel's own would tint the white of a slide.
        each = 1 if has_colours else channels
        gain, gamma = (np.exp(rng.normal(0, sd, each)) for sd in (s.gain, s.gamma))
        tile = vary_contrast(tile, gain, rng.normal(0, s.offset, each), gamma)
    if s.blur and rng.random() < 0.5:
        tile = blur(tile, rng.uniform(0, s.blur))
    if s.noise:
        tile = add_noise(tile, rng, rng.uniform(0, s.noise))
    return tile


def _check(image: Pixels, instances: Array, valid: Mask, size: int, margin: int) -> None:
    plane = image.shape[1:]
    if image.ndim != 3 or instances.shape != plane or valid.shape != plane or 0 in image.shape:
        raise InputError(
            f"image {image.shape}, instances {instances.shape}, valid {valid.shape}: "
            "(C, Y, X), (Y, X) and (Y, X) of one size are needed"
        )
    if image.dtype != np.float32 or instances.dtype.kind not in "iu" or valid.dtype != np.bool_:
        raise InputError(
            f"image {image.dtype}, instances {instances.dtype}, valid {valid.dtype}: "
            "float32, integers and bool are needed"
        )
    if size < 1 or margin < 0:
        raise InputError(f"a tile of {size} pixels with a margin of {margin}: both are too small")
