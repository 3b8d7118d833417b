"""Tasks in flight on a cluster: a bounded number, each landed once.

waiting ──▶ in flight ──▶ result or Failure
   ▲            │
   │            ├─ killed its worker ──▶ set aside ──▶ once more at the end, alone
   └────────────┴─ met a worker that takes no part
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, as_completed
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from bigunet.cluster.devices import Crew
from bigunet.cluster.entry import Refused, entered
from bigunet.cluster.executor import OnResult
from bigunet.cluster.sealing import opened, sealed, sealed_graph
from bigunet.cluster.tasks import Failure, Task, cause_text
from bigunet.cluster.watch import Watch
from bigunet.errors import RunError

__all__ = ["Flight", "Landing", "Raised"]

AHEAD = 2
"""Tasks in flight for each that is at work, so that no worker has to wait for more."""
RETRIES = 2
"""Of what dask computes for a lazy task before its own call."""


@dataclass(frozen=True)
class Raised:
    """What a future has instead of a result."""

    error: BaseException


class Landing:
    """Where futures come in, as long as the cluster is there."""

    def __init__(self, client: Client, watch: Watch, resource: str | None = None) -> None:
        self.client, self.watch, self.resource = client, watch, resource
        # distributed gives no types for its own, nor for what is made of it.
        ready = _Arrivals(loop=client.loop, with_results=True, raise_errors=False)  # type: ignore[no-untyped-call]
        self._ready: Any = ready
        watch.begin()

    def expect(self, futures: Iterable[Future[Any]]) -> None:
        """Wait for these, too."""
        self._ready.update(futures)

    def batch(self, deadline: float | None = None) -> list[tuple[Future[Any], Any]]:
        """Wait for at least one, and return all that are there, each with its result or `Raised`.

        Raises
        ------
        RunError
            The cluster is lost, or it has dropped what it was given.
        """
        while not self._ready.has_ready():
            if deadline is not None and time.monotonic() > deadline:
                return []
            with self._ready.thread_condition:
                self._ready.thread_condition.wait(timeout=0.1)
            self.watch.look(self.resource)
        taken = self._ready.next_batch(block=False)
        return [(future, self._outcome(result)) for future, result in taken]

    def _outcome(self, result: Any) -> Any:
        # The future has a status, but of now: its worker may have died since, and the result is here.
        if isinstance(result, CancelledError):
            if self.client.status != "running":
                raise self.watch.gone()
            raise RunError(
                f"the Dask cluster at {self.watch.where} dropped tasks of this run: "
                "it was restarted, or somebody cancelled them"
            )
        if not _is_error(result):
            return result
        error = result[1]
        if isinstance(error, NoWorkerError | NoValidWorkerError):
            raise RunError(f"the Dask cluster at {self.watch.where} has lost its workers")
        return Raised(error)


class Flight:
    """Tasks on their way through the workers of a crew."""

    def __init__(self, client: Client, watch: Watch, crew: Crew, run: str) -> None:
        self.client, self.watch = client, watch
        self._run_name, self._opened = run, partial(entered, run, opened)
        # As it is now: of a crew that is gone for a moment nothing could be asked.
        self._resource, self._request = crew.resource, crew.request()
        self._landing = Landing(client, watch, crew.resource)
        self._flying: dict[Any, tuple[Future[Any], Task]] = {}
        self._name, self._numbers = f"bigunet-{uuid4().hex}", count()

    def run(self, tasks: Iterable[Task], on_result: OnResult) -> None:
        """Run tasks; those that kill their workers come last, one at a time."""
        try:
            for task, _ in self._run(tasks, on_result):
                # Alone, it takes no innocent neighbour with it.
                for _, error in self._run([task], on_result):
                    on_result(Failure(where=task.where, cause=_killed_text(error)))
        finally:
            self._abandon()

    def _run(self, tasks: Iterable[Task], on_result: OnResult) -> list[tuple[Task, KilledWorker]]:
        """Run tasks, and return those that killed their workers."""
        waiting = iter(tasks)
        killed: list[tuple[Task, KilledWorker]] = []
        lazy: list[Task] = []
        while True:
            if lazy and not self._flying:
                waiting, lazy = chain(lazy, waiting), []
            self._launch(list(islice(waiting, self._room())))
            if not self._flying:
                return killed
            for future, outcome in self._landing.batch():
                task = self._flying.pop(future.key)[1]
                if not isinstance(outcome, Raised):
                    on_result(outcome)
                elif isinstance(outcome.error, Refused) and task.is_lazy:
                    lazy.append(task)
                elif isinstance(outcome.error, Refused):
                    self._launch([task])
                elif isinstance(outcome.error, KilledWorker):
                    killed.append((task, outcome.error))
                else:
                    on_result(Failure(where=task.where, cause=cause_text(outcome.error)))
            # What lazy tasks share has to be forgotten before it is computed again.
            del future

    def _room(self) -> int:
        slots = self.watch.look(self._resource).slots
        # Also where all workers are about to come back.
        return max(0, max(1, AHEAD * slots) - len(self._flying))

    def _launch(self, tasks: Sequence[Task]) -> None:
        """Send tasks, sealed."""
        helpers = self._helpers()
        among = self.watch.among(Crew.of(self.watch.members, self._resource).members)
        plain, lazy, apart = list[Task](), list[Task](), list[Task]()
        for task in tasks:
            in_steps = helpers.members and task.steps
            (lazy if task.is_lazy else apart if in_steps else plain).append(task)
        futures = []
        if plain:
            futures += self.client.map(
                self._opened,
                [sealed(task) for task in plain],
                key=[(self._name, next(self._numbers)) for _ in plain],
                resources=self._request,
                **among,
            )
        if lazy:
            made = [sealed_graph(task.delayed(), self._run_name) for task in lazy]
            futures += self.client.compute(made, resources=self._request, retries=RETRIES, **among)
        futures += [self._launch_apart(task, helpers, among) for task in apart]
        pairs = zip(futures, (*plain, *lazy, *apart), strict=True)
        self._flying.update((future.key, (future, task)) for future, task in pairs)
        self._landing.expect(futures)

    def _helpers(self) -> Crew:
        """Return the workers that lack the device."""
        crew = Crew.of(self.watch.members, self._resource).members
        return Crew(tuple(one for one in self.watch.members if one not in crew))

    def _launch_apart(self, task: Task, helpers: Crew, among: dict[str, Any]) -> Future[Any]:
        """Send the steps of a task one by one; what is older goes first.

        What comes between goes from worker to worker, and is dropped as soon as it is used.
        """
        assert task.steps is not None
        number, (read, compute, write) = next(self._numbers), (sealed(step) for step in task.steps)
        slots = sum(member.slots for member in self.watch.members)
        # Dask leaves work where its data are: with the device, unless it is told otherwise.
        elsewhere = {
            "workers": [member.address for member in helpers.members],
            "allow_other_workers": True,
        }
        before = self.client.submit(
            self._opened,
            read,
            key=(f"{self._name}-read", number),
            **self.watch.among(self.watch.members),
        )
        result = self.client.submit(
            self._opened,
            compute,
            before,
            key=(f"{self._name}-compute", number),
            resources=self._request,
            priority=1,
            **among,
        )
        return self.client.submit(
            self._opened,
            write,
            result,
            key=(f"{self._name}-write", number),
            priority=2,
            **elsewhere if number % slots < helpers.slots else {},
        )

    def _abandon(self) -> None:
        """Take back what is in flight, if the run ends before it."""
        if self._flying and not self.watch.lost:
            with suppress(Exception):
                self.client.cancel([future for future, _ in self._flying.values()], force=True)
        self._flying.clear()


class _Arrivals(as_completed):
    """Futures as they are done, each once.

    The original forgets one whose result was lost with its worker on the way here, and which
    then failed.
    """

    async def _track_future(self, future: Future[Any]) -> None:
        while True:
            try:
                await super()._track_future(future)  # type: ignore[no-untyped-call]
            except OSError:
                return  # The scheduler is gone; so says the watch.
            except Exception:
                if future.status != "error":
                    raise
            else:
                return


def _is_error(result: Any) -> bool:
    """Tell whether a future gave what `sys.exc_info` does."""
    match result:
        case type(), BaseException(), _:
            return True
    return False


def _killed_text(error: KilledWorker) -> str:
    return (
        f"killed its worker {error.allowed_failures + 1} times, alone on it; the last was "
        f"{error.last_worker.address}, whose log may say why (often it is memory)"
    )
