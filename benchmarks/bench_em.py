"""How well are neuronal structures in EM sections segmented, by the measures of the paper?

    python -m benchmarks.bench_em --save em_cpu

Four folds over contiguous sections of the ISBI 2012 training stack: train on eighteen, score the
other six. Probabilities of being inside a cell, averaged over the eight symmetries, are scored by
``bigunet.evaluate``: warping, Rand and pixel error, each at its best threshold, for each section;
and at the threshold with the best Rand error on the training sections of the fold.

The paper's figures are of the challenge's own test stack, whose truth is not public: another
test set, to be read beside these and not against them.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

import bigunet
from bigunet.metrics.report import Evaluation, Scores
from bigunet.models.unet import UNet
from bigunet.training.files import read_image
from bigunet.training.settings import Training

from .measure import save_results
from .trials import DATA, run_side_by_side

PAPER = {"warping": 0.000353, "rand": 0.0382, "pixel": 0.0611}
SECTIONS = 24
FOLDS = 4
MEASURES = ("warping", "rand", "pixel")


def run(data: Path, fold: int, settings: Training) -> dict[str, Any]:
    """Train on all folds but one, score that one."""
    began = time.monotonic()
    held = range(fold * SECTIONS // FOLDS, (fold + 1) * SECTIONS // FOLDS)
    train = [section for section in range(SECTIONS) if section not in held]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = _train(data, place, train, settings)
        trained = time.monotonic() - began
        # Every third training section is enough to choose a threshold.
        chosen = _score(data, place, model, train[::3]).pooled
        threshold = chosen.boundaries.rand_error.threshold if chosen.boundaries else 0.5
        found = _score(data, place, model, held, threshold)
    return {
        "fold": fold,
        "threshold": threshold,
        "sections": {one.name: _figures(one) for one in found.images},
        "pooled": _figures(found.pooled),
        "train_seconds": round(trained),
        "seconds": round(time.monotonic() - began),
    }


def _train(data: Path, place: Path, sections: Sequence[int], settings: Training) -> UNet:
    table = place / "sections.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerows([("name", "subset"), *((f"{s:02}", "train") for s in sections)])
    output = place / "unet.pt"
    bigunet.train(
        data, output, settings=settings, val=table, val_share=0, classes=("membrane", "cell")
    )
    return bigunet.load_model(output)


def _score(
    data: Path, place: Path, model: UNet, sections: Sequence[int], threshold: float = 0.5
) -> Evaluation:
    """Score the probability of the inside of cells."""
    found, truth = place / "found", place / "truth"
    for folder in (found, truth):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for section in sections:
        pixels = read_image(data / "image" / f"{section:02}.png")
        scores = bigunet.predict(pixels, model, augment="d4").compute(scheduler="sync")
        inside = torch.from_numpy(scores).softmax(0)[1].numpy()
        tifffile.imwrite(found / f"{section:02}.tif", inside.astype(np.float32))
        shutil.copy(data / "label" / f"{section:02}.png", truth)
    return bigunet.evaluate(found, truth, kind="probabilities", threshold=threshold)


def _figures(scores: Scores) -> dict[str, Any]:
    sweep = scores.boundaries
    if sweep is None:
        raise ValueError("there are no boundaries in this evaluation")
    best = {
        "warping": sweep.warping_error,
        "rand": sweep.rand_error,
        "pixel": sweep.pixel_error,
        "v_rand": sweep.v_rand,
        "v_info": sweep.v_info,
    }
    figures: dict[str, Any] = {name: round(one.value, 6) for name, one in best.items()}
    return {**figures, "rand_at_fixed_threshold": round(sweep.fixed.rand_error, 6)}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the mean of each figure over all sections."""
    sections = [figures for one in runs for figures in one["sections"].values()]
    return {name: statistics.fmean(s[name] for s in sections) for name in sections[0]}


def main() -> None:
    """Parse options, run, print a table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "isbi2012_em" / "train")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tile", type=int, default=324)
    parser.add_argument("--recipe", choices=("paper", "fast"), default="fast")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--save", metavar="NAME")
    given = parser.parse_args()
    settings = Training(
        width=given.width,
        depth=given.depth,
        recipe=given.recipe,
        epochs=1,
        steps=given.steps,
        tile=given.tile,
    )
    runs = list(run_side_by_side(run, [(given.data, fold, settings) for fold in given.folds]))
    for one in runs:
        for name, figures in one["sections"].items():
            print(name, *(f"{measure} {figures[measure]:.6f}" for measure in figures))
    mean = summary(runs)
    print("mean ", *(f"{measure} {value:.6f}" for measure, value in mean.items()))
    print(
        "paper", *(f"{measure} {PAPER[measure]:.6f}" for measure in MEASURES), "(its own test set)"
    )
    if given.save:
        print(save_results(given.save, {"mean": mean, "paper": PAPER, "folds": runs}))


if __name__ == "__main__":
    main()
