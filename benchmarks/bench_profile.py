"""Where does the time of a run go? One run of `segment_image` in threads, its functions timed.

Functions are wrapped from outside, on the CPU. A stage's *seconds* are those of all threads together, without
what wrapped functions inside of it took; its *processor* seconds are those of the threads that
called, so those of the network's other threads and of waiting are not among them. *Share* is
seconds over the time of the run: shares of threads that work side by side add up to more than 1.
Zarr reads, decodes, encodes and writes in threads of its own, while the caller waits for it.

Run ``python -m benchmarks.bench_profile``.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

from benchmarks.inputs import SEED, make_network
from benchmarks.measure import peak_memory, save_results

HOOKS = {
    "read files": ("zarr.storage._local:_get",),
    "decode": (
        "zarr.codecs.zstd:ZstdCodec._decode_sync",
        "zarr.codecs.blosc:BloscCodec._decode_sync",
        "zarr.codecs.gzip:GzipCodec._decode_sync",
    ),
    "wait for chunks": ("bigunet.images.planes:_fetch", "bigunet.images.pyramid:read_window"),
    "cut and mirror halos": ("bigunet.tiles:mirrored",),
    "copy to tensors": (
        "bigunet.models.transfers:as_tensor",
        "bigunet.models.predictor:as_tensor",
        "bigunet.models.transfers:Transfers.send",
    ),
    "cast and normalise": ("bigunet.models.predictor:Predictor._pass",),
    "argmax": ("bigunet.tiles:_finished",),
    "copy into blocks": ("bigunet.work:predict_block", "bigunet.inference:predict_block"),
    "digest": ("bigunet.work:digest",),
    "encode": ("zarr.codecs.zstd:ZstdCodec._encode_sync",),
    "write files": ("zarr.storage._local:_put",),
    "bring to disk": ("bigunet.images.output:_sync",),
    "wait for writes": ("bigunet.work:write_window", "bigunet.images.pyramid:write_window"),
    "reduce levels": ("bigunet.work:reduce_window",),
    "record": ("bigunet.ledger:Ledger.done",),
    "else in tasks": ("dask.local:execute_task",),
}
"""What is called a stage, and the functions that are it, where they are looked up when called."""
OPTIONS = ("precision", "runtime", "overlap", "block", "tile", "workers")
NETWORK, QUEUE = "network", "wait for the network"
WAITS = (QUEUE, "wait for chunks", "wait for writes")


@dataclass(frozen=True)
class Interval:
    """One call of a stage."""

    stage: str
    start: float
    stop: float
    seconds: float
    """Without the stages inside."""
    cpu: float
    """Of its thread, without those."""


class Stopwatch:
    """Takes the times of calls, each thread's on a stack of its own."""

    def __init__(self) -> None:
        self.intervals: list[Interval] = []
        self._local = threading.local()

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed as a stage."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(stage):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Take the time of a block as a stage."""
        stack = self._stack()
        inside = [0.0, 0.0]
        stack.append(inside)
        start, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            stop, used = time.perf_counter(), time.thread_time() - cpu
            stack.pop()
            if stack:
                stack[-1][0] += stop - start
                stack[-1][1] += used
            own = stop - start - inside[0], used - inside[1]
            self.intervals.append(Interval(stage, start, stop, *own))

    def _stack(self) -> list[list[float]]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        stack: list[list[float]] = self._local.stack
        return stack


class TimedLock:
    """A lock of which the waiting is a stage."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch, self._lock = watch, threading.Lock()

    def __enter__(self) -> None:
        with self._watch.time(QUEUE):
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Let all stages be timed meanwhile."""
    with ExitStack() as stack:
        for stage, names in HOOKS.items():
            for name in names:
                module, _, path = name.partition(":")
                *owners, attribute = path.split(".")
                owner = resolve_name(":".join((module, ".".join(owners))) if owners else module)
                timed = watch.wrap(stage, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, timed))
        predictor = resolve_name("bigunet.models.predictor")
        opened = watch.wrap("open the network", predictor.open_network)

        def open_network(*args: Any) -> Callable[..., Any]:
            return watch.wrap(NETWORK, opened(*args))

        stack.enter_context(patch.object(predictor, "open_network", open_network))
        # Networks of before would not be timed, and these not those of afterwards.
        stack.enter_context(patch.dict(predictor._networks, clear=True))
        stack.enter_context(patch.object(predictor, "_forward_lock", TimedLock(watch)))
        yield


def profile(slide: Path, model: Any, **options: Any) -> dict[str, Any]:
    """Segment a slide and return where the time went."""
    from bigunet import segment_image

    watch = Stopwatch()
    stages: dict[str, float] = {}
    with watched(watch):
        began = time.perf_counter()
        result = segment_image(
            slide,
            model,
            device="cpu",
            scheduler="threads",
            name="profile",
            overwrite=True,
            progress=lambda told: stages.__setitem__(told.stage, time.perf_counter() - began),
            **options,
        )
        ended = time.perf_counter()
    chosen = result.plan.as_dict()
    facts = ("runtime", "precision", "tile", "block", "workers", "threads", "overlap")
    return {
        "seconds": ended - began,
        "stages_end": stages,
        "plan": {name: chosen[name] for name in facts},
        "read_amplification": result.plan.bytes_read
        / (result.plan.pixels * result.plan.planes[0].dtype.itemsize),
        "network": network_figures(watch.intervals, began, ended),
        "stages": stage_figures(watch.intervals, began, ended),
        "peak_megabytes": round(peak_memory() / 1e6),
    }


def stage_figures(
    intervals: Iterable[Interval], began: float, ended: float
) -> list[dict[str, Any]]:
    """Return a row for each stage, those first that take longest, and one for what is left.

    What is left is the time in which no thread was at any stage: planning, metadata, scheduling.
    """
    intervals, wall = list(intervals), ended - began
    rows = []
    for stage in {one.stage: None for one in intervals}:
        own = [one for one in intervals if one.stage == stage]
        seconds = sum(one.seconds for one in own)
        rows.append(
            {
                "stage": stage,
                "calls": len(own),
                "seconds": seconds,
                "cpu_seconds": sum(one.cpu for one in own),
                "share": seconds / wall,
                "waits": stage in WAITS,
            }
        )
    left = wall - covered(intervals)
    rest = {"stage": "between tasks", "calls": 1, "seconds": left, "cpu_seconds": None}
    rows.append({**rest, "share": left / wall, "waits": False})
    return sorted(rows, key=lambda row: -row["seconds"])


def network_figures(
    intervals: Iterable[Interval], began: float, ended: float
) -> dict[str, float | int]:
    """Return how much of the time the network ran, and how long it did not before, between, after."""
    passes = [one for one in intervals if one.stage == NETWORK]
    first, last = min(one.start for one in passes), max(one.stop for one in passes)
    busy = covered(passes)
    return {
        "passes": len(passes),
        "share": busy / (ended - began),
        "seconds_before": first - began,
        "seconds_between": last - first - busy,
        "seconds_after": ended - last,
    }


def covered(intervals: Iterable[Interval]) -> float:
    """Return the seconds in which at least one of some intervals lies."""
    total, reached = 0.0, float("-inf")
    for one in sorted(intervals, key=lambda one: one.start):
        total += max(0.0, one.stop - max(one.start, reached))
        reached = max(reached, one.stop)
    return total


def main() -> None:
    """Parse options, run once, print a table, save."""
    given = _options()
    options = {name: getattr(given, name) for name in OPTIONS if getattr(given, name) is not None}
    with tempfile.TemporaryDirectory() as folder:
        from bigunet.images.sample import write_sample

        slide = given.slide or write_sample(Path(folder) / "slide.zarr", given.size, SEED)
        model = _model(given)
        found = profile(slide, model, **options)
    print(f"{found['seconds']:.2f} s, {found['plan']}")
    print(f"{'stage':22} {'calls':>7} {'seconds':>9} {'processor':>9} {'share':>7}")
    for row in found["stages"]:
        cpu = "" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.2f}"
        name = f"({row['stage']})" if row["waits"] else row["stage"]
        print(f"{name:22} {row['calls']:7} {row['seconds']:9.2f} {cpu:>9} {row['share']:7.1%}")
    network = found["network"]
    print(
        f"the network runs {network['share']:.1%} of the time; {network['seconds_before']:.2f} s "
        f"before its first pass, {network['seconds_between']:.2f} s between passes, "
        f"{network['seconds_after']:.2f} s after its last"
    )
    if given.save:
        sizes = {name: getattr(given, name) for name in ("size", "width", "depth", "model")}
        print(save_results(given.save, {**sizes, **found}))


def _model(given: argparse.Namespace) -> Any:
    from bigunet import load_model

    return load_model(given.model) if given.model else make_network(given.width, given.depth)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--model", help="a model instead of a network of random weights")
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--precision")
    parser.add_argument("--runtime")
    parser.add_argument("--overlap")
    parser.add_argument("--block", type=int)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
