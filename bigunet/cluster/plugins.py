"""What workers of Dask are given to do when they start, also those that start again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from distributed import Worker, WorkerPlugin
from distributed.core import Status

from bigunet.cluster import shared
from bigunet.cluster.entry import admit, refuse
from bigunet.cluster.sealing import opened
from bigunet.cluster.tasks import cause_text

__all__ = ["DevicePlugin", "EntryPlugin", "SharedPlugin"]


class SharedPlugin(WorkerPlugin):
    """Puts a value where the tasks of a worker find it."""

    def __init__(self, key: str, pickled: bytes) -> None:
        self.key, self.pickled = key, pickled

    def setup(self, worker: Worker) -> None:
        """Keep the value; the plugin itself stays as long as the worker, so it lets go."""
        shared.keep(self.key, self.__dict__.pop("pickled"))

    def teardown(self, worker: Worker) -> None:
        """Forget the value."""
        shared.drop(self.key)


class EntryPlugin(WorkerPlugin):
    """Asks workers that join a run late what those that were there were asked before it began.

    Parameters
    ----------
    run : str
        Who asks; also the topic under which the client hears who was refused.
    call : bytes
        What to call, sealed; it raises where a worker cannot take part.
    known : collection of str
        Addresses of workers that were asked already.
    seconds : float
        That a worker may take for it.
    """

    def __init__(self, run: str, call: bytes, known: Collection[str], seconds: float) -> None:
        self.run, self.call, self.known, self.seconds = run, call, frozenset(known), seconds

    async def setup(self, worker: Worker) -> None:
        """Ask; the worker takes no task before it has answered."""
        if worker.address in self.known:
            return
        try:
            await asyncio.wait_for(asyncio.to_thread(opened, self.call), self.seconds)
        except Exception as error:
            refuse(self.run)
            cause = cause_text(error)
            logging.getLogger(__name__).error("gets no work of %s: %s", self.run, cause)
            worker.log_event(self.run, (worker.address, cause))

    def teardown(self, worker: Worker) -> None:
        """Take a refusal back."""
        admit(self.run)


class DevicePlugin(WorkerPlugin):
    """Asks a worker for a device, and makes a resource of the answer.

    The resource stays with the worker: another run may have asked for it, too.
    """

    def __init__(self, resource: str, probe: Callable[[], bool]) -> None:
        self.resource, self.probe = resource, probe

    async def setup(self, worker: Worker) -> None:
        """Ask, in a thread: the first import of torch takes its time."""
        found = await asyncio.to_thread(self.probe)
        if not found and self.resource not in worker.state.total_resources:
            return
        await worker.set_resources(**{self.resource: 1.0 if found else 0.0})
        if found and worker.status == Status.running:
            # The scheduler looks at tasks without a worker when one wakes up, not when
            # one gets a resource.
            worker.status = Status.paused
            worker.status = Status.running
