"""Work in threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

import dask
from dask.callbacks import Callback
from dask.delayed import Delayed

from bigunet.cluster.devices import has_cuda
from bigunet.cluster.executor import OnResult
from bigunet.cluster.tasks import Task

__all__ = ["Embedded"]

T = TypeVar("T")
WINDOW = 4096
"""Tasks that dask is given at once."""


class Embedded:
    """Dask's schedulers ``threads`` and ``sync``."""

    processes = 1
    threads: int | None = None
    memory: int | None = None
    refused: Mapping[str, str] = MappingProxyType({})

    def __init__(self, scheduler: str, workers: int) -> None:
        self.scheduler, self.workers = scheduler, workers

    def devices(self) -> frozenset[str]:
        """Return what this process has."""
        return frozenset({"cpu", "cuda"} if has_cuda() else {"cpu"})

    def share(self, value: Any) -> Any:
        """Return the value itself."""
        return value

    def check(self, call: Callable[..., Any], *args: Any) -> None:
        """Call it here."""
        call(*args)

    def ask(self, function: Callable[..., T], *args: Any, device: str | None = None) -> list[T]:
        """Call it here."""
        return [function(*args)]

    def check_versions(self, versions: Mapping[str, str]) -> None:
        """Do nothing: there is one process."""

    def compute(self, value: Delayed) -> Any:
        """Compute one value; what it raises is raised."""
        return dask.compute(value, scheduler=self.scheduler, num_workers=self.workers)[0]

    def run(self, tasks: Iterable[Task], on_result: OnResult, *, device: str | None = None) -> None:
        """Run all tasks in order, and call back with each result in the caller's thread."""
        for window in _windows(tasks):
            # Of tasks that are equal to it dask takes the one with the last name first. Blocks have
            # to come in order, for neighbours share chunks.
            made = [task.delayed(f"task-{WINDOW - n:09}") for n, task in enumerate(window)]
            keys = {one.key for one in made}

            def posttask(key: Any, value: Any, *_: Any, keys: set[Any] = keys) -> None:
                if key in keys:
                    on_result(value)

            with Callback(posttask=posttask):
                dask.compute(*made, scheduler=self.scheduler, num_workers=self.workers)


def _windows(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    waiting = iter(tasks)
    while window := list(islice(waiting, WINDOW)):
        yield window
