"""What do five annotated images give, with nothing but what the README says?

    python -m benchmarks.bench_five_images --height 360 --save five_images_cpu

Puts five fluorescence images of different groups into a folder, trains with the README's command
and nothing else, and segments images of groups that were held back. Images of one height come from
one kind of experiment, which is what a user has; without ``--height`` they are of all kinds.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bigunet

from .bench_learning_curve import choose
from .measure import save_results
from .trials import DATA, Image, hold_back, nuclei_images, object_figures, score_model

IMAGES = 5


def fill(folder: Path, data: Path, images: Sequence[Image]) -> None:
    """Lay out images and masks as the README tells users to."""
    for kind, source in (("images", "image"), ("masks", "label")):
        (folder / kind).mkdir(parents=True)
        for image in images:
            shutil.copy(data / source / f"{image.name}.png", folder / kind)


def train(folder: Path, options: Sequence[str]) -> tuple[Path, float]:
    """Run the README's command; return the model and the seconds that it took."""
    call = "from bigunet.cli.main import main; main()"
    command = [sys.executable, "-c", call, "train", "cells", "--output", "cells.pt", *options]
    began = time.monotonic()
    subprocess.run(command, cwd=folder, check=True)
    return folder / "cells.pt", time.monotonic() - began


def run(data: Path, height: int | None, seed: int, options: Sequence[str]) -> dict[str, Any]:
    """Train once and score once."""
    images = nuclei_images(data, "train", "fluorescence")
    same = [image for image in images if height in (None, image.height)]
    annotated, held = hold_back(same, 0.2, seed=1)
    chosen = choose(annotated, IMAGES, seed)
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder, "cells"), data, chosen)
        path, seconds = train(Path(folder), options)
        model = bigunet.load_model(path)
    figures = object_figures(score_model(data, held, model))
    return {
        "height": height,
        "seed": seed,
        "annotated": len(chosen),
        "minutes": round(seconds / 60, 1),
        **figures,
    }


def main() -> None:
    """Parse options, run, print a table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "dsb2018")
    parser.add_argument("--height", type=int, metavar="PX")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--save", metavar="NAME")
    given, options = parser.parse_known_args()
    runs = [run(given.data, given.height, seed, options) for seed in given.seeds]
    print("seed  minutes  F1@0.5  AP@0.5  merged of touching")
    for one in runs:
        print(
            f"{one['seed']:<5} {one['minutes']:<8} {one['f1'][0]:.3f}   {one['ap'][0]:.3f}   "
            f"{one['merged']} of {one['touching']}"
        )
    if given.save:
        print(save_results(given.save, {"runs": runs}))


if __name__ == "__main__":
    main()
