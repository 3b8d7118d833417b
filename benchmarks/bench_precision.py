"""What do other runtimes and precisions change, in pixels and in objects?

    python -m benchmarks.bench_precision --save precision_cpu

The model that ships finds the nuclei of the sample slide, and of fluorescence images that it was not
trained on, with every runtime and precision that this machine has. Each is compared with eager
float32: pixels of another class, objects that are matched with an IoU of 0.9, and how many
objects there are. Tiles are the same for all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

import bigunet
from bigunet.errors import InputError
from bigunet.geometry import Tiling
from bigunet.images.intensity import measure_limits
from bigunet.images.sample import sample_arrays
from bigunet.instances.lazy import lazy_objects
from bigunet.instances.rules import Rules
from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.objects import IOU_THRESHOLDS, ObjectCounts, count_objects
from bigunet.models.predictor import Predictor
from bigunet.models.unet import UNet
from bigunet.tiles import predict_block
from bigunet.training.files import read_image

from .measure import save_results
from .trials import DATA, nuclei_images

RUNTIMES = ("eager", "compile", "openvino")
PRECISIONS = ("float32", "bfloat16", "float16")
REFERENCE = ("eager", "float32")
TILE = 512
SEED = 0
# What the model was scored with; see its card.
MIN_AREA = 30
STRICT = IOU_THRESHOLDS.index(0.9)


@dataclass(frozen=True)
class Found:
    """What a way finds in an image (Y, X)."""

    classes: np.ndarray
    ids: np.ndarray


@dataclass
class Agreement:
    """What a way and the reference have in common, over all images."""

    pixels: int = 0
    differing: int = 0
    objects: ObjectCounts = field(default_factory=ObjectCounts)

    def add(self, reference: Found, found: Found) -> None:
        """Count an image."""
        self.pixels += found.classes.size
        self.differing += int((found.classes != reference.classes).sum())
        self.objects += count_objects(count_pairs(reference.ids, found.ids))

    def as_dict(self) -> dict[str, Any]:
        """Return figures; ratios of nothing are None."""
        counts = self.objects
        return {
            "pixels": self.pixels,
            "differing": self.differing,
            "objects": counts.predicted,
            "f1_at_0.9": round(counts.f1[STRICT], 5) if counts.true + counts.predicted else None,
            "count_ratio": round(counts.predicted / counts.true, 5) if counts.true else None,
        }


def main() -> None:
    """Parse options, compare, print tables, save."""
    given = _options()
    model = bigunet.load_model(given.model)
    ways = tuple(product(given.runtimes, given.precisions))
    sets = {f"sample, {given.size}²": lambda: sample_images(given.size)}
    if given.data.is_dir():
        sets["fluorescence, not trained on"] = lambda: real_images(given.data, given.images)
    else:
        print(f"{given.data} is not here: only the sample slide is compared")
    tables = {}
    for name, images in sets.items():
        tables[name] = compare(images(), model, given.device, ways)
        print(f"\n{name}")
        for way, row in tables[name].items():
            print(f"  {way:18} {_row_text(row)}")
    if given.save:
        facts = {"model": given.model, "tile": TILE, "min_area": MIN_AREA, "device": given.device}
        print(save_results(given.save, {**facts, "sets": tables}))


def compare(
    images: Iterable[np.ndarray], model: UNet, device: str, ways: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Return the agreement of every way with eager float32 on the same device.

    A way that this machine does not have says why instead.
    """
    runtime, precision = REFERENCE
    reference = Predictor.of(model, device=device, runtime=runtime, precision=precision)
    expected = [(pixels, segment(pixels, reference)) for pixels in images]
    rows: dict[str, dict[str, Any]] = {}
    # Images inside, for a process keeps few networks ready.
    for runtime, precision in ways:
        try:
            predictor = Predictor.of(model, device=device, runtime=runtime, precision=precision)
        except InputError as error:
            rows[f"{runtime} {precision}"] = {"left_out": str(error)}
            continue
        agreement = Agreement()
        for pixels, found in expected:
            agreement.add(found, segment(pixels, predictor))
        rows[f"{runtime} {precision}"] = agreement.as_dict()
    return rows


def segment(pixels: np.ndarray, predictor: Predictor) -> Found:
    """Return the classes of an image (C, Y, X), and its objects by the rules of the model's card."""
    card, shape = predictor.model.card, pixels.shape[-2:]
    rule = card.intensity
    tiling = Tiling.fit(
        (shape[0], shape[1]),
        predictor.model.depth,
        tile=TILE,
        block=max(shape),
        target_tile=TILE,
        target_block=max(shape),
    )
    (block,) = tiling.blocks()
    classes = predict_block(
        pixels,
        (0, 0),
        block,
        tiling=tiling,
        predictor=predictor,
        limits=None if rule is None else measure_limits(pixels, rule).compute(scheduler="sync"),
        kinds=("classes",),
    )["classes"]
    ids, _ = lazy_objects(da.from_array(classes, chunks=-1), Rules(gap=card.gap, min_area=MIN_AREA))
    return Found(classes, ids.compute(scheduler="sync"))


def sample_images(size: int) -> Iterator[np.ndarray]:
    """Yield the sample slide (1, Y, X)."""
    image, _ = sample_arrays(size, SEED)
    yield image.compute()[None]


def real_images(data: Path, most: int | None) -> Iterator[np.ndarray]:
    """Yield fluorescence images (1, Y, X) that no model that ships was trained on."""
    for image in nuclei_images(data, "val", "fluorescence")[:most]:
        yield read_image(data / "image" / f"{image.name}.png")


def _row_text(row: dict[str, Any]) -> str:
    if "left_out" in row:
        return f"left out: {row['left_out']}"
    return (
        f"{row['differing']:8} of {row['pixels']} px differ, {row['objects']:7} objects, "
        f"F1@0.9 {row['f1_at_0.9']}, count × {row['count_ratio']}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--size", type=int, default=2048, help="of the sample slide")
    parser.add_argument("--data", type=Path, default=DATA / "dsb2018")
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
