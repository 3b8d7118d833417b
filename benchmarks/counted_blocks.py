"""What workers of `benchmarks.loopback` load first: each block is written down when it begins.

A folder, named by the environment, holds ``workers`` (name and process of each that started),
``blocks`` (number and time of each that began) and, where a test puts it, ``deadly``: the
number of a block that kills its worker.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "PAUSE", "count_blocks", "dask_setup"]

FOLDER = "BIGUNET_BENCH_FAULTS"
PAUSE = 0.1
"""Seconds that each block takes longer, so that a small slide can be met in mid-run."""


def dask_setup(worker: Any) -> None:
    """Called by Dask before a worker takes its first task."""
    count_blocks(str(worker.name))


def count_blocks(worker: str = "") -> None:
    """Let this process write down the blocks that it begins to predict."""
    from bigunet import work

    folder, predict = Path(os.environ[FOLDER]), work.predict_block

    def predict_block(pixels: Any, origin: Any, block: Any, *, tiling: Any, **others: Any) -> Any:
        number = block.index[0] * len(tiling.chunks[1]) + block.index[1]
        _append(folder / "blocks", f"{number} {time.time()}")
        if (folder / "deadly").exists() and int((folder / "deadly").read_text()) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(PAUSE)
        return predict(pixels, origin, block, tiling=tiling, **others)

    work.predict_block = predict_block
    _append(folder / "workers", f"{worker} {os.getpid()}")


def _append(file: Path, line: str) -> None:
    """Add a line in one write, for several processes do so at once."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
