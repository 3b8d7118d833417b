"""How many annotated images are needed, and what is elastic deformation worth?

    python -m benchmarks.bench_learning_curve --save learning_curve_cpu

Trains the same network on 1, 3, 10 and 30 fluorescence images (of different groups; the smaller
sets are part of the larger), with and without elastic deformation, several seeds each, for the
same number of steps. Scores whole groups of images that were held back.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

from bigunet.training.augment import Augmentation
from bigunet.training.settings import Training

from .trials import DATA, Image, hold_back, nuclei_images, run_trials, train_and_score

ELASTIC_SD = 10.0


def choose(images: list[Image], count: int, seed: int) -> list[Image]:
    """Draw one image from each of so many groups."""
    drawn = random.Random(seed).sample(images, len(images))
    return list({image.group: image for image in reversed(drawn)}.values())[::-1][:count]


def run(
    data: Path, *, annotated: int, elastic: float, seed: int, steps: int, tile: int, width: int
) -> dict[str, Any]:
    """Train once and score once."""
    began = time.monotonic()
    train, held = hold_back(nuclei_images(data, "train", "fluorescence"), 0.2, seed=1)
    chosen = choose(train, annotated, seed)
    settings = Training(
        width=width,
        epochs=1,
        steps=steps,
        tile=tile,
        seed=seed,
        augmentation=Augmentation(elastic_sd=elastic),
    )
    figures = train_and_score(data, chosen, held, settings)
    return {**figures, "seconds": round(time.monotonic() - began)}


def table_lines(runs: list[dict[str, Any]]) -> list[str]:
    """Return medians over the seeds, with the lowest and the highest."""
    lines = ["images  elastic  F1@0.5 (each)             AP@0.5"]
    for count, elastic in sorted({(one["annotated"], one["elastic"]) for one in runs}):
        same = [r for r in runs if (r["annotated"], r["elastic"]) == (count, elastic)]
        f1, ap = ([one[key][0] for one in same] for key in ("f1", "ap"))
        each = ", ".join(f"{value:.3f}" for value in f1)
        lines.append(
            f"{count:<7} {elastic:<8g} {statistics.median(f1):.3f} ({each})  "
            f"{statistics.median(ap):.3f}"
        )
    return lines


def main() -> None:
    """Parse options, run, print a table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "dsb2018")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 3, 10, 30])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--tile", type=int, default=260)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json, or go on with it")
    given = parser.parse_args()
    sizes = {name: getattr(given, name) for name in ("steps", "tile", "width")}
    cases = [
        {"annotated": count, "elastic": elastic, "seed": seed}
        for seed in range(given.seeds)
        for count in given.images
        for elastic in (ELASTIC_SD, 0.0)
    ]
    runs = run_trials(run, given.data, sizes, cases, save=given.save)
    print(*table_lines(runs), sep="\n")


if __name__ == "__main__":
    main()
