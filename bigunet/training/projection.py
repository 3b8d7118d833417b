"""How long a training run is going to take, told before it begins."""

from __future__ import annotations

import math
import time
from copy import copy
from itertools import islice

from bigunet.training.run import Run
from bigunet.training.validation import validate

__all__ = ["projected_seconds"]

_REHEARSED = 3


def projected_seconds(run: Run) -> float:
    """Return about how long the rest of a run takes, from some real steps.

    Nothing is learned from them: the run goes on bit for bit as if they had not been.
    """
    epochs = run.settings.epochs - len(run.history)
    return epochs * (run.settings.steps * _step_seconds(run) + _validation_seconds(run))


def _step_seconds(run: Run) -> float:
    """Time some steps as they come; the first one is slower than those that follow."""
    times = [time.monotonic()]
    for step in islice(run.steps.epoch(len(run.history)), _REHEARSED):
        run.learner.rehearse(step)
        times.append(time.monotonic())
    warm = times[1:] if len(times) > 2 else times
    return (warm[-1] - warm[0]) / (len(warm) - 1)


def _validation_seconds(run: Run) -> float:
    """Time one image, and take the others by their pixels."""
    if not run.dataset.val:
        return 0.0
    one = copy(run.val)  # shares what was read
    one.examples = one.examples[:1]
    began = time.monotonic()
    validate(run.model, one)
    pixels = [math.prod(example.shape[1:]) for example in run.dataset.val]
    return (time.monotonic() - began) * sum(pixels) / pixels[0]
