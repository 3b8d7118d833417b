"""How much of a run is the network: ours against the floor and the plain recipe.

``floor``
    The bare forward passes of the same pixels: tiles of the same shape, cut
    from an array in memory that is normalised already. No reading, no argmax,
    no writing. Nothing that uses this network eagerly can be faster.
``ours``
    `bigunet.segment_image`, end to end: read, normalise, predict, write, pyramid,
    metadata.
``recipe``
    What one writes by hand: `da.from_zarr`, `map_overlap` with an eager float32
    network, argmax, `to_zarr`; blocks of 1,024 px, one task per core, no pyramid.

Each is a process of its own; imports and the model's loading are not counted.
Run ``python -m benchmarks.bench_segment``; see README.md for how to read it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import (
    in_process,
    interleaved,
    median,
    peak_memory,
    report,
    save_results,
)

WAYS = ("floor", "ours", "recipe")
SEED = 0


class Spent:
    """Wall-clock and processor seconds, of all threads, inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> Spent:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


def make_model(width: int, depth: int) -> Any:
    import torch

    from bigunet import UNet
    from bigunet.images.intensity import as_rule
    from bigunet.models.card import ModelCard

    torch.manual_seed(SEED)
    model = UNet(1, 2, width=width, depth=depth).eval()
    model.card = ModelCard(intensity=as_rule("percentile"))
    return model


def run_floor(slide: Path, model: Any) -> Spent:
    """Time forward passes alone; every tile of the plan, one after another."""
    import torch

    from bigunet.images.intensity import normalise
    from bigunet.inference import mirrored
    from bigunet.pipeline import plan_image

    plan = plan_image(slide, model, device="cpu", name="floor")
    plane = plan.planes[0]
    pixels = plane.read(slice(0, plane.shape[1]), slice(0, plane.shape[2]))
    low, high = np.percentile(pixels[:, ::8, ::8], (1, 99.8))
    image = normalise(pixels, ((low, high),))
    last = torch.channels_last
    network = model.to(memory_format=last)
    spent = Spent()
    with torch.inference_mode():
        for block in plan.tiling.blocks():
            for tile in plan.tiling.tiles(block):
                cut = mirrored(image, (0, 0), plan.tiling.tile_read(tile), plan.tiling.shape)
                x = torch.from_numpy(np.ascontiguousarray(cut))[None].contiguous(memory_format=last)
                with spent:
                    network(x)
    return spent


def run_ours(slide: Path, model: Any) -> Spent:
    from bigunet import segment_image

    with Spent() as spent:
        segment_image(slide, model, device="cpu", name="ours", overwrite=True)
    return spent


def run_recipe(slide: Path, model: Any) -> Spent:
    import dask.array as da
    import torch

    from bigunet.geometry import legal_output, margin

    side = 1024
    before = margin(model.depth)
    depth = before + legal_output(side, model.depth) - side
    spent = Spent()
    image = da.from_zarr(str(slide / "0"))[0].rechunk(side)
    sample = np.asarray(image[::8, ::8])
    low, high = np.percentile(sample, (1, 99.8))

    def classes(block: np.ndarray) -> np.ndarray:
        x = (block[depth - before :, depth - before :].astype(np.float32) - low) / (high - low)
        with torch.inference_mode():
            scores = model(torch.from_numpy(x.astype(np.float32))[None, None])[0]
        return scores.argmax(0).numpy().astype(np.uint8)[:side, :side]

    mask = da.map_overlap(
        classes,
        image,
        depth=depth,
        boundary="reflect",
        trim=False,
        allow_rechunk=False,
        chunks=image.chunks,
        meta=np.empty((0, 0), np.uint8),
    )
    with tempfile.TemporaryDirectory() as folder, spent:
        mask.to_zarr(folder + "/mask.zarr")
    return spent


RUN = {"floor": run_floor, "ours": run_ours, "recipe": run_recipe}


def measure_one(way: str, slide: Path, width: int, depth: int) -> None:
    """Run one way in this process and print its figures."""
    model = make_model(width, depth)
    base = peak_memory()
    spent = RUN[way](slide, model)
    report(seconds=spent.seconds, cpu=spent.cpu, peak=peak_memory(), before=base)


def compare(slide: Path, width: int, depth: int, repeats: int) -> dict[str, Any]:
    def measure(way: str) -> dict[str, Any]:
        return in_process(
            "benchmarks.bench_segment",
            ["--one", way, "--slide", str(slide), "--width", str(width), "--depth", str(depth)],
        )

    runs = interleaved(measure, WAYS, repeats)
    return {way: figures(runs[way], runs["floor"]) for way in WAYS}


def figures(runs: list[dict[str, Any]], floors: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians, and ratios to the floor taken pair by pair."""
    pairs = list(zip(runs, floors, strict=True))
    each = [run["seconds"] / floor["seconds"] for run, floor in pairs]
    return {
        "seconds": round(median(runs, "seconds"), 3),
        "times_floor": round(statistics.median(each), 3),
        "times_floor_each": [round(ratio, 3) for ratio in each],
        "times_floor_cpu": round(statistics.median(r["cpu"] / f["cpu"] for r, f in pairs), 3),
        "peak_megabytes": round(median(runs, "peak") / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--one", choices=WAYS, help="measure one way in this process")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    if given.one:
        measure_one(given.one, given.slide, given.width, given.depth)
        return
    from bigunet.images.sample import write_sample

    with tempfile.TemporaryDirectory() as folder:
        slide = given.slide or write_sample(Path(folder) / "slide.zarr", given.size, SEED)
        results = compare(slide, given.width, given.depth, given.repeats)
    results = {"size": given.size, "width": given.width, "depth": given.depth, "ways": results}
    for way, found in results["ways"].items():
        print(
            f"{way:8} {found['seconds']:8.2f} s  {found['times_floor']:.3f} × floor "
            f"({found['times_floor_cpu']:.3f} × its processor time)  "
            f"{found['peak_megabytes']} MB  {found['times_floor_each']}"
        )
    if given.save:
        print(save_results(given.save, results))


if __name__ == "__main__":
    main()
