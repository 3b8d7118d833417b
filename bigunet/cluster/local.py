"""Processes on this machine: one for each GPU, or for each core."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster

from bigunet.cluster.devices import ADVERTISED
from bigunet.cluster.resources import SLOTS, available_cores, available_memory
from bigunet.cluster.tls import check_certificates, is_required
from bigunet.cluster.watch import LOST_SECONDS

__all__ = ["local_client"]

ALLOWED_FAILURES = 2
"""Workers that may die of a task before it is set aside."""
# Ctrl-C reaches all processes of a terminal; the main one stops the others, unasked for comments,
# and perhaps while they tell the scheduler that they are alive.
_QUIET_TO_THE_END = """
import logging, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
logging.getLogger("distributed.worker.state_machine").setLevel(logging.ERROR)
logging.getLogger("distributed.worker").addFilter(lambda r: "heartbeat" not in r.getMessage())
"""
_PATIENCE = {
    "distributed.scheduler.no-workers-timeout": f"{LOST_SECONDS}s",
    # A worker that was killed comes back with torch to import, perhaps on a busy machine.
    "distributed.deploy.lost-worker-timeout": f"{LOST_SECONDS}s",
}
# By default five event loops wake up 50 times a second, and workers look at every thread's stack 100
# times: 0.1 cores of two, of which the network makes more than anybody makes of the statistics.
_UNWATCHED = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "500ms",
}
# By default the allocator of a worker gives every array back to the system, which clears its pages
# again for the next block's: 4 % of all processor time. None leaves the allocator as it comes.
_MEMORY_KEPT = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}


@contextmanager
def local_client(workers: int | None, gpus: int) -> Iterator[Client]:
    """Start processes, and end them with the block.

    Parameters
    ----------
    workers : int, optional
        Processes; never more than GPUs, where there are any.
    gpus : int
        That this process sees; 0 for processes on the CPU.

    Raises
    ------
    InputError
        Dask's settings demand encryption, and there is no certificate.
    """
    scheduler = _on_loopback() | {
        "port": 0,
        # By default it listens on all addresses, and two runs want the same port.
        "dashboard_address": "127.0.0.1:0",
        "allowed_failures": ALLOWED_FAILURES,
    }
    with (
        _logging_restored(),
        dask.config.set(_PATIENCE | _UNWATCHED | _MEMORY_KEPT),
        SpecCluster(
            scheduler={"cls": Scheduler, "options": scheduler},
            workers=_workers(workers, gpus),
            silence_logs=logging.WARNING,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        try:
            yield client
        except BaseException:
            # Torn down in mid-run, the parts of a cluster complain of each other.
            logging.disable(logging.ERROR)
            raise


def _workers(wanted: int | None, gpus: int) -> dict[int, Any]:
    """Specify a nanny with one worker for each process."""
    count = min(wanted or gpus, gpus) if gpus else wanted or available_cores()
    common = _on_loopback() | {
        "nthreads": SLOTS,
        "memory_limit": available_memory() // count,
        "preload": _QUIET_TO_THE_END,
        "dashboard": False,
        "silence_logs": logging.WARNING,
    }
    return {i: {"cls": Nanny, "options": common | (_gpu(i) if gpus else {})} for i in range(count)}


def _on_loopback() -> dict[str, Any]:
    """Return where processes listen; with TLS where that has to be."""
    if is_required():
        check_certificates("processes", "scheduler", "worker", "client")
    return {"host": "127.0.0.1", "protocol": "tls://" if is_required() else "tcp://"}


def _gpu(number: int) -> dict[str, Any]:
    """Return the options of a worker that sees one of this process's GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    name = visible.split(",")[number].strip() if visible else str(number)
    return {"env": {"CUDA_VISIBLE_DEVICES": name}, "resources": {ADVERTISED: 1}}


@contextmanager
def _logging_restored() -> Iterator[None]:
    before = logging.root.manager.disable
    try:
        yield
    finally:
        logging.disable(before)
