"""Does memory grow with the slide? Peak of `segment_image` over slides of growing size.

A tiny network, so that a gigapixel takes minutes; pixels come from a stored
slide that repeats one chunk's file by hard links, so that it takes no disk.
Run ``python -m benchmarks.bench_memory``; each size is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.measure import in_process, peak_memory, report, save_results

CHUNK = 1024


def write_repeated_slide(path: Path, size: int) -> Path:
    """Write a (size, size) uint8 slide whose chunks are links to one file."""
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array("0", shape=(size, size), chunks=(CHUNK, CHUNK), dtype="uint8")
    side = min(size, CHUNK)
    noise = np.random.default_rng(0).integers(0, 255, (side, side), dtype=np.uint8)
    array[:side, :side] = noise
    first = path / "0" / "c" / "0" / "0"
    for row in range(-(-size // CHUNK)):
        folder = path / "0" / "c" / str(row)
        folder.mkdir(exist_ok=True)
        for column in range(-(-size // CHUNK)):
            if (row, column) != (0, 0):
                _link(first, folder / str(column))
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return path


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def measure_one(slide: Path, block: int | None) -> None:
    from bigunet import UNet, segment_image

    model = UNet(1, 2, width=1, depth=1)
    began = time.perf_counter()
    result = segment_image(slide, model, device="cpu", overlap="direct", block=block)
    report(
        seconds=round(time.perf_counter() - began, 2),
        peak=peak_memory(),
        projected=result.plan.memory.projected,
        blocks=result.plan.blocks,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--one", type=Path, help="measure one slide in this process")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    if given.one:
        measure_one(given.one, given.block)
        return
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in given.sizes:
            slide = write_repeated_slide(Path(folder) / f"{size}.zarr", size)
            arguments = ["--one", str(slide), "--block", str(given.block)]
            figures = in_process("benchmarks.bench_memory", arguments)
            results.append({"size": size, **figures})
            print(
                f"{size:6}²  {figures['peak'] / 1e6:7.0f} MB measured  "
                f"{figures['projected'] / 1e6:7.0f} MB projected  {figures['seconds']:8.1f} s"
            )
            shutil.rmtree(slide)
    growth = results[-1]["peak"] / results[0]["peak"]
    print(f"peak at the largest is {growth:.3f} times that at the smallest")
    if given.save:
        print(save_results(given.save, {"block": given.block, "sizes": results, "growth": growth}))


if __name__ == "__main__":
    main()
