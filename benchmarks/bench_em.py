"""How well are neuronal structures in EM sections segmented, by the measures of the paper?

    python -m benchmarks.bench_em --steps 5000 --save em_cpu
    python -m benchmarks.bench_em --steps 4000 --thin 2 --save em_cpu_thin

Four folds over contiguous sections of the ISBI 2012 training stack: train on eighteen, score the
other six. Probabilities of being inside a cell, averaged over the eight symmetries, are scored by
``bigunet.evaluate``: warping, Rand and pixel error, each at its best threshold, for each section;
and at the threshold with the best Rand error on the training sections of the fold.

The Rand error counts all of a cell that is predicted as membrane, and nothing of a membrane that is
predicted as cell: true membranes that grew by one pixel on each side, with no gap and no false
border, have 0.044. With ``--thin`` networks are trained on membranes from which so many pixels were
taken on each side; the truth they are scored by is the same. And the Rand error is also given of
predicted cells that grew over membranes until they met, as V_Rand is.

The paper's figures are of the challenge's own test stack, whose truth is not public: another
test set, to be read beside these and not against them.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
import torch
from scipy import ndimage

import bigunet
from bigunet.metrics.report import Evaluation, Scores
from bigunet.models.unet import UNet
from bigunet.training.files import read_image
from bigunet.training.settings import Training

from .trials import DATA, run_trials

PAPER = {"warping": 0.000353, "rand": 0.0382, "pixel": 0.0611}
SECTIONS = 24
FOLDS = 4


def run(data: Path, *, fold: int, thin: int, **sizes: Any) -> dict[str, Any]:
    """Train on all folds but one, score that one."""
    began, settings = time.monotonic(), Training(epochs=1, **sizes)
    held = range(fold * SECTIONS // FOLDS, (fold + 1) * SECTIONS // FOLDS)
    train = [section for section in range(SECTIONS) if section not in held]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _copy_sections(data, place, train, thin)
        model = _train(place, settings)
        trained = time.monotonic() - began
        # Every third training section is enough to choose a threshold.
        chosen = _score(data, place, model, train[::3]).pooled
        threshold = chosen.boundaries.rand_error.threshold if chosen.boundaries else 0.5
        found = _score(data, place, model, held, threshold)
    return {
        "threshold": threshold,
        "sections": {one.name: _figures(one) for one in found.images},
        "pooled": _figures(found.pooled),
        "train_seconds": round(trained),
        "seconds": round(time.monotonic() - began),
    }


def thinned(inside: npt.NDArray[np.bool_], pixels: int) -> npt.NDArray[np.bool_]:
    """Let cells grow by so many pixels into membranes, but nowhere so that two touch."""
    cells, _ = ndimage.label(inside)
    away, (y, x) = ndimage.distance_transform_edt(~inside, return_indices=True)
    grown = np.where(away <= pixels, cells[y, x], 0)
    lowest = ndimage.minimum_filter(np.where(grown == 0, np.iinfo(grown.dtype).max, grown), 3)
    touching = (grown > 0) & (ndimage.maximum_filter(grown, 3) != lowest)
    result: npt.NDArray[np.bool_] = inside | ((grown > 0) & ~touching)
    return result


def _copy_sections(data: Path, place: Path, sections: Sequence[int], thin: int) -> None:
    """Lay out what is trained on."""
    for folder in ("images", "masks"):
        (place / folder).mkdir()
    for name in (f"{section:02}" for section in sections):
        shutil.copy(data / "image" / f"{name}.png", place / "images")
        inside = read_image(data / "label" / f"{name}.png")[0] > 0
        mask = thinned(inside, thin).astype(np.uint8) * 255
        tifffile.imwrite(place / "masks" / f"{name}.tif", mask)


def _train(place: Path, settings: Training) -> UNet:
    output = place / "unet.pt"
    bigunet.train(place, output, settings=settings, val_share=0, classes=("membrane", "cell"))
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
    return {
        **figures,
        "rand_at_fixed_threshold": round(sweep.fixed.rand_error, 6),
        "rand_of_grown_cells": round(min(1 - c.thinned.rand_f_score for c in sweep.counts), 6),
    }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean and median of each figure over all sections, and what the paper has."""
    sections = [figures for one in runs for figures in one["sections"].values()]
    found: dict[str, dict[str, float]] = {"paper": PAPER}
    for name, of in (("mean", statistics.fmean), ("median", statistics.median)):
        found[name] = {key: round(of([s[key] for s in sections]), 6) for key in sections[0]}
    return found


def main() -> None:
    """Parse options, run, print a table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "isbi2012_em" / "train")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tile", type=int, default=324)
    parser.add_argument("--recipe", choices=("paper", "fast"), default="fast")
    parser.add_argument("--thin", type=int, default=0, metavar="PIXELS")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json, or go on with it")
    given = parser.parse_args()
    sizes = {
        name: getattr(given, name) for name in ("width", "depth", "steps", "tile", "recipe", "thin")
    }
    cases = [{"fold": fold} for fold in given.folds]
    runs = run_trials(run, given.data, sizes, cases, save=given.save, summary=summary)
    for one in runs:
        for name, figures in one["sections"].items():
            print(name, *(f"{measure} {figures[measure]:.6f}" for measure in figures))
    for of, figures in summary(runs).items():
        print(f"{of:6}", *(f"{measure} {value:.6f}" for measure, value in figures.items()))
    print("The paper's figures are of another test set, the challenge's own.")


if __name__ == "__main__":
    main()
