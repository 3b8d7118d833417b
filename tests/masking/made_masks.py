"""Labels and slides made for the tests of masks."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bigunet.masking.mask import Cells, Mask
from tests.images.labelled_images import write_image, write_labels
from tests.slides import write_slide

ALL = slice(None)


def whole(mask: Mask, at: int = 0) -> np.ndarray:
    return mask.read(at, ALL, ALL)


def made_mask(inside: np.ndarray) -> Mask:
    """A mask in memory with the pixels of an array (Y, X)."""
    shape = (inside.shape[0], inside.shape[1])
    one = (Fraction(1), Fraction(1))
    cells = Cells.of(inside)
    return Mask(name="made", shape=shape, label_shape=shape, ratio=one, sources=(cells,))


def slide_with(
    path: Path,
    shape: tuple[int, ...],
    label: np.ndarray,
    label_scale: float,
    *,
    axes: str = "yx",
    label_axes: str = "yx",
    levels: int = 1,
    label_levels: int = 1,
    **ome: Any,
) -> Path:
    """An image of empty levels, 0.5 µm, and label ``roi`` whose pixels are ``label_scale`` µm."""
    shapes = [(*shape[:-2], -(-shape[-2] >> k), -(-shape[-1] >> k)) for k in range(levels)]
    write_image(path, list(shapes), axes, [_scale(axes, 0.5 * 2**k) for k in range(levels)])
    write_labels(
        path,
        "roi",
        [np.ascontiguousarray(label[..., :: 2**k, :: 2**k]) for k in range(label_levels)],
        label_axes,
        [_scale(label_axes, label_scale * 2**k) for k in range(label_levels)],
        **ome,
    )
    return path


def tissue_slide(path: Path, side: int = 640, **options: Any) -> Path:
    """Nuclei in one half of a dark slide of 4 µm pixels, nothing in the other."""
    options = {"pixel_size": 4.0, "levels": 2, "chunk": 128} | options
    return write_slide(path, nuclei(side)[None], "cyx", **options)


def nuclei(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.normal(200, 4, (side, side))
    for y, x in rng.integers((5, 5), (side - 5, side // 2 - 40), (side // 4, 2)):
        image[y - 3 : y + 3, x - 3 : x + 3] += 1000
    return image.clip(0).astype(np.uint16)


def _scale(axes: str, pixel: float) -> tuple[float, ...]:
    return tuple(pixel if axis in "yx" else 1.0 for axis in axes)
