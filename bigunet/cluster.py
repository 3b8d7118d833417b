"""Where work runs: embedded in this process, on local processes, on a Dask cluster.

Dask is the engine. `Executor.run` hands it delayed tasks in bounded windows and
reports every result as it comes. A task that raises is reported as a `Failure`
with its cause; the others go on.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import dask
from dask.callbacks import Callback
from dask.delayed import Delayed, delayed
from dask.system import CPU_COUNT

from bigunet.errors import BigunetError, DependencyError, InputError

__all__ = [
    "Executor",
    "Failure",
    "available_memory",
    "check_scheduler",
    "failures_text",
    "open_executor",
    "task",
]

EMBEDDED = ("threads", "sync")
_WINDOW = 4096
_REPLY_SECONDS = 15
_NAMED_CAUSES = 3
# Ctrl-C reaches all processes of a terminal; the main one stops the others, unasked for comments.
_DEAF_TO_CTRL_C = """
import logging, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
"""

OnResult = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What is left of a task that raised."""

    where: str
    cause: str


@dataclass(frozen=True)
class _Attempt:
    """Calls a function and turns what it raises into a `Failure`."""

    function: Callable[..., Any]
    where: str

    def __call__(self, *args: Any) -> Any:
        try:
            return self.function(*args)
        except Exception as error:
            return Failure(where=self.where, cause=_cause(error))


def task(function: Callable[..., Any], *args: Any, where: str) -> Delayed:
    """Return a delayed call that gives the function's result or a `Failure`."""
    made: Delayed = delayed(_Attempt(function, where), pure=False)(*args)
    return made


def failures_text(failures: Sequence[Failure]) -> str:
    """Say each cause once, with the first place where it struck; numbers make no new cause."""
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        alike.setdefault(re.sub(r"\d+", "0", failure.cause), []).append(failure)
    told = []
    for group in alike.values():
        first = min(group, key=lambda failure: failure.where)
        more = f" and {len(group) - 1} more" if group[1:] else ""
        told.append(f"{first.cause} ({first.where}{more})")
    others = [f"{len(told) - _NAMED_CAUSES} other causes"] if len(told) > _NAMED_CAUSES else []
    return "; ".join([*told[:_NAMED_CAUSES], *others])


class Executor(Protocol):
    """Runs delayed tasks somewhere."""

    workers: int
    """Tasks at work at once."""
    processes: int
    """Processes among which they are spread."""
    threads: int | None
    """That each process of somebody else's cluster has for us; None where we decide."""

    def share(self, value: Any) -> Any:
        """Bring a large value to the workers once; returns what tasks take in its stead."""

    def compute(self, value: Delayed) -> Any:
        """Compute one value; what it raises is raised."""

    def run(self, tasks: Iterable[Delayed], on_result: OnResult) -> None:
        """Compute all tasks, and call back with each result in the caller's thread."""


def available_cores() -> int:
    """Return the cores that CPU affinity and cgroup limits allow."""
    return int(CPU_COUNT)


def available_memory() -> int:
    """Return the bytes of memory that the machine and cgroup limits allow."""
    try:
        from distributed.system import memory_limit
    except ImportError:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(memory_limit())


def check_scheduler(scheduler: str) -> str:
    """Return a scheduler's name if it can be meant, without connecting.

    Raises
    ------
    InputError
        It is neither a known name, an address nor a scheduler file.
    """
    if scheduler in (*EMBEDDED, "processes") or "://" in scheduler:
        return scheduler
    if Path(scheduler).is_file():
        return scheduler
    raise InputError(
        f"scheduler '{scheduler}' is unknown; give threads, sync, processes, "
        f"an address such as tcp://127.0.0.1:8786, or an existing scheduler file"
    )


@contextmanager
def open_executor(scheduler: str = "threads", workers: int | None = None) -> Iterator[Executor]:
    """Open what runs tasks; local processes end with it, an existing cluster stays.

    Parameters
    ----------
    scheduler : {"threads", "sync", "processes"}, address or file
        ``threads`` and ``sync`` need no set-up and open no socket; ``processes``
        is a cluster on loopback.
    workers : int, optional
        Tasks at once; all cores by default.
    """
    check_scheduler(scheduler)
    if scheduler in EMBEDDED:
        count = 1 if scheduler == "sync" else workers or max(2, available_cores())
        yield _Embedded(scheduler, count)
        return
    with _client(scheduler, workers) as client:
        yield _Cluster(client, ours=scheduler == "processes")


class _Embedded:
    processes = 1
    threads: int | None = None

    def __init__(self, scheduler: str, workers: int) -> None:
        self.scheduler, self.workers = scheduler, workers

    def share(self, value: Any) -> Any:
        return value

    def compute(self, value: Delayed) -> Any:
        return dask.compute(value, scheduler=self.scheduler, num_workers=self.workers)[0]

    def run(self, tasks: Iterable[Delayed], on_result: OnResult) -> None:
        for window in _windows(tasks):
            keys = {t.key for t in window}

            def posttask(key: Any, value: Any, *_: Any, keys: set[Any] = keys) -> None:
                if key in keys:
                    on_result(value)

            with Callback(posttask=posttask):
                dask.compute(*window, scheduler=self.scheduler, num_workers=self.workers)


class _Cluster:
    def __init__(self, client: Any, *, ours: bool) -> None:
        self.client = client
        threads = client.nthreads()
        self.workers, self.processes = sum(threads.values()), len(threads)
        # One number for all, for bits depend on it.
        self.threads = None if ours else min(threads.values())

    def share(self, value: Any) -> Any:
        return self.client.scatter(value, broadcast=True, hash=False)

    def compute(self, value: Delayed) -> Any:
        return self.client.compute(value).result()

    def run(self, tasks: Iterable[Delayed], on_result: OnResult) -> None:
        from distributed import as_completed

        waiting = iter(tasks)
        ready = as_completed(
            self.client.compute(list(islice(waiting, 2 * self.workers))), with_results=True
        )
        for _, result in ready:
            on_result(result)
            for following in islice(waiting, 1):
                ready.add(self.client.compute(following))


def _windows(tasks: Iterable[Delayed]) -> Iterator[list[Delayed]]:
    waiting = iter(tasks)
    while window := list(islice(waiting, _WINDOW)):
        yield window


@contextmanager
def _client(scheduler: str, workers: int | None) -> Iterator[Any]:
    try:
        import distributed
    except ImportError as error:
        raise DependencyError(
            f"scheduler '{scheduler}' needs the package distributed; install it, or use threads"
        ) from error
    if scheduler == "processes":
        with (
            _logging_restored(),
            distributed.LocalCluster(
                n_workers=workers or available_cores(),
                threads_per_worker=1,
                host="127.0.0.1",
                # Else the dashboard listens on all addresses, or two runs want the same port.
                dashboard_address="127.0.0.1:0",
                preload=_DEAF_TO_CTRL_C,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            try:
                yield client
            except BaseException:
                # Torn down in mid-run, the parts of a cluster complain of each other.
                logging.disable(logging.ERROR)
                raise
        return
    with _connect(distributed, scheduler) as client:
        if not client.nthreads():
            raise InputError(f"the cluster at '{scheduler}' has no workers; start some and retry")
        yield client


@contextmanager
def _logging_restored() -> Iterator[None]:
    before = logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(before)


def _connect(distributed: Any, scheduler: str) -> Any:
    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    try:
        return distributed.Client(**where, timeout=_REPLY_SECONDS)
    except (OSError, TimeoutError, ValueError, KeyError) as error:
        raise InputError(
            f"no Dask scheduler answers at '{scheduler}' ({_cause(error)}); start one, or use threads"
        ) from error


def _cause(error: BaseException) -> str:
    """Say in one line what went wrong; own errors need no name of a type."""
    text = " ".join(str(error).split())
    if isinstance(error, BigunetError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
