"""Do time and memory grow with the slide? `segment_image` over slides of growing size.

Each size is a process of its own; imports and making the network are not counted, and what a slide
of 512² takes is subtracted as start-up. Time is expected to grow as the pixels do (a slope of 1 in
log-log), memory not at all. Slides repeat one chunk's file by hard links, so that they take no disk.
A network of ``--width 1 --depth 1`` leaves little but the machinery.

Run ``python -m benchmarks.bench_scaling``.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.inputs import make_network, sample_chunk, write_repeated_slide
from benchmarks.measure import in_process, interleaved, median, peak_memory, report, save_results

SMALL = 512
OPTIONS = ("precision", "runtime", "overlap", "block", "tile")


def main() -> None:
    """Parse options, measure one slide or all, print a table, save."""
    given = _options()
    options = {name: getattr(given, name) for name in OPTIONS if getattr(given, name) is not None}
    if given.one:
        measure_one(given.one, given.width, given.depth, options)
        return
    chosen = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    chosen += ["--width", str(given.width), "--depth", str(given.depth)]
    runs = measure_all([SMALL, *given.sizes], chosen, given.repeats)
    found = summary(runs)
    for row in found["sizes"]:
        print(
            f"{row['size']:6}²  {row['seconds']:8.1f} s  {row['peak_megabytes']:6} MB measured  "
            f"{row['projected_megabytes']:6} MB projected"
        )
    print(f"slope {found['slope']:.3f} in log-log, start-up of {found['startup_seconds']} s apart")
    print(f"peak at the largest is {found['growth']:.3f} times that at the smallest")
    if given.save:
        sizes = {"width": given.width, "depth": given.depth, **options}
        print(save_results(given.save, {**sizes, **found}))


def measure_one(slide: Path, width: int, depth: int, options: dict[str, Any]) -> None:
    """Segment one slide in this process and print its figures."""
    from bigunet import segment_image

    model = make_network(width, depth)
    began = time.perf_counter()
    result = segment_image(slide, model, device="cpu", name="scaling", save=("classes",), **options)
    report(
        seconds=round(time.perf_counter() - began, 3),
        peak=peak_memory(),
        projected=result.plan.memory.projected,
        blocks=result.plan.blocks,
        block=list(result.plan.tiling.block),
        tile=list(result.plan.tiling.tile),
        runtime=result.plan.runtime,
    )


def measure_all(
    sizes: Sequence[int], options: Sequence[str], repeats: int
) -> dict[int, list[dict[str, Any]]]:
    """Return the runs of each size, taken in turn."""
    pixels = sample_chunk()
    with tempfile.TemporaryDirectory() as folder:

        def measure(size: str) -> dict[str, Any]:
            slide = write_repeated_slide(Path(folder) / f"{size}.zarr", int(size), pixels)
            found = in_process("benchmarks.bench_scaling", ["--one", str(slide), *options])
            shutil.rmtree(slide)
            print(f"{size}²: {found['seconds']} s", flush=True)
            return found

        runs = interleaved(measure, [str(size) for size in sizes], repeats)
    return {int(size): found for size, found in runs.items()}


def summary(runs: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a row for each size but the smallest, which is start-up, and what they show together."""
    (small, first), *rest = sorted(runs.items())
    startup = median(first, "seconds")
    rows = [
        {
            "size": size,
            "seconds": round(median(found, "seconds"), 3),
            "seconds_each": [one["seconds"] for one in found],
            "peak_megabytes": round(median(found, "peak") / 1e6),
            "projected_megabytes": round(found[0]["projected"] / 1e6),
            **{name: found[0][name] for name in ("blocks", "block", "tile", "runtime")},
        }
        for size, found in rest
    ]
    return {
        "startup_size": small,
        "startup_seconds": startup,
        "slope": slope([(row["size"] ** 2, row["seconds"] - startup) for row in rows]),
        "growth": round(rows[-1]["peak_megabytes"] / rows[0]["peak_megabytes"], 3),
        "sizes": rows,
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the exponent of the power law nearest to (x, y), by least squares of logarithms."""
    logs = ([math.log(one[axis]) for one in points] for axis in (0, 1))
    return round(statistics.linear_regression(*logs).slope, 4)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--precision")
    parser.add_argument("--runtime")
    parser.add_argument("--overlap")
    parser.add_argument("--block", type=int)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one", type=Path, help="measure one slide in this process")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
