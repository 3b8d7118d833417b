"""What a run costs beside pixels and network, when a slide has very many blocks.

``machinery``
    A simulated slide: its pixels are one number that is broadcast, the network is a
    constant, and blocks are neither hashed nor written. What is left is planning, tasks
    and their bookkeeping; the run is that of `bigunet.segment_image` in all else.

``scaling``
    A real slide and the model `nuclei` on one and on two worker processes with one thread
    of torch each: efficiency is the time on one over twice the time on two. The share of
    the network is the time that forward passes take, of the time all processes have. *Bare* is
    what the machine itself allows: the same of forward passes with nothing around them.

Each figure is from a process of its own. The scheduler of ``processes`` lives in
the client's process, so the processor time of that process is that of client
and scheduler; with ``threads`` it is that of everything.
Run ``python -m benchmarks.bench_cluster machinery --side 1048576`` and
``python -m benchmarks.bench_cluster scaling``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest.mock import patch

from benchmarks.measure import in_process, peak_memory, report, save_results

BLOCK, TILE = 4096, 512
SCHEDULERS = ("processes", "threads")


class Clock:
    """Listens to a run: wall-clock and processor seconds of each stage."""

    def __init__(self) -> None:
        self.began: dict[str, tuple[float, float]] = {}
        self.ended: dict[str, tuple[float, float]] = {}

    def __call__(self, progress: Any) -> None:
        now = time.perf_counter(), time.process_time()
        self.began.setdefault(progress.stage, now)
        self.ended[progress.stage] = now

    def seconds(self, stage: str) -> tuple[float, float]:
        """Return wall-clock and processor seconds between the first and the last of a stage."""
        (wall, cpu), (last_wall, last_cpu) = self.began[stage], self.ended[stage]
        return last_wall - wall, last_cpu - cpu


def _options(block: int) -> dict[str, Any]:
    return {"block": block, "tile": TILE, "name": "x", "save": ["classes"], "device": "cpu"}


def _model() -> Any:
    from bigunet import UNet

    return UNet(1, 2, width=2, depth=2)


def measure_plan(slide: Path, block: int) -> None:
    """Plan the run in this process and print what that took."""
    from bigunet.pipeline import plan_image

    model, before, began = _model(), peak_memory(), time.perf_counter()
    plan = plan_image(slide, model, **_options(block))
    plan.lines()
    plan.as_dict()
    report(
        seconds=round(time.perf_counter() - began, 4),
        grown=peak_memory() - before,
        blocks=plan.blocks,
        tiles=plan.tiles,
    )


def measure_run(slide: Path, block: int, scheduler: str, workers: int) -> None:
    """Run it from this process and print what that took."""
    from benchmarks.simulated import simulation
    from bigunet.pipeline import segment_image

    model, clock, before, began = _model(), Clock(), peak_memory(), time.perf_counter()
    with simulation():
        result = segment_image(
            slide,
            model,
            scheduler=scheduler,
            workers=workers,
            overlap="direct",
            progress=clock,
            **_options(block),
        )
    wall, cpu = clock.seconds("segment")
    report(
        seconds=round(time.perf_counter() - began, 2),
        segment_seconds=round(wall, 2),
        cpu_milliseconds_per_block=round(1e3 * cpu / result.plan.blocks, 3),
        grown=peak_memory() - before,
        peak=peak_memory(),
        blocks=result.blocks,
    )


def machinery(side: int, block: int, workers: int, schedulers: Sequence[str]) -> dict[str, Any]:
    """Return what planning takes, and a run on each scheduler."""
    from benchmarks.simulated import write_blank_slide

    found: dict[str, Any] = {}
    for way in ("plan", *schedulers):
        with tempfile.TemporaryDirectory() as folder:
            slide = write_blank_slide(Path(folder) / "slide.zarr", side, block)
            arguments = [
                *("--one", way, "--slide", str(slide)),
                *("--block", str(block), "--workers", str(workers)),
            ]
            found[way] = in_process("benchmarks.bench_cluster", ["machinery", *arguments])
        print(f"{way:10} " + "  ".join(f"{name} {value}" for name, value in found[way].items()))
    return found


def measure_scaling(slide: Path, side: int, workers: int) -> None:
    """Segment a slide with so many processes of one thread each, and print what that took."""
    from benchmarks.timed import forward_seconds, timed_passes
    from bigunet.pipeline import segment_image

    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        timed_passes(Path(folder, "passes")) as log,
        # So that a process has one thread of torch, however many cores there are.
        patch("bigunet.sites.available_cores", lambda: workers),
    ):
        segment_image(
            slide,
            "nuclei",
            output=Path(folder, "out.zarr"),
            save=["classes"],
            scheduler="processes",
            workers=workers,
            block=max(512, side // 8),
            device="cpu",
            progress=clock,
        )
        wall, _ = clock.seconds("segment")
        report(seconds=round(wall, 2), network=round(forward_seconds(log) / (wall * workers), 3))


def measure_bare(processes: int, tile: int = 1024, passes: int = 24) -> None:
    """Run forward passes and nothing else in so many processes at once, and print seconds."""
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(processes, context) as pool:
        together = manager.Barrier(processes, timeout=60)
        found = [pool.submit(_bare_passes, tile, passes, together) for _ in range(processes)]
        report(seconds=statistics.mean(one.result() for one in found))


def _bare_passes(side: int, passes: int, together: Barrier) -> float:
    """Return the seconds of passes that begin when all processes are ready."""
    import torch

    from bigunet import load_model
    from bigunet.geometry import Tiling
    from bigunet.models.runtimes import choose_runtime, open_network

    torch.set_num_threads(1)
    model = load_model("nuclei")
    network = open_network(model, choose_runtime("auto", "cpu", "float32"), "cpu", "float32")
    sides = {"tile": side, "block": side, "target_tile": side, "target_block": side}
    tile = torch.rand(1, 1, *Tiling.fit((side, side), model.depth, **sides).tile_input)
    with torch.inference_mode():
        network(tile)
        together.wait()
        began = time.perf_counter()
        for _ in range(passes):
            network(tile)
        return time.perf_counter() - began


def scaling(side: int, repeats: int) -> dict[str, Any]:
    """Return seconds and the share of the network on one and on two processes, run in turn."""
    from bigunet.images.sample import write_sample

    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.zarr"
        write_sample(slide, side)
        for _ in range(repeats):
            for workers, found in runs.items():
                arguments = ["--slide", str(slide), "--side", str(side), "--one", str(workers)]
                found.append(in_process("benchmarks.bench_cluster", ["scaling", *arguments]))
                print(f"{workers} processes", found[-1])
            one, two = (
                in_process("benchmarks.bench_cluster", ["scaling", "--bare", str(processes)])
                for processes in runs
            )
            bare.append(round(one["seconds"] / two["seconds"], 3))
    pairs = zip(runs[1], runs[2], strict=True)
    each = [round(one["seconds"] / (2 * two["seconds"]), 3) for one, two in pairs]
    print(f"efficiency {statistics.median(each):.3f} {each}")
    print(f"bare       {statistics.median(bare):.3f} {bare}")
    return {"efficiency": each, "bare": bare, "one": runs[1], "two": runs[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    command = commands.add_parser("machinery", help="a simulated slide of very many blocks")
    command.add_argument("--side", type=int, default=65536)
    command.add_argument("--block", type=int, default=BLOCK)
    command.add_argument("--workers", type=int, default=2)
    command.add_argument("--schedulers", nargs="+", choices=SCHEDULERS, default=list(SCHEDULERS))
    command.add_argument("--slide", type=Path)
    command.add_argument("--one", choices=("plan", *SCHEDULERS), help="measure in this process")
    command.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    command = commands.add_parser("scaling", help="one worker process against two")
    command.add_argument("--side", type=int, default=8192)
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--slide", type=Path)
    command.add_argument("--one", type=int, help="measure in this process")
    command.add_argument("--bare", type=int, help="measure bare passes in so many processes")
    command.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    if given.what == "scaling":
        if given.bare:
            measure_bare(given.bare)
            return
        if given.one:
            measure_scaling(given.slide, given.side, given.one)
            return
        found = scaling(given.side, given.repeats)
        if given.save:
            print(save_results(given.save, {"side": given.side, **found}))
        return
    if given.one == "plan":
        measure_plan(given.slide, given.block)
        return
    if given.one:
        measure_run(given.slide, given.block, given.one, given.workers)
        return
    found = machinery(given.side, given.block, given.workers, given.schedulers)
    if given.save:
        results = {"side": given.side, "block": given.block, "workers": given.workers, **found}
        print(save_results(given.save, results))


if __name__ == "__main__":
    main()
