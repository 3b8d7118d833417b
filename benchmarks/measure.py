"""How figures are taken: one process per measurement, medians, and what they were taken on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "ROOT",
    "conditions",
    "in_process",
    "interleaved",
    "median",
    "peak_memory",
    "read_results",
    "report",
    "save_results",
    "write_json",
]

ROOT = Path(__file__).resolve().parents[1]


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss of a child begins at what its parent held when it was forked.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def report(**figures: Any) -> None:
    """Print figures as the last line of a measuring process."""
    print(json.dumps(figures))


def in_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run ``python -m module`` and return the figures of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(runs: Sequence[dict[str, Any]], figure: str) -> float:
    """Return the median of one figure over several runs."""
    return statistics.median(run[figure] for run in runs)


def conditions() -> dict[str, Any]:
    """Return what the figures depend on."""
    import dask
    import torch
    import zarr

    from bigunet.models.devices import device_name

    return {
        "command": " ".join(["python", "-m", *_module(), *sys.argv[1:]]),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "cpu": device_name("cpu"),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "zarr": zarr.__version__,
        "dask": dask.__version__,
    }


def commit() -> str:
    """Return the commit, or why it is not known: copies of a tree may have neither git nor it.

    ``-dirty`` where tracked files differ from it, results of benchmarks apart.
    """
    changed = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    try:
        found, is_dirty = _git("rev-parse", "--short", "HEAD"), _git(*changed)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("BIGUNET_COMMIT", "unknown")
    return f"{found}-dirty" if is_dirty else found


def _git(*command: str) -> str:
    line = ["git", *command]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()


def save_results(name: str, results: dict[str, Any]) -> Path:
    """Write results with their conditions to ``benchmarks/results/NAME.json``."""
    return write_json(ROOT / "benchmarks" / "results" / f"{name}.json", results)


def read_results(name: str) -> dict[str, Any]:
    """Return what was saved as ``benchmarks/results/NAME.json``; nothing where there is no such file."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def write_json(path: Path, results: dict[str, Any]) -> Path:
    """Write results with their conditions to a file, which is whole at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps({"conditions": conditions(), **results}, indent=1) + "\n")
    aside.replace(path)
    return path


def interleaved(
    measure: Callable[[str], dict[str, Any]], names: Sequence[str], repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Measure all in turn, several times, so that a drift of the machine hits all alike."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            runs[name].append(measure(name))
    return runs


def _module() -> list[str]:
    main = sys.modules["__main__"].__spec__
    return [main.name] if main is not None else []
