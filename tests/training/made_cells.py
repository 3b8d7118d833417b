"""Small annotated images of cells, and runs small enough to be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.draw import disk

from bigunet import load_model
from bigunet.training.dataset import open_dataset
from bigunet.training.run import Run
from bigunet.training.run_files import RunFiles
from bigunet.training.settings import Training

TINY = Training(width=2, depth=1, epochs=3, steps=4, tile=32, seed=7)


def write_cells(folder: Path, count: int = 4, side: int = 72) -> Path:
    """Write images of bright discs on a dark ground, some of them touching."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        ids = np.zeros((side, side), np.uint16)
        # Ids of their own in every image: few values could be classes, too, and be refused.
        for label in range(20 * number + 1, 20 * number + 9):
            ids[disk(rng.integers(5, side - 5, 2), 7, shape=ids.shape)] = label
        image = rng.normal(40 + 120 * (ids > 0), 8).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(ids).save(folder / "masks" / f"{number}.png")
    return folder


def new_run(data: Path, model: Path, settings: Training = TINY, **options: Any) -> Run:
    """Return a run that has not begun."""
    return Run(open_dataset(data, **options), settings, RunFiles(model), None, "cpu")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(path).state_dict())


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def states(*models: Path) -> list[dict[str, Any]]:
    """Return what runs left to go on from."""
    return [torch.load(m.with_suffix(".state.pt"), weights_only=True) for m in models]
