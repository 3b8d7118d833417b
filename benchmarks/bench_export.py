"""How fast are outlines written, and does memory grow with the number of objects?

A label of discs, each with an id of its own, repeated as often as it takes; the image
beside it is empty. Run ``python -m benchmarks.bench_export``; each size is a process of
its own.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.measure import in_process, peak_memory, report, save_results

CHUNK = 1024
PITCH = 32
"""Pixels from disc to disc: about that of nuclei in tissue at 0.5 µm per pixel."""


def write_discs(path: Path, rows: int, columns: int) -> Path:
    """Write an empty image and a label ``discs`` of (rows, columns) chunks full of discs."""
    shape = rows * CHUNK, columns * CHUNK
    _describe(zarr.create_group(path, zarr_format=3)).create_array(
        "0", shape=shape, chunks=(CHUNK, CHUNK), dtype="uint8"
    )
    listing = zarr.create_group(path / "labels", zarr_format=3)
    listing.attrs["ome"] = {"version": "0.5", "labels": ["discs"]}
    group = _describe(zarr.create_group(path / "labels" / "discs", zarr_format=3))
    array = group.create_array("0", shape=shape, chunks=(CHUNK, CHUNK), dtype="uint32")
    cells = CHUNK // PITCH
    y, x = np.mgrid[:CHUNK, :CHUNK]
    disc = np.hypot(y % PITCH - PITCH / 2, x % PITCH - PITCH / 2) < 0.45 * PITCH
    ids = 1 + y // PITCH * cells + x // PITCH
    for row in range(rows):
        for column in range(columns):
            before = (row * columns + column) * cells**2
            part = np.where(disc, ids + before, 0).astype(np.uint32)
            # Half a cell to the left and upwards, so that discs lie across chunks and blocks.
            array[_shifted(row, shape[0]), _shifted(column, shape[1])] = part[
                _kept(row), _kept(column)
            ]
    return path


def _shifted(index: int, size: int) -> slice:
    start = index * CHUNK - PITCH // 2
    return slice(max(0, start), min(start + CHUNK, size))


def _kept(index: int) -> slice:
    return slice(0 if index else PITCH // 2, CHUNK)


def _describe(group: zarr.Group) -> zarr.Group:
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return group


def measure_one(slide: Path, scheduler: str) -> None:
    from bigunet.exports.run import export_labels

    out = slide.parent / "out.geojson"
    began = time.perf_counter()
    result = export_labels(slide, "discs", out, overwrite=True, scheduler=scheduler)
    report(
        seconds=round(time.perf_counter() - began, 2),
        peak=peak_memory(),
        objects=result.objects,
        bytes=out.stat().st_size,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[6, 24, 96])
    parser.add_argument("--columns", type=int, default=8, help="both in chunks of 1,024 objects")
    parser.add_argument("--scheduler", default="threads")
    parser.add_argument("--one", type=Path, help="measure one slide in this process")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    if given.one:
        measure_one(given.one, given.scheduler)
        return
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            slide = write_discs(Path(folder) / f"{rows}.zarr", rows, given.columns)
            arguments = ["--one", str(slide), "--scheduler", given.scheduler]
            figures = in_process("benchmarks.bench_export", arguments)
            results.append({"rows": rows, "columns": given.columns, **figures})
            print(
                f"{figures['objects']:9,} objects  {figures['seconds']:7.1f} s  "
                f"{figures['objects'] / figures['seconds']:7,.0f} objects/s  "
                f"{figures['peak'] / 1e6:6.0f} MB measured"
            )
            shutil.rmtree(slide)
    growth = results[-1]["peak"] / results[0]["peak"]
    print(f"peak at the largest is {growth:.3f} times that at the smallest")
    if given.save:
        facts = {"scheduler": given.scheduler, "sizes": results, "growth": growth}
        print(save_results(given.save, facts))


if __name__ == "__main__":
    main()
