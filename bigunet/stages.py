"""The stages of a run: tasks that are worked off, and what is told meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from dask.delayed import Delayed

from bigunet.cluster import Executor, Failure, failures_text
from bigunet.errors import BigunetError, RunError

__all__ = ["Listener", "Progress", "Stages"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run tells while it goes on."""

    stage: str
    """``plan``, ``segment``, then of objects ``split``, ``merge``, ``rules`` and ``relabel``,
    ``pyramid``, ``commit``."""
    done: int = 0
    total: int = 0
    pixels: int = 0
    """Output pixels done so far."""
    seconds: float = 0.0
    """Since the stage began."""
    message: str | None = None
    """A line for the user."""


Listener: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True)
class Stages:
    """Works off one stage after another."""

    executor: Executor
    tell: Listener

    def run(
        self,
        stage: str,
        tasks: Iterable[Delayed],
        total: int,
        *,
        place: Callable[[], str] = str,
    ) -> list[Any]:
        """Run tasks, tell of each, and return their results in the order in which they came.

        ``place`` says where, if what is raised is no `Failure` of a task that knows.

        Raises
        ------
        RunError
            At the end, if some failed; names the first of them and why.
        """
        failures: list[Failure] = []
        results: list[Any] = []
        pixels, began = 0, time.monotonic()

        def on_result(result: Any) -> None:
            nonlocal pixels
            (failures if isinstance(result, Failure) else results).append(result)
            pixels += getattr(result, "pixels", 0)
            done, seconds = len(failures) + len(results), time.monotonic() - began
            self.tell(Progress(stage=stage, done=done, total=total, pixels=pixels, seconds=seconds))

        self.tell(Progress(stage=stage, total=total))
        try:
            self.executor.run(tasks, on_result)
        except BigunetError as error:
            raise RunError(f"{error}{place()}") from error
        if failures:
            raise RunError(f"{len(failures)} of {total} failed: {failures_text(failures)}")
        return results

    def run_here(self, stage: str, call: Callable[[], T]) -> T:
        """Call a function in this process, and tell how long it took."""
        began = time.monotonic()
        self.tell(Progress(stage=stage, total=1))
        result = call()
        self.tell(Progress(stage=stage, done=1, total=1, seconds=time.monotonic() - began))
        return result
