"""Do the separation weights of the paper keep touching nuclei apart?

    python -m benchmarks.bench_separation --save separation_cpu

Trains the same network with and without the border term of the weight map (w0 of 10 and of 0),
several seeds each, on the same images; everything else, the 2-px gap of the target and the
threshold included, is the same. Scores whole groups of images that were held back.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from bigunet.training.settings import Training

from .trials import DATA, hold_back, nuclei_images, run_trials, train_and_score


def run(data: Path, *, w0: float, seed: int, steps: int, tile: int, width: int) -> dict[str, Any]:
    """Train once and score once."""
    began = time.monotonic()
    images = nuclei_images(data, "train", "fluorescence")
    train, held = hold_back(images, 0.2, seed=1)
    settings = Training(width=width, epochs=1, steps=steps, tile=tile, w0=w0, seed=seed)
    figures = train_and_score(data, train, held, settings)
    share = figures["merged"] / max(1, figures["touching"])
    seconds = round(time.monotonic() - began)
    return {"merged_share": round(share, 4), **figures, "seconds": seconds}


def main() -> None:
    """Parse options, run, print a table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "dsb2018")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--tile", type=int, default=260)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json, or go on with it")
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("steps", "tile", "width")}
    cases = [{"w0": w0, "seed": seed} for seed in range(options.seeds) for w0 in (10.0, 0.0)]
    runs = run_trials(run, options.data, sizes, cases, save=options.save)
    print("w0    seed  merged of touching    AP@0.5")
    for one in runs:
        print(
            f"{one['w0']:<5g} {one['seed']:<5} {one['merged']:>4} of {one['touching']} "
            f"({one['merged_share']:.3f})  {one['ap'][0]:.3f}"
        )


if __name__ == "__main__":
    main()
