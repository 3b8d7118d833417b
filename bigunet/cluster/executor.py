"""What all places where work runs have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

from dask.delayed import Delayed

from bigunet.cluster.tasks import Task

__all__ = ["Executor", "OnResult"]

T = TypeVar("T")
OnResult: TypeAlias = Callable[[Any], None]


class Executor(Protocol):
    """Runs tasks somewhere."""

    @property
    def workers(self) -> int:
        """Tasks at work at once."""

    @property
    def processes(self) -> int:
        """Processes among which they are spread."""

    @property
    def threads(self) -> int | None:
        """That each process of somebody else's cluster has for us; None where we decide."""

    @property
    def memory(self) -> int | None:
        """Bytes that the smallest worker may take; None where nobody set a limit."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Workers that joined late and get no work, by address, each with the cause."""

    def devices(self) -> frozenset[str]:
        """Return the kinds of devices that some worker has, such as ``cpu`` and ``cuda``."""

    def share(self, value: Any) -> Any:
        """Bring a large value to the workers once; returns what tasks take in its stead."""

    def check(self, call: Callable[..., Any], *args: Any) -> None:
        """Call a function on every worker.

        Raises
        ------
        RunError
            It raised on some; names them and the cause.
        """

    def ask(self, function: Callable[..., T], *args: Any, device: str | None = None) -> list[T]:
        """Call a function on every worker that has a device, and return the answers.

        Raises
        ------
        RunError
            It raised on one.
        """

    def check_versions(self, versions: Mapping[str, str]) -> None:
        """Compare versions of packages with those of scheduler and workers.

        Raises
        ------
        InputError
            Some have others; names them.
        """

    def compute(self, value: Delayed) -> Any:
        """Compute one value; what it raises is raised."""

    def run(self, tasks: Iterable[Task], on_result: OnResult, *, device: str | None = None) -> None:
        """Run all tasks, and call back with each result in the caller's thread.

        Parameters
        ----------
        tasks : iterable of Task
            Drawn when there is room, a bounded number ahead.
        on_result : callable
            Called with what a task returned, or with its `Failure`.
        device : str, optional
            ``cuda``: only workers that have it take these tasks.

        Raises
        ------
        RunError
            No worker has the device, or the cluster is lost.
        """
