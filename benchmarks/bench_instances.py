"""What does it cost to give every object of a stored mask an id?

``scipy``
    `scipy.ndimage.label` of the whole array in memory: the answer to give, and the
    time to be compared with, as long as the array fits.
``ours``
    `bigunet.instances.label`, block by block; the same ids, which is checked.
``dask-image``
    `dask_image.ndmeasure.label` of the same blocks, where that package is installed.
    The same objects; their number is checked.

All read the same mask (the nuclei of the synthetic slide) from the same Zarr and
write ids, uint32, to arrays beside it with the same chunks and codec. Each is a
process of its own; imports are not counted. Run ``python -m benchmarks.bench_instances``.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr

from benchmarks.measure import in_process, interleaved, median, peak_memory, report, save_results

WAYS = ("scipy", "ours", "dask-image")
SEED = 0


def installed() -> tuple[str, ...]:
    """Return the ways that can be run here."""
    missing = set() if importlib.util.find_spec("dask_image") else {"dask-image"}
    return tuple(way for way in WAYS if way not in missing)


def write_mask(folder: Path, size: int, block: int) -> Path:
    """Write the nuclei of the synthetic slide as a (size, size) mask, 1 and 0."""
    from bigunet.images.sample import sample_arrays

    _, truth = sample_arrays(size, SEED, chunks=block)
    mask = zarr.create_array(
        folder / "mask", shape=(size, size), chunks=(block, block), dtype="uint8"
    )
    da.store((truth > 0).astype(np.uint8), mask, lock=False)
    return folder


def run_scipy(mask: zarr.Array, ids: zarr.Array) -> int:
    from scipy import ndimage

    labels, count = ndimage.label(mask[:])
    ids[:] = labels
    return int(count)


def run_ours(mask: zarr.Array, ids: zarr.Array) -> int:
    from bigunet.instances.label import label

    return _store(*label(da.from_zarr(mask)), ids)


def run_dask_image(mask: zarr.Array, ids: zarr.Array) -> int:
    from dask_image import ndmeasure

    return _store(*ndmeasure.label(da.from_zarr(mask)), ids)


def _store(labels: da.Array, count: da.Array, ids: zarr.Array) -> int:
    stored = da.store(labels.astype(np.uint32), ids, lock=False, compute=False)
    return int(dask.compute(count, stored)[0])


RUN = {"scipy": run_scipy, "ours": run_ours, "dask-image": run_dask_image}
# What a way imports when it runs, so that it is not counted.
IMPORTS = {
    "scipy": "scipy.ndimage",
    "ours": "bigunet.instances.label",
    "dask-image": "dask_image.ndmeasure",
}


def measure_one(way: str, folder: Path) -> None:
    """Run one way in this process and print its figures."""
    importlib.import_module(IMPORTS[way])
    mask = zarr.open_array(folder / "mask", mode="r")
    ids = zarr.create_array(
        folder / way, shape=mask.shape, chunks=mask.chunks, dtype="uint32", overwrite=True
    )
    base = peak_memory()
    began = time.perf_counter()
    count = RUN[way](mask, ids)
    report(
        seconds=time.perf_counter() - began,
        objects=count,
        peak=peak_memory(),
        above_start=peak_memory() - base,
    )


def same_ids(folder: Path) -> bool:
    """Compare our stored ids with scipy's, a row of blocks at a time."""
    expected, found = (zarr.open_array(folder / way, mode="r") for way in ("scipy", "ours"))
    step = expected.chunks[0]
    rows = range(0, expected.shape[0], step)
    return all(np.array_equal(expected[y : y + step], found[y : y + step]) for y in rows)


def compare(folder: Path, repeats: int) -> dict[str, Any]:
    """Measure all ways in turn; ratios to scipy are taken run by run."""

    def measure(way: str) -> dict[str, Any]:
        return in_process("benchmarks.bench_instances", ["--one", way, "--folder", str(folder)])

    runs = interleaved(measure, installed(), repeats)
    if len({run["objects"] for all_of_way in runs.values() for run in all_of_way}) != 1:
        raise RuntimeError(f"the ways found different numbers of objects: {runs}")
    if not same_ids(folder):
        raise RuntimeError("our ids are not scipy's")
    return {way: figures(runs[way], runs["scipy"]) for way in runs}


def figures(runs: list[dict[str, Any]], whole: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians, and the ratio to labelling the whole array."""
    each = [run["seconds"] / other["seconds"] for run, other in zip(runs, whole, strict=True)]
    return {
        "seconds": round(median(runs, "seconds"), 3),
        "times_scipy": round(statistics.median(each), 3),
        "times_scipy_each": [round(ratio, 3) for ratio in each],
        "objects": runs[0]["objects"],
        "peak_megabytes": round(median(runs, "peak") / 1e6),
        "above_start_megabytes": round(median(runs, "above_start") / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where a mask is stored already")
    parser.add_argument("--one", choices=WAYS, help="measure one way in this process")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    if given.one:
        measure_one(given.one, given.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or write_mask(Path(temporary), given.size, given.block)
        ways = compare(folder, given.repeats)
    for way, found in ways.items():
        print(
            f"{way:10} {found['seconds']:8.2f} s  {found['times_scipy']:7.3f} × scipy  "
            f"{found['objects']} objects  {found['peak_megabytes']} MB "
            f"({found['above_start_megabytes']} above the start)  {found['times_scipy_each']}"
        )
    for way in sorted(set(WAYS) - set(ways)):
        print(f"{way:10} is not installed: pip install {way}")
    if given.save:
        results = {"size": given.size, "block": given.block, "ways": ways}
        print(save_results(given.save, results))


if __name__ == "__main__":
    main()
