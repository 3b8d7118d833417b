"""Train the models that ship, with ``bigunet train``, and write their scores into their cards.

    python -m benchmarks.train_models nuclei
    python -m benchmarks.train_models nuclei-he

Images of ``subset`` train are used, and nothing else, for training, for choosing the best epoch,
and for choosing the threshold of the foreground's score and the least area of an object: a fifth of
them, whole groups, is held back for that. The threshold goes into the bias of the last layer, so
that it is part of the model. Then the images of ``subset`` val are scored, once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch

import bigunet
from bigunet.instances.lazy import lazy_objects
from bigunet.instances.rules import Rules
from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.objects import ObjectCounts, count_objects
from bigunet.models.checkpoint import WEIGHTS, describe_model
from bigunet.models.unet import UNet
from bigunet.training.files import read_image, read_mask

from .measure import save_results
from .trials import (
    DATA,
    Image,
    hold_back,
    nuclei_images,
    object_figures,
    score_model,
    write_table,
)

AREAS = (0, 10, 20, 30, 40, 60)
"""Least areas of an object to choose from, in pixels."""
THRESHOLDS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Of the foreground's score minus that of the background, to choose from."""
DATA_TEXT = "DSB2018 / BBBC038v1 stage 1 (Caicedo et al., Nat. Methods 16:1247, 2019), {} images"


@dataclass(frozen=True)
class Recipe:
    """What a model is trained on, and for how long."""

    domain: str
    steps: int
    epochs: int
    rates: tuple[float, ...]
    """Of one run after another, each of so many epochs and from the best of the one before."""
    note: str


RECIPES = {
    "nuclei": Recipe(
        "fluorescence", 1000, 24, (1e-3, 5e-4), "bright nuclei on dark ground, one channel"
    ),
    "nuclei-he": Recipe(
        "stained_rgb",
        350,
        24,
        (1e-3,),
        "experimental: few images, of few slides; RGB of stained sections",
    ),
}
DOMAINS = ("fluorescence", "stained_rgb", "brightfield_gray")


def train(data: Path, recipe: Recipe, output: Path, table: Path) -> None:
    """Run ``bigunet train``, as often as the recipe has rates."""
    options = [
        *("--masks", "instances", "--epochs", str(recipe.epochs), "--steps", str(recipe.steps)),
        *("--tile", "260", "--scale", "1.25", "--patience", str(recipe.epochs)),
    ]
    call = "from bigunet.cli.main import main; main()"
    before: list[str] = []
    for number, rate in enumerate(recipe.rates):
        is_last = number + 1 == len(recipe.rates)
        made = output if is_last else output.with_stem(f"{output.stem}-{number}")
        where = [*("--output", str(made)), *("--val", str(table)), *before]
        command = ["train", str(data), *where, *options, "--learning-rate", str(rate)]
        subprocess.run([sys.executable, "-c", call, *command], check=True)
        before = ["--init", str(made)]


def ap_text(figures: dict[str, Any]) -> str:
    """Say the average precision in a line."""
    ap = figures["ap"]
    return (
        f"AP@0.5 {ap[0]:.3f}, AP@0.5:0.9 {np.mean(ap[:9]):.3f} ({figures['images']} images, "
        f"{figures['merged']} of {figures['touching']} touching pairs merged)"
    )


def choose(data: Path, held: list[Image], model: UNet) -> tuple[float, int, dict[str, float]]:
    """Return the threshold and the least area with the best AP@0.5 on images held back."""
    found = {(t, area): ObjectCounts() for t in THRESHOLDS for area in AREAS}
    for image in held:
        pixels = read_image(data / "image" / f"{image.name}.png")
        truth = read_mask(data / "label" / f"{image.name}.png").astype(np.int32)
        scores = bigunet.predict(pixels, model).compute()
        for t, area in found:
            rules = Rules(gap=model.card.gap, min_area=area)
            classes = (scores[1] - scores[0] > t).astype(np.uint8)
            ids = lazy_objects(da.from_array(classes, chunks=-1), rules)[0].compute()
            found[t, area] += count_objects(count_pairs(truth, ids.astype(np.int32)))
    best = max(found, key=lambda pair: (found[pair].ap[0], -pair[1], -abs(pair[0])))
    return *best, {f"{t:g}, {area} px": round(n.ap[0], 4) for (t, area), n in found.items()}


def put_into_bias(model: UNet, threshold: float) -> None:
    """Shift the last layer, so that the best class is the foreground above the threshold only."""
    with torch.no_grad():
        assert model.head.bias is not None
        model.head.bias[1] -= threshold


def main() -> None:
    """Train, choose, score, describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--data", type=Path, default=DATA / "dsb2018")
    parser.add_argument("--trained", type=Path, help="a model of this recipe; do not train")
    parser.add_argument("--output", type=Path, help="by default where the models that ship are")
    given = parser.parse_args()
    recipe = RECIPES[given.model]
    output = given.output or WEIGHTS / f"{given.model}.pt"
    train_images, held = hold_back(nuclei_images(given.data, "train", recipe.domain), 0.2, seed=1)
    trained = given.trained
    with tempfile.TemporaryDirectory() as folder:
        if trained is None:
            trained = Path(folder, f"{given.model}.pt")
            table = write_table(Path(folder, "images.csv"), train_images, held)
            train(given.data, recipe, trained, table)
        model = bigunet.load_model(trained)
    threshold, area, table_ap = choose(given.data, held, model)
    put_into_bias(model, threshold)
    figures = {}
    for domain in DOMAINS:
        images = nuclei_images(given.data, "val", domain)
        images = [image for image in images if image.channels == model.in_channels]
        if images:
            figures[domain] = object_figures(score_model(given.data, images, model, min_area=area))
            print(domain, ap_text(figures[domain]))
    output.parent.mkdir(parents=True, exist_ok=True)
    bigunet.save_model(model, output, name=given.model, class_names=("background", "nucleus"))
    describe_model(
        output,
        about={
            "data": DATA_TEXT.format(f"{len(train_images)} {recipe.domain}"),
            "licence": "CC0-1.0 (images and annotation); weights: BSD-3-Clause",
            "recipe": f"benchmarks/train_models.py {given.model}; scored with --min-area {area}",
            "note": recipe.note,
        },
        scores={
            "images held back": "",
            **{f"{d}, images not trained on": ap_text(f) for d, f in figures.items()},
        },
    )
    results = {
        "threshold": threshold,
        "min_area": area,
        "held_back_ap": table_ap,
        "val": figures,
    }
    print(save_results(f"model_{given.model}", results))


if __name__ == "__main__":
    main()
