"""How well, and how fast, does the model that ships find the nuclei of the sample slide?

    python -m benchmarks.bench_sample --size 8192 --save sample_cpu
    python -m benchmarks.bench_sample --size 4096 --identity --save sample_identity_cpu

Writes the synthetic slide, segments it with `bigunet.segment_image`, and scores the objects
against the slide's truth with `bigunet.evaluate`. With ``--identity`` it does so for blocks of
512, 1,024 and 2,048 px and 1, 2 and 4 workers, and stops if the ids differ in a single byte.
Each run is a process of its own; imports are not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.measure import in_process, peak_memory, report, save_results

SEED = 0
NAME = "found"
BLOCKS = (512, 1024, 2048)
WORKERS = (1, 2, 4)
# Bits depend on it, so it is one for all.
TILE = 512
# What the model was scored with; see its card.
MIN_AREA = 30


def measure_one(
    slide: Path, model: str, *, tile: int = TILE, block: int | None, workers: int | None
) -> None:
    """Segment the slide in this process and print the figures."""
    from bigunet import load_model, segment_image

    network = load_model(model)
    began = time.perf_counter()
    result = segment_image(
        slide,
        network,
        name=NAME,
        overwrite=True,
        device="cpu",
        tile=tile,
        block=block,
        workers=workers,
        min_area=MIN_AREA,
    )
    report(
        seconds=round(time.perf_counter() - began, 2),
        objects=result.objects,
        block=list(result.plan.tiling.block),
        tile=list(result.plan.tiling.tile),
        workers=result.plan.workers,
        threads=result.plan.threads,
        precision=result.plan.precision,
        peak_megabytes=round(peak_memory() / 1e6),
        sha256=digest(slide / "labels" / NAME / "0"),
    )


def digest(path: Path) -> str:
    """Return the SHA-256 of an array's values in C order, read a row of chunks at a time."""
    array = zarr.open_array(path, mode="r")
    hashed = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    step = array.chunks[-2]
    for y in range(0, array.shape[-2], step):
        hashed.update(np.ascontiguousarray(array[..., y : y + step, :]))
    return hashed.hexdigest()


def score(slide: Path) -> dict[str, Any]:
    """Score the objects against the truth."""
    from bigunet import evaluate

    labels = slide / "labels"
    counts = evaluate(labels / NAME, labels / "truth", kind="instances").pooled.objects
    assert counts is not None
    return {
        "true": counts.true,
        "found": counts.predicted,
        "f1": [round(value, 4) for value in counts.f1],
        "ap": [round(value, 4) for value in counts.ap],
        "mean_ap": round(counts.mean_ap, 4),
        "panoptic_quality": round(counts.panoptic_quality, 4),
        "seg": round(counts.seg, 4),
        "touching": counts.touching,
        "merged": counts.merged,
    }


def check_identity(runs: Sequence[dict[str, Any]]) -> None:
    """Raise RuntimeError unless all runs gave the same ids."""
    kinds = {run["sha256"] for run in runs}
    if len(kinds) > 1:
        table = [(run["block"], run["workers"], run["sha256"][:12]) for run in runs]
        raise RuntimeError(f"the ids depend on blocks or workers: {table}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--slide", type=Path, help="a sample slide that is stored already")
    parser.add_argument("--identity", action="store_true", help="all blocks and workers")
    parser.add_argument("--block", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--one", action="store_true", help="segment --slide in this process")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    if given.one:
        measure_one(given.slide, given.model, block=given.block, workers=given.workers)
        return
    from bigunet.images.sample import write_sample

    with tempfile.TemporaryDirectory() as folder:
        slide = given.slide or write_sample(Path(folder, "slide.zarr"), given.size, SEED)
        pairs = product(BLOCKS, WORKERS) if given.identity else [(given.block, given.workers)]
        runs = [run_in_process(slide, given.model, *pair) for pair in pairs]
        check_identity(runs)
        scores = score(slide)
    print(
        f"{scores['found']} objects of {scores['true']}: F1@0.5 {scores['f1'][0]:.4f}, "
        f"AP@0.5 {scores['ap'][0]:.4f}, mean AP {scores['mean_ap']:.4f}, "
        f"{scores['merged']} of {scores['touching']} touching pairs merged"
    )
    if given.save:
        sizes = {"size": given.size, "model": given.model, "min_area": MIN_AREA}
        print(save_results(given.save, {**sizes, "scores": scores, "runs": runs}))


def run_in_process(
    slide: Path, model: str, block: int | None, workers: int | None
) -> dict[str, Any]:
    """Segment the slide in a process of its own and print a line."""
    asked = {"--slide": slide, "--model": model, "--block": block, "--workers": workers}
    chosen = [str(part) for pair in asked.items() if pair[1] is not None for part in pair]
    run = in_process("benchmarks.bench_sample", ["--one", *chosen])
    print(
        f"blocks of {run['block'][0]:5} px, {run['workers']} workers: {run['seconds']:8.1f} s, "
        f"{run['peak_megabytes']} MB, sha256 {run['sha256'][:12]}",
        flush=True,
    )
    return run


if __name__ == "__main__":
    main()
