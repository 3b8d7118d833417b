"""How much of a run is the network, and how do others do? One slide, one network, many ways.

Ways are those of `benchmarks.ways`, each in a process of its own, in turn; imports and making the
network are not counted. The *floor* is the bare network in the runtime and with the tiles that take
it the least time here, tried first on a few passes. *Start-up* is what ours takes of a slide of
512², less the network's share: the floor's time for as many pixels. Ratios are taken run by run.

Pixels that differ are counted on a corner of the slide, segmented as a slide of its own, against
one eager float32 pass over all of it; ties as docs/exactness.md defines them.

Run ``python -m benchmarks.bench_segment``; see README.md for how to read it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.inputs import SEED, make_network, write_image
from benchmarks.measure import in_process, interleaved, median, peak_memory, report, save_results
from benchmarks.ways import WAYS, Job, differing, missing, project_floor

TIMED = tuple(way for way in WAYS if way != "reference")
PRECISIONS = ("float32", "bfloat16")
RUNTIMES = ("eager", "compile", "openvino")
FACTS = ("runtime", "tile", "block", "workers")
"""What ours chose."""
SMALL = 512
"""Side in pixels of the slide that shows what starting costs."""

Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Parse options, measure one way or all, print a table, save."""
    given = _options()
    if given.one:
        measure_one(given)
        return
    left_out = missing()
    ways = [way for way in given.ways if way not in left_out]
    for way in set(given.ways) & left_out.keys():
        print(f"{way} is left out: {left_out[way]}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given)
        floors = {p: bench.choose_floor(p) for p in PRECISIONS if f"floor-{p}" in ways}
        runs = bench.time_all(ways, floors)
        differ = bench.compare_all([way for way in ways if not way.startswith("floor")])
    table = {way: figures(way, runs, given.size) | differ.get(way, {}) for way in ways}
    for way, found in table.items():
        print(_line(way, found))
    if given.save:
        sizes = {name: getattr(given, name) for name in ("size", "width", "depth", "crop")}
        results = {**sizes, "floors": floors, "ways": table, "left_out": left_out}
        print(save_results(given.save, results))


def measure_one(given: argparse.Namespace) -> None:
    """Go one way in this process and print its figures."""
    job = Job(
        slide=given.slide,
        model=make_network(given.width, given.depth),
        output=given.output,
        limits=None if given.limits is None else (tuple(given.limits),),
        tile=given.tile,
        runtime=given.runtime,
    )
    before = peak_memory()
    if given.project:
        report(seconds=project_floor(job, given.one.removeprefix("floor-")))
        return
    spent = WAYS[given.one](job)
    report(seconds=spent.seconds, cpu=spent.cpu, peak=peak_memory(), before=before, **spent.facts)


class Bench:
    """The slides of a benchmark, and what is run on them.

    Parameters
    ----------
    folder : path
        Where slides and results may lie.
    given : namespace
        What the command was told.
    """

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        from bigunet.images.sample import write_sample

        self.folder, self.given = folder, given
        self.slide = given.slide or write_sample(folder / "slide.zarr", given.size, SEED)
        self.small = write_sample(folder / "small.zarr", min(SMALL, given.size), SEED)
        self._outputs = iter(range(10**9))

    def choose_floor(self, precision: str) -> dict[str, Any]:
        """Try runtimes and tiles, and return those that take a floor the least time."""
        tried = [one for name in self.given.floor_runtimes for one in self._tries(name, precision)]
        if not tried:
            raise RuntimeError(f"no runtime of {self.given.floor_runtimes} has {precision} here")
        best = min(tried, key=lambda one: one["seconds"])
        return {"runtime": best["runtime"], "tile": best["tile"], "tried": tried}

    def _tries(self, runtime: str, precision: str) -> Iterator[dict[str, Any]]:
        """Yield what a few passes say of each tile; nothing of a runtime that is not here."""
        for tile in self.given.floor_tiles or [None]:
            options = ["--runtime", runtime, *([] if tile is None else ["--tile", str(tile)])]
            try:
                found = self._run(f"floor-{precision}", self.slide, ["--project", *options])
            except RuntimeError as error:
                print(f"floor in {runtime}, {precision}, is left out: {_last_line(error)}")
                return
            print(f"floor in {runtime}, {precision}, tile {tile or 'as planned'}: {found}")
            yield {"runtime": runtime, "tile": tile, **found}

    def time_all(self, ways: Sequence[str], floors: dict[str, dict[str, Any]]) -> Runs:
        """Go all ways in turn, and ours on the small slide too."""
        small = {f"small-{way}": way for way in ways if way.startswith("ours")}

        def measure(name: str) -> dict[str, Any]:
            if name in small:
                return self._run(small[name], self.small)
            floor = floors.get(name.removeprefix("floor-"))
            options = [] if floor is None else ["--runtime", floor["runtime"]]
            if floor is not None and floor["tile"] is not None:
                options += ["--tile", str(floor["tile"])]
            found = self._run(name, self.slide, options)
            print(f"{name:15} {found['seconds']:8.2f} s", flush=True)
            return found

        return interleaved(measure, [*ways, *small], self.given.repeats)

    def compare_all(self, ways: Sequence[str]) -> dict[str, dict[str, int]]:
        """Go all ways on a corner of the slide, and count the pixels that differ."""
        crop, limits = self._write_crop()
        options = ["--limits", *map(str, limits)]
        outputs = {way: self._output() for way in ("reference", *ways)}
        for way, output in outputs.items():
            self._run(way, crop, options, output)
        return {way: differing(outputs[way], outputs["reference"]) for way in ways}

    def _write_crop(self) -> tuple[Path, tuple[float, float]]:
        """Write the corner as a slide; return the limits that all are given, too."""
        job = Job(slide=self.slide, model=None, output=self.folder)
        pixels = job.pixels()[0, : self.given.crop, : self.given.crop]
        ((low, high),) = job.some_limits(pixels)
        return write_image(self.folder / "crop.zarr", pixels), (low, high)

    def _run(
        self, way: str, slide: Path, options: Sequence[str] = (), output: Path | None = None
    ) -> dict[str, Any]:
        given = self.given
        sizes = ["--width", str(given.width), "--depth", str(given.depth)]
        places = ["--slide", str(slide), "--output", str(output or self._output())]
        arguments = ["--one", way, *places, *sizes, *options]
        return in_process("benchmarks.bench_segment", arguments)

    def _output(self) -> Path:
        return self.folder / f"{next(self._outputs)}.zarr"


def figures(way: str, runs: Runs, size: int) -> dict[str, Any]:
    """Return the medians of a way, and its ratios to floor, recipe and peers, pair by pair."""
    found: dict[str, Any] = {
        "seconds": round(median(runs[way], "seconds"), 3),
        "peak_megabytes": round(median(runs[way], "peak") / 1e6),
        **{name: runs[way][0][name] for name in FACTS if name in runs[way][0]},
    }
    floor = "floor-bfloat16" if way.endswith("bfloat16") else "floor-float32"
    for name, other in (("floor", floor), *((o, o) for o in ("recipe", "monai", "torch-em"))):
        if other in runs:
            each = [a["seconds"] / b["seconds"] for a, b in _pairs(runs, way, other)]
            found[f"times_{name}"] = round(statistics.median(each), 3)
            found[f"times_{name}_each"] = [round(ratio, 3) for ratio in each]
    if floor in runs:
        each = [a["cpu"] / b["cpu"] for a, b in _pairs(runs, way, floor)]
        found["times_floor_cpu"] = round(statistics.median(each), 3)
    small = runs.get(f"small-{way}")
    if small and floor in runs:
        share = min(1.0, (SMALL / size) ** 2)
        starts = [
            s["seconds"] - share * f["seconds"] for s, f in zip(small, runs[floor], strict=True)
        ]
        each = [
            (run["seconds"] - start) / f["seconds"]
            for start, (run, f) in zip(starts, _pairs(runs, way, floor), strict=True)
        ]
        found["startup_seconds"] = round(statistics.median(starts), 3)
        found["times_floor_without_startup"] = round(statistics.median(each), 3)
        found["times_floor_without_startup_each"] = [round(ratio, 3) for ratio in each]
    return found


def _pairs(runs: Runs, way: str, other: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    yield from zip(runs[way], runs[other], strict=True)


def _line(way: str, found: dict[str, Any]) -> str:
    said = [f"{way:15} {found['seconds']:8.2f} s", f"{found['peak_megabytes']:6} MB"]
    for name in ("floor", "floor_without_startup", "recipe", "monai", "torch-em"):
        if f"times_{name}" in found:
            said.append(f"{found[f'times_{name}']:.3f} × {name.replace('_', ' ')}")
    if "differing" in found:
        said.append(f"{found['differing']} px differ and {found['differing_ties']} ties")
    return "  ".join(said)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slide", type=Path, help="a slide of one channel and --size px a side")
    parser.add_argument(
        "--crop", type=int, default=2048, help="side of the corner that is compared"
    )
    parser.add_argument("--ways", nargs="+", choices=TIMED, default=list(TIMED), metavar="WAY")
    parser.add_argument("--floor-tiles", type=int, nargs="+", metavar="TILE")
    parser.add_argument("--floor-runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    one = parser.add_argument_group("of one way, measured in this process")
    one.add_argument("--one", choices=tuple(WAYS))
    one.add_argument("--output", type=Path)
    one.add_argument("--limits", type=float, nargs=2)
    one.add_argument("--tile", type=int)
    one.add_argument("--runtime", default="auto")
    one.add_argument("--project", action="store_true", help="a floor: a few passes only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
