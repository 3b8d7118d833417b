"""Which recipe trains the better network within the same time: the paper's or the fast one?

    python -m benchmarks.bench_recipes --save recipes_cpu

Both train the same network on the same images for the same number of minutes, on one core each
and side by side; the fast one's cosine falls to zero over the steps that fit. Scores whole groups
of images that were held back.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigunet.training.settings import Recipe, Training

from .measure import save_results
from .trials import (
    DATA,
    hold_back,
    nuclei_images,
    run_side_by_side,
    train_and_score,
)

TIMED_STEPS = 40


def run(
    data: Path, recipe: Recipe, rate: float | None, seed: int, minutes: float, width: int
) -> dict[str, Any]:
    """Time a few steps, train for as many as fit, score."""
    train, held = hold_back(nuclei_images(data, "train", "fluorescence"), 0.2, seed=1)
    settings = Training(
        width=width,
        recipe=recipe,
        learning_rate=rate,
        epochs=1,
        steps=TIMED_STEPS,
        tile=260,
        seed=seed,
    )
    timed = train_and_score(data, train, held[:1], settings)
    steps = round(minutes * 60 / (timed["train_seconds"] / TIMED_STEPS))
    figures = train_and_score(data, train, held, replace(settings, steps=steps))
    return {
        "recipe": recipe,
        "rate": settings.rate,
        "seed": seed,
        "steps": steps,
        **figures,
    }


def main() -> None:
    """Parse options, run, print a table, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "dsb2018")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--paper-rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--save", metavar="NAME")
    given = parser.parse_args()
    kinds: list[tuple[Recipe, float | None]] = [("fast", None)]
    kinds += [("paper", rate) for rate in given.paper_rates]
    cases = [
        (given.data, recipe, rate, seed, given.minutes, given.width)
        for seed in range(given.seeds)
        for recipe, rate in kinds
    ]
    runs = list(run_side_by_side(run, cases))
    print("recipe  rate    seed  steps  seconds  AP@0.5  F1@0.5")
    for one in runs:
        print(
            f"{one['recipe']:<7} {one['rate']:<7g} {one['seed']:<5} {one['steps']:<6} "
            f"{one['train_seconds']:<8} {one['ap'][0]:.3f}   {one['f1'][0]:.3f}"
        )
    if given.save:
        print(save_results(given.save, {"minutes": given.minutes, "runs": runs}))


if __name__ == "__main__":
    main()
