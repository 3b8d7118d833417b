"""How long forward passes take in all processes of a run. Importable, for worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from bigunet.models.predictor import Predictor
from bigunet.models.runtimes import Network

__all__ = ["TimedPredictor", "forward_seconds", "timed_passes"]

LOG = "BIGUNET_BENCHMARK_PASSES"


class TimedPredictor(Predictor):
    """Appends the seconds of each forward pass to the file that the environment names."""

    def _network(self) -> Network:
        network = super()._network()

        def timed(image: torch.Tensor) -> torch.Tensor:
            began = time.perf_counter()
            scores = network(image)
            with Path(os.environ[LOG]).open("a") as file:
                file.write(f"{time.perf_counter() - began}\n")
            return scores

        return timed


@contextmanager
def timed_passes(log: Path) -> Iterator[Path]:
    """Let runs be timed meanwhile, those of processes that are started in it, too."""
    with patch.dict(os.environ, {LOG: str(log)}), patch("bigunet.work.Predictor", TimedPredictor):
        yield log


def forward_seconds(log: Path) -> float:
    """Return the seconds of all passes."""
    return sum(map(float, log.read_text().split()))
