"""What the trials of training share: which images, train on them, segment others, score those."""

from __future__ import annotations

import csv
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

import bigunet
from bigunet.metrics.report import Evaluation
from bigunet.models.unet import UNet
from bigunet.training.files import read_image
from bigunet.training.settings import Training

from .measure import conditions, read_results, save_results

__all__ = [
    "DATA",
    "Image",
    "hold_back",
    "nuclei_images",
    "object_figures",
    "run_side_by_side",
    "run_trials",
    "score_model",
    "train_and_score",
    "write_table",
]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Where the annotated images are; see docs/training.md for their sources."""


@dataclass(frozen=True)
class Image:
    """A row of ``dsb2018/split.csv``."""

    name: str
    subset: str
    group: str
    domain: str
    channels: int
    height: int


def nuclei_images(data: Path, subset: str, *domains: str) -> list[Image]:
    """Return the nuclei images of a subset, and of some domains only."""
    with (data / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            Image(
                r["name"],
                r["subset"],
                r["group"],
                r["domain"],
                int(r["channels"]),
                int(r["height"]),
            )
            for r in csv.DictReader(file)
        ]
    return [r for r in rows if r.subset == subset and (not domains or r.domain in domains)]


def hold_back(images: Sequence[Image], share: float, seed: int) -> tuple[list[Image], list[Image]]:
    """Split images into those to train with and those held back, whole groups of each domain."""
    held: set[str] = set()
    for domain in sorted({image.domain for image in images}):
        own = [image for image in images if image.domain == domain]
        sizes = Counter(image.group for image in own)
        groups = sorted(sizes)
        random.Random(seed).shuffle(groups)
        taken = 0
        for group in groups:
            if taken + sizes[group] / 2 <= share * len(own):
                held.add(group)
                taken += sizes[group]
    return (
        [image for image in images if image.group not in held],
        [image for image in images if image.group in held],
    )


def write_table(path: Path, train: Iterable[Image], val: Iterable[Image] = ()) -> Path:
    """Write a table as ``bigunet train --val`` takes it: which images are used, and for what."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("name", "subset", "group"))
        for subset, images in (("train", train), ("val", val)):
            table.writerows((image.name, subset, image.group) for image in images)
    return path


def train_and_score(
    data: Path, train: Iterable[Image], held: Sequence[Image], settings: Training
) -> dict[str, Any]:
    """Train on some images to the last step; return the figures of objects found in others."""
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder, "images.csv"), train)
        trained = bigunet.train(
            data,
            Path(folder, "unet.pt"),
            settings=settings,
            masks="instances",
            val=table,
            val_share=0,
        )
        model = bigunet.load_model(trained.path)
    figures = object_figures(score_model(data, held, model))
    return {**figures, "train_seconds": round(trained.epochs[0].seconds, 1)}


def score_model(
    data: Path, images: Sequence[Image], model: UNet, *, min_area: int = 0
) -> Evaluation:
    """Segment images into objects and score them with ``bigunet.evaluate``, pooled."""
    with tempfile.TemporaryDirectory() as folder:
        found, truth = Path(folder, "found"), Path(folder, "truth")
        found.mkdir()
        truth.mkdir()
        for image in images:
            pixels = read_image(data / "image" / f"{image.name}.png")
            ids = bigunet.objects(pixels, model, min_area=min_area)[0].compute()
            tifffile.imwrite(found / f"{image.name}.tif", np.asarray(ids, np.uint16))
            shutil.copy(data / "label" / f"{image.name}.png", truth)
        return bigunet.evaluate(found, truth, kind="instances")


def object_figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return what is reported of objects."""
    counts = evaluation.pooled.objects
    if counts is None:
        raise ValueError("there are no objects in this evaluation")
    return {
        "images": len(evaluation.images),
        "ap": [round(value, 4) for value in counts.ap],
        "f1": [round(value, 4) for value in counts.f1],
        "seg": round(counts.seg, 4),
        "touching": counts.touching,
        "merged": counts.merged,
    }


def run_trials(
    function: Callable[..., dict[str, Any]],
    data: Path,
    sizes: dict[str, Any],
    cases: Sequence[dict[str, Any]],
    *,
    save: str | None,
    summary: Callable[[Sequence[dict[str, Any]]], dict[str, Any]] = lambda _: {},
) -> list[dict[str, Any]]:
    """Return all cases with their figures; save after each, and go on with what was saved.

    Hours of trainings may be cut short. Each run says of which commit it is and on which processor
    it ran, for later ones may differ. Runs of other sizes are begun anew.

    Parameters
    ----------
    function : callable
        Called with the data, and with all sizes and one case by name; returns its figures.
    sizes : dict
        What is the same in all cases.
    cases : sequence of dict
        What is not.
    save : str or None
        Name of the results.
    summary : callable
        What is saved of all runs together.
    """
    saved = read_results(save) if save else {}
    runs: list[dict[str, Any]] = saved.get("runs", []) if saved.items() >= sizes.items() else []
    if runs:
        print(f"going on with {len(runs)} runs that were saved")
    waiting = [case for case in cases if not any(run.items() >= case.items() for run in runs)]
    work = partial(_run_case, function, data, sizes)
    for case, figures in zip(
        waiting, run_side_by_side(work, [(case,) for case in waiting]), strict=True
    ):
        made = conditions()
        runs.append({**case, **figures, **{name: made[name] for name in ("commit", "cpu")}})
        print(*(f"{name} {value}" for name, value in case.items()), "is done", flush=True)
        if save:
            save_results(save, {**sizes, **summary(runs), "runs": runs})
    return runs


def _run_case(
    function: Callable[..., dict[str, Any]],
    data: Path,
    sizes: dict[str, Any],
    case: dict[str, Any],
) -> dict[str, Any]:
    return function(data, **sizes, **case)


def run_side_by_side(
    function: Callable[..., Any], cases: Sequence[tuple[Any, ...]]
) -> Iterator[Any]:
    """Call a function with each case in processes, one per core, one thread each; yields in order."""
    if not cases:
        return
    with ProcessPoolExecutor(
        torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield from pool.map(function, *zip(*cases, strict=True))
