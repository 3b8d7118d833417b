"""Does a model find the same nuclei in darker, brighter, padded and rescaled images?

    python -m benchmarks.bench_robustness --model nuclei --save robustness_nuclei

Scores held-back fluorescence images as they are; with all values multiplied (floats, so that
nothing is clipped); with an empty margin that makes up a share of the image; and made smaller or
larger, truth and all. The last row is of the images as they are, averaged over the eight flips and
turns. The figure is F1 at an IoU of 0.5, pooled over images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import bigunet
from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.objects import ObjectCounts, count_objects
from bigunet.models.unet import UNet
from bigunet.training.files import read_image, read_mask

from .measure import save_results
from .trials import DATA, Image, hold_back, nuclei_images

GAINS = (0.25, 0.5, 2.0, 4.0)
MARGINS = (0.25, 0.5, 0.75, 0.95)
SCALES = (0.7, 0.85, 1.2, 1.4)

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def brighter(gain: float) -> Change:
    """Multiply all values."""
    return lambda pixels, truth: (pixels.astype(np.float32) * np.float32(gain), truth)


def padded(share: float) -> Change:
    """Put the image into the corner of an empty one, of which the margin is a share."""

    def change(pixels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grow = (1 / (1 - share)) ** 0.5
        more = [(0, round(size * grow) - size) for size in truth.shape]
        return np.pad(pixels, [(0, 0), *more]), np.pad(truth, more)

    return change


def scaled(factor: float) -> Change:
    """Make pixels smaller or larger: linear for the image, nearest for the truth."""

    def change(pixels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image = pixels.astype(np.float32)
        if factor < 1:
            image = ndimage.gaussian_filter(image, (0, *2 * [0.5 * (1 / factor - 1)]))
        resized = ndimage.zoom(image, (1, factor, factor), order=1, grid_mode=True, mode="nearest")
        return resized, ndimage.zoom(truth, factor, order=0, grid_mode=True, mode="nearest")

    return change


def changes() -> dict[str, Change]:
    """Return what is done to images, by name."""
    return {
        "as it is": brighter(1.0),
        **{f"gain {gain:g}": brighter(gain) for gain in GAINS},
        **{f"margin {share:.0%}": padded(share) for share in MARGINS},
        **{f"scale {factor:g}": scaled(factor) for factor in SCALES},
    }


def f1_of(data: Path, images: list[Image], model: UNet, change: Change, **options: Any) -> float:
    """Return F1 at an IoU of 0.5, pooled over changed images that are segmented with options."""
    counts = ObjectCounts()
    for image in images:
        pixels, truth = change(
            read_image(data / "image" / f"{image.name}.png"),
            read_mask(data / "label" / f"{image.name}.png"),
        )
        ids = bigunet.objects(pixels, model, **options)[0].compute()
        counts += count_objects(count_pairs(truth.astype(np.int32), ids.astype(np.int32)))
    return counts.f1[0]


def main() -> None:
    """Parse options, run, print a table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--data", type=Path, default=DATA / "dsb2018")
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--min-area", type=int, default=20)
    parser.add_argument("--save", metavar="NAME")
    given = parser.parse_args()
    _, held = hold_back(nuclei_images(given.data, "train", "fluorescence"), 0.2, seed=1)
    images = held[: given.images]
    model = bigunet.load_model(given.model)
    found: dict[str, float] = {}
    rows = [(name, change, "none") for name, change in changes().items()]
    for name, change, augment in [*rows, ("d4", brighter(1.0), "d4")]:
        f1 = f1_of(given.data, images, model, change, min_area=given.min_area, augment=augment)
        found[name] = round(f1, 4)
        print(f"{name:12} F1@0.5 {found[name]:.4f}  {found[name] - found['as it is']:+.4f}")
    if given.save:
        print(save_results(given.save, {"model": given.model, "images": len(images), "f1": found}))


if __name__ == "__main__":
    main()
