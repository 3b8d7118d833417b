"""What one GPU makes of the network, and of a whole run; unattended, in less than eight minutes.

    python -m benchmarks.bench_gpu --save gpu_h100

Four parts, each with a budget of seconds; what does not fit is named as skipped. After each figure the
file is written anew, so that whatever stops this loses nothing. ``peak``: products of large matrices in
each precision, the rate that all else is a share of. ``network``: the bare network over widths,
tiles, precisions and runtimes. ``pipeline``: one gigapixel of uint8 from and to local disk, with
what the GPU was busy meanwhile. ``exactness``: what `benchmarks.bench_precision` counts on the sample
slide, on the GPU. ``--device cpu --tiny`` runs all of it in seconds, to see that it works.

It needs Python 3.11 or newer and torch 2.10 or newer, and no network. What a machine without
registries lacks travels as wheels; README.md has the two steps.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch

import bigunet
from bigunet.geometry import input_size, legal_output
from bigunet.models.predictor import Predictor

from .bench_precision import PRECISIONS, compare, sample_images
from .flops import forward_flops
from .inputs import make_network, sample_chunk, write_repeated_slide
from .measure import ROOT, write_json

DEPTHS = {16: 3, 32: 4, 64: 4}
"""Of the network of each width; 64 wide and 4 deep is the paper's."""
WARM, TIMED = 2, 5
"""Calls before the clock runs, and while it does."""
PASS_PIXELS = 2048**2
"""Tiles smaller than this are taken several at a time, 8 at most, as runs do."""


def main() -> None:
    """Parse options and measure part after part."""
    given = _options()
    record = Record(_place(given))
    sizes = TINY if given.tiny else FULL
    for part, measure in PARTS.items():
        if part in given.parts:
            record.begin(part, given.budgets[part])
            measure(given.device, sizes, record)
    record.end()


# What is measured where; budgets in seconds make 460 in all.
FULL: dict[str, Any] = {
    "matrix": 8192,
    "widths": (64, 16, 32),
    "tiles": (1024, 2048, 512, 4096),
    "precisions": ("bfloat16", "float16", "float32"),
    "runtimes": ("eager", "compile"),
    "slides": (4096, 32768),
    "runs": ((64, "bfloat16"), (16, "bfloat16"), (64, "float16")),
    "sample": 4096,
    "model": "nuclei",
}
TINY: dict[str, Any] = FULL | {
    "matrix": 64,
    "widths": (2,),
    "tiles": (16, 32),
    "precisions": ("bfloat16", "float32"),
    "runtimes": ("eager",),
    "slides": (64, 256),
    "runs": ((2, "float32"),),
    "sample": 128,
}
BUDGETS = {"peak": 20, "pipeline": 200, "exactness": 60, "network": 180}


class Record:
    """What was found so far; on disk after each figure.

    Parameters
    ----------
    path : path
        Of a JSON file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {"complete": False}
        self._part, self._deadline = "", 0.0

    def begin(self, part: str, seconds: float) -> None:
        """Go on to a part that has so many seconds."""
        self._part, self._deadline = part, time.monotonic() + seconds
        self.found[part] = []

    def measure(self, what: dict[str, Any], call: Callable[[], dict[str, Any]]) -> None:
        """Write down what a call finds, or why it finds nothing: its time is out, or it failed."""
        if time.monotonic() > self._deadline:
            figures: dict[str, Any] = {"skipped": "no time left"}
        else:
            try:
                figures = call()
            except Exception as error:  # Nobody is there to start the rest again.
                why = str(error).strip().partition("\n")[0]
                figures = {"failed": f"{type(error).__name__}: {why[:200]}"}
        row = {**what, **figures}
        self.found[self._part].append(row)
        print(self._part, *(f"{name}={value}" for name, value in row.items()), flush=True)
        write_json(self.path, self.found)

    def end(self) -> None:
        """Say that nothing is missing but what was skipped."""
        self.found["complete"] = True
        print(write_json(self.path, self.found))

    def peak(self, precision: str) -> float | None:
        """Return the operations a second that matrices reached, if that was measured."""
        for row in self.found.get("peak", ()):
            if row["precision"] == precision:
                return row.get("tflops")
        return None


def measure_peak(device: str, sizes: dict[str, Any], record: Record) -> None:
    """Multiply square matrices of random numbers."""
    side = sizes["matrix"]
    # No TF32 in float32, as in runs.
    torch.set_float32_matmul_precision("highest")

    def multiply(precision: str) -> dict[str, Any]:
        a, b = (
            torch.randn(side, side, device=device).to(getattr(torch, precision)) for _ in range(2)
        )
        seconds = timed(lambda: a @ b, device)
        return {"seconds": seconds, "tflops": 2 * side**3 / seconds / 1e12}

    for precision in PRECISIONS:
        record.measure({"precision": precision, "side": side}, lambda p=precision: multiply(p))


def measure_network(device: str, sizes: dict[str, Any], record: Record) -> None:
    """Time forward passes, those of all eager networks first: compiling takes long."""
    grid = product(sizes["runtimes"], sizes["widths"], sizes["precisions"], sizes["tiles"])
    for runtime, width, precision, tile in grid:
        what = {"width": width, "tile": tile, "precision": precision, "runtime": runtime}
        record.measure(what, lambda what=what: _forward(device, what, record))
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def _forward(device: str, what: dict[str, Any], record: Record) -> dict[str, Any]:
    width, tile = what["width"], what["tile"]
    if what["runtime"] == "compile":
        # Of one function torch compiles a few variants only, then runs it as it is.
        torch.compiler.reset()
    model = make_network(width, DEPTHS.get(width, 2))
    predictor = Predictor.of(
        model, device=device, runtime=what["runtime"], precision=what["precision"]
    )
    side = input_size(legal_output(tile, model.depth), model.depth)
    batch = min(8, max(1, PASS_PIXELS // tile**2))
    image = torch.rand(batch, 1, side, side, device=device)
    began = time.perf_counter()
    seconds = timed(lambda: predictor.forward(image), device)
    rate = forward_flops(model, (side, side), batch) / seconds / 1e12
    peak = record.peak(what["precision"])
    return {
        "batch": batch,
        "seconds": seconds,
        "megapixels_per_second": batch * tile**2 / seconds / 1e6,
        "tflops": rate,
        "share_of_peak": rate / peak if peak else None,
        "seconds_in_all": time.perf_counter() - began,
    }


def measure_pipeline(device: str, sizes: dict[str, Any], record: Record) -> None:
    """Segment a slide from disk to disk, after a small one that starts everything."""
    small, large = sizes["slides"]
    pixels = sample_chunk()
    with tempfile.TemporaryDirectory() as folder:
        slides = {
            s: write_repeated_slide(Path(folder, f"{s}.zarr"), s, pixels) for s in (small, large)
        }
        for width, precision in sizes["runs"]:
            model = make_network(width, DEPTHS.get(width, 2))
            for size, slide in slides.items():
                what = {"size": size, "width": width, "precision": precision}
                record.measure(what, lambda m=model, s=slide, p=precision: _run(device, s, m, p))
                shutil.rmtree(slide / "labels", ignore_errors=True)


def _run(device: str, slide: Path, model: Any, precision: str) -> dict[str, Any]:
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    stages: dict[str, float] = {}
    began, used = time.perf_counter(), time.process_time()
    with busy_share(device) as busy:
        result = bigunet.segment_image(
            slide,
            model,
            device=device,
            precision=precision,
            name="gpu",
            save=("classes",),
            progress=lambda told: stages.__setitem__(told.stage, time.perf_counter() - began),
        )
    seconds = time.perf_counter() - began
    plan = result.plan.as_dict()
    facts = ("runtime", "tile", "block", "batch", "workers", "overlap", "extra_work")
    return {
        "seconds": seconds,
        "megapixels_per_second": result.plan.pixels / seconds / 1e6,
        "cpu_seconds": time.process_time() - used,
        "stages_end": stages,
        "gpu_busy_share": statistics.fmean(busy) if busy else None,
        "gpu_megabytes": torch.cuda.max_memory_allocated() / 1e6 if on_cuda else None,
        **{name: plan[name] for name in facts if name in plan},
    }


def measure_exactness(device: str, sizes: dict[str, Any], record: Record) -> None:
    """Count what precisions and runtimes change on the sample slide."""
    model = bigunet.load_model(sizes["model"])
    images = list(sample_images(sizes["sample"]))
    for runtime, precision in product(sizes["runtimes"], sizes["precisions"]):
        way = (runtime, precision)
        what = {"runtime": runtime, "precision": precision, "sample": sizes["sample"]}
        record.measure(what, lambda way=way: compare(images, model, device, [way])[" ".join(way)])


PARTS: dict[str, Callable[[str, dict[str, Any], Record], None]] = {
    "peak": measure_peak,
    "pipeline": measure_pipeline,
    "exactness": measure_exactness,
    "network": measure_network,
}


def timed(call: Callable[[], Any], device: str) -> float:
    """Return the median seconds of a call; on CUDA by events, so that queueing does not count."""
    for _ in range(WARM):
        call()
    if not device.startswith("cuda"):
        return statistics.median(_clocked(call) for _ in range(TIMED))
    each = []
    for _ in range(TIMED):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        torch.cuda.synchronize()
        each.append(first.elapsed_time(last) / 1e3)
    return statistics.median(each)


def _clocked(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextmanager
def busy_share(device: str, every: float = 0.2) -> Iterator[list[float]]:
    """Collect the share of time in which the GPU had work, 0 to 1, asked several times a second.

    Nothing is collected on a CPU, nor where neither torch nor nvidia-smi can tell.
    """
    found: list[float] = []
    over = threading.Event()
    ask = _utilization(device)

    def sample() -> None:
        while ask is not None and not over.wait(every):
            found.append(ask() / 100)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _utilization(device: str) -> Callable[[], float] | None:
    """Return what tells the per cent of time in which a kernel ran, of the last moments."""
    if not device.startswith("cuda"):
        return None
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]

    def by_command() -> float:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[0])

    for ask in (lambda: float(torch.cuda.utilization()), by_command):
        try:
            ask()
        except Exception:  # Without NVML torch raises what it likes.
            continue
        return ask
    return None


def _place(given: argparse.Namespace) -> Path:
    if given.output is not None:
        return Path(given.output)
    return ROOT / "benchmarks" / "results" / f"{given.save}.json"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="everything in seconds, on a CPU too")
    parser.add_argument("--parts", nargs="+", choices=tuple(BUDGETS), default=list(BUDGETS))
    for part, seconds in BUDGETS.items():
        parser.add_argument(f"--{part}-seconds", type=float, default=seconds)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    place.add_argument("--output", metavar="FILE", help="write it elsewhere")
    given = parser.parse_args()
    given.budgets = {part: getattr(given, f"{part}_seconds") for part in BUDGETS}
    return given


if __name__ == "__main__":
    main()
