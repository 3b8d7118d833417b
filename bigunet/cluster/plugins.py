"""What workers of Dask are given to do when they start, also those that start again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distributed import Worker, WorkerPlugin
from distributed.core import Status

from bigunet.cluster import shared

__all__ = ["DevicePlugin", "SharedPlugin"]


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
