"""Work on the processes of a Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b
from importlib.metadata import version
from typing import Any, TypeVar
from uuid import uuid4

from dask.delayed import Delayed
from distributed import Client, WorkerPlugin
from distributed.protocol.pickle import dumps

from bigunet.cluster.devices import ADVERTISED, FOUND, Crew, has_cuda
from bigunet.cluster.entry import Refused, require_versions
from bigunet.cluster.executor import OnResult
from bigunet.cluster.flights import Flight, Landing, Raised
from bigunet.cluster.plugins import DevicePlugin, EntryPlugin, SharedPlugin
from bigunet.cluster.sealing import opened, sealed, sealed_graph
from bigunet.cluster.shared import Shared
from bigunet.cluster.tasks import NAMED_CAUSES, Task, call, cause_text
from bigunet.cluster.watch import REPLY_SECONDS, Watch, scheduler_of
from bigunet.errors import InputError, RunError

__all__ = ["Cluster"]

T = TypeVar("T")
_PREFIX = "bigunet"
"""Of the names of plugins; their client follows."""
CHECK_SECONDS = 120
"""That a worker may take for what it is asked before the first block."""


class Cluster:
    """Workers behind a client of `distributed`.

    Parameters
    ----------
    client : distributed.Client
    ours : bool
        Whether we started the workers.
    """

    def __init__(self, client: Client, *, ours: bool) -> None:
        self.client, self.ours = client, ours
        self.watch = Watch(client)
        self._name = f"{_PREFIX}/{client.id}/{uuid4().hex}"
        self._plugins: set[str] = set()
        if not ours:
            self._remove_orphans()
            client.subscribe_topic(self._name, self._on_refusal)
        # One number for all and all the time, for bits depend on it.
        self.threads = None if ours else min(one.slots for one in self.watch.members)

    @property
    def workers(self) -> int:
        """Tasks at work at once."""
        return Crew(self.watch.members).slots

    @property
    def processes(self) -> int:
        """Processes among which they are spread."""
        return len(self.watch.members)

    @property
    def memory(self) -> int | None:
        """Bytes that the smallest worker may take; None where nobody set a limit."""
        return min((one.memory for one in self.watch.members if one.memory), default=None)

    @property
    def refused(self) -> Mapping[str, str]:
        """Workers that joined late and get no work, by address, each with the cause."""
        return self.watch.refused

    def devices(self) -> frozenset[str]:
        """Return ``cpu``, and ``cuda`` if some worker has it."""
        found = self._crew("cuda").members
        return frozenset({"cpu", "cuda"} if found else {"cpu"})

    def share(self, value: Any) -> Shared:
        """Bring a value to each process once, to those that start later when they do."""
        pickled = dumps(value)
        key = f"{self._name}-{blake2b(pickled, digest_size=16).hexdigest()}"
        self._register(key, lambda: SharedPlugin(key, pickled))
        return Shared(key)

    def check(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on every worker, and name those on which it raised."""
        answers = self._everywhere(call, function, *args)
        bad = {
            address: cause_text(answer.error)
            for address, answer in answers.items()
            if isinstance(answer, Raised)
        }
        if bad:
            raise RunError(f"{len(bad)} of {len(answers)} workers cannot take part: {_told(bad)}")
        self._ask_late_ones(answers, call, function, *args)

    def ask(self, function: Callable[..., T], *args: Any, device: str | None = None) -> list[T]:
        """Call a function on every worker that has a device, and return the answers."""
        answers = self._everywhere(call, function, *args, device=device)
        for address, answer in answers.items():
            if isinstance(answer, Raised):
                raise RunError(f"{address}: {cause_text(answer.error)}") from answer.error
        return list(answers.values())

    def check_versions(self, versions: Mapping[str, str]) -> None:
        """Name the workers, and the scheduler, that have other versions of packages."""
        other: dict[str, str] = {}
        asked: set[str] = set()
        for package, wanted in versions.items():
            found = self._everywhere(version, package) | self._on_scheduler(version, package)
            asked.update(found)
            for address, answer in found.items():
                if answer != wanted:
                    has = "none" if isinstance(answer, Raised) else answer
                    other.setdefault(address, f"{package} {has} instead of {wanted}")
        if other:
            raise InputError(
                f"{len(other)} processes of the Dask cluster have other packages than this one: "
                f"{_told(other)}; install the same everywhere"
            )
        self._ask_late_ones(asked, require_versions, versions)

    def compute(self, value: Delayed) -> Any:
        """Compute one value; what it raises is raised."""
        landing, lazy = Landing(self.client, self.watch), sealed_graph(value, self._name)
        while True:
            landing.expect([self.client.compute(lazy, **self.watch.among(self.watch.members))])
            (outcome,) = (outcome for _, outcome in landing.batch())
            if not isinstance(outcome, Raised):
                return outcome
            if not isinstance(outcome.error, Refused):
                raise outcome.error

    def run(self, tasks: Iterable[Task], on_result: OnResult, *, device: str | None = None) -> None:
        """Run all tasks, and call back with each result in the caller's thread."""
        crew = self._crew(device)
        # Workers that are all gone may come back; a device that none has does not appear.
        if crew.resource and not crew.members:
            raise RunError(
                f"none of the {self.processes} workers at {self.watch.where} has {device}: none "
                f"has the resource {ADVERTISED}, and torch finds no such device on any; start "
                "workers on machines that have one, or pass --device cpu"
            )
        Flight(self.client, self.watch, crew, self._name).run(tasks, on_result)

    def close(self) -> None:
        """Take from the workers what they were given, unless they end, too."""
        if self.ours:
            return
        while self._plugins and not self.watch.lost:
            self._unregister(self._plugins.pop())
        with suppress(Exception):
            self.client.unsubscribe_topic(self._name)

    def _crew(self, device: str | None) -> Crew:
        if device is None or device.split(":")[0] != "cuda":
            return self.watch.look()
        return self.watch.look(self._cuda())

    def _cuda(self) -> str:
        """Return the resource of workers that have CUDA; where none says so, ask them once."""
        if Crew.of(self.watch.members, ADVERTISED).members:
            return ADVERTISED
        self._register(f"{self._name}-cuda", lambda: DevicePlugin(FOUND, has_cuda))
        return FOUND

    def _ask_late_ones(
        self, known: Collection[str], function: Callable[..., Any], *args: Any
    ) -> None:
        """Ask the same of workers that join from now on; where it raises, they get no work."""
        if self.ours:
            return
        name, question = f"{self._name}/entry-{len(self._plugins)}", sealed(function, *args)
        self._register(name, lambda: EntryPlugin(self._name, question, known, CHECK_SECONDS))

    def _on_refusal(self, event: tuple[float, tuple[str, str]]) -> None:
        self.watch.refuse(*event[1])

    def _remove_orphans(self) -> None:
        """Take from the workers what killed clients could not."""
        with suppress(Exception):
            for name in self.client.run_on_scheduler(_orphans):
                self._unregister(name)

    def _unregister(self, name: str) -> None:
        with suppress(Exception):
            self.client.sync(
                scheduler_of(self.client).unregister_worker_plugin,
                name=name,
                callback_timeout=REPLY_SECONDS,
            )

    def _register(self, name: str, plugin: Callable[[], WorkerPlugin]) -> None:
        """Give all workers a plugin, now and whenever one starts."""
        if name in self._plugins:
            return
        self._plugins.add(name)
        try:
            self.client.register_plugin(plugin(), name=name)
        except OSError as error:
            # Some worker died meanwhile; the one that takes its place is given it, too.
            if self.client.status != "running":
                raise self.watch.gone() from error
        self.watch.look(now=True)

    def _everywhere(
        self, function: Callable[..., Any], *args: Any, device: str | None = None
    ) -> dict[str, Any]:
        """Call a function on every worker; return by address what it returned, or `Raised`."""
        landing = Landing(self.client, self.watch)
        asked, task = {}, sealed(function, *args)
        self.watch.look(now=True)
        for member in self._crew(device).members:
            future = self.client.submit(opened, task, pure=False, workers=[member.address])
            asked[future.key] = future, member.address
        landing.expect(future for future, _ in asked.values())
        silence = Raised(RunError(f"no answer in {CHECK_SECONDS} s"))
        answers = {address: silence for _, address in asked.values()}
        deadline = time.monotonic() + CHECK_SECONDS
        while asked and (batch := landing.batch(deadline)):
            for future, outcome in batch:
                _, address = asked.pop(future.key)
                answers[address] = outcome
        return answers

    def _on_scheduler(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        try:
            answer = self.client.run_on_scheduler(function, *args)
        except Exception as error:
            answer = Raised(error)
        return {f"scheduler {self.watch.where}": answer}


def _orphans(dask_scheduler: Any) -> list[str]:
    """Return the plugins of ours whose client is gone."""
    ours = (name for name in dask_scheduler.worker_plugins if name.startswith(f"{_PREFIX}/"))
    return [name for name in ours if name.split("/")[1] not in dask_scheduler.clients]


def _told(bad: Mapping[str, str]) -> str:
    """Say what is wrong with some of the workers, and how many more there are."""
    told = [f"{address}: {cause}" for address, cause in sorted(bad.items())]
    more = [f"{len(told) - NAMED_CAUSES} more"] if len(told) > NAMED_CAUSES else []
    return "; ".join([*told[:NAMED_CAUSES], *more])
