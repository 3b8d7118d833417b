"""The stages of a run: tasks that are worked off, and what is told meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from bigunet.cluster import Executor, Failure, Task, failures_text
from bigunet.errors import BigunetError, RunError

__all__ = ["Listener", "Progress", "Stages"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run tells while it goes on."""

    stage: str
    """``plan``, ``mask``, ``check``, ``segment``, then of objects ``split``, ``merge``, ``rules`` and ``relabel``,
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


def _nothing(_: Any) -> None:
    pass


@dataclass(frozen=True)
class Stages:
    """Works off one stage after another."""

    executor: Executor
    tell: Listener
    _refused: set[str] = field(default_factory=set)
    """Workers of which it was told that they get no work."""

    def run(
        self,
        stage: str,
        tasks: Iterable[Task],
        total: int,
        take: Callable[[Any], None] = _nothing,
        *,
        on_failure: Callable[[Failure], None] = _nothing,
        place: Callable[[], str] = str,
        device: str | None = None,
    ) -> None:
        """Run tasks, tell of each, and hand over their results as they come; none is kept.

        ``place`` says where, if what is raised is no `Failure` of a task that knows. Tasks for a
        ``device`` go to workers that have it.

        Raises
        ------
        RunError
            At the end, if some failed; names the first of them and why.
        """
        failures: list[Failure] = []
        done, pixels, began = 0, 0, time.monotonic()

        def on_result(result: Any) -> None:
            nonlocal done, pixels
            self._tell_refused(stage)
            if isinstance(result, Failure):
                failures.append(result)
                on_failure(result)
                if result.stops_run:
                    raise RunError(failures_text([result]))
            else:
                take(result)
            done, pixels = done + 1, pixels + getattr(result, "pixels", 0)
            seconds = time.monotonic() - began
            self.tell(Progress(stage=stage, done=done, total=total, pixels=pixels, seconds=seconds))

        self.tell(Progress(stage=stage, total=total))
        try:
            self.executor.run(tasks, on_result, device=device)
        except BigunetError as error:
            raise RunError(f"{error}{'' if failures else place()}") from error
        if failures:
            raise RunError(f"{len(failures)} of {total} failed: {failures_text(failures)}")

    def gather(self, stage: str, tasks: Iterable[Task], total: int) -> list[Any]:
        """Run tasks, and return their results in the order in which they came."""
        results: list[Any] = []
        self.run(stage, tasks, total, results.append)
        return results

    def _tell_refused(self, stage: str) -> None:
        """Tell once of each worker that joined late and was refused."""
        for address, cause in tuple(self.executor.refused.items()):
            if address not in self._refused:
                self._refused.add(address)
                message = f"warning: worker {address} joined late and gets no work: {cause}"
                self.tell(Progress(stage=stage, message=message))

    def run_here(self, stage: str, call: Callable[[], T]) -> T:
        """Call a function in this process, and tell how long it took."""
        began = time.monotonic()
        self.tell(Progress(stage=stage, total=1))
        result = call()
        self.tell(Progress(stage=stage, done=1, total=1, seconds=time.monotonic() - began))
        return result
