"""From what the user calls a scheduler to what runs tasks there."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import dask

from bigunet.cluster.embedded import Embedded
from bigunet.cluster.executor import Executor
from bigunet.cluster.resources import available_cores
from bigunet.cluster.tasks import cause_text
from bigunet.errors import DependencyError, InputError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["EMBEDDED", "Where", "check_scheduler", "default_scheduler", "open_executor"]

EMBEDDED = ("threads", "sync")
OURS = ("processes", "slurm")
CONNECT_SECONDS = 15
CLOSE_SECONDS = 5
# At length, and with tracebacks, they say of a lost scheduler what a run says in one line.
_TALKATIVE = (
    "asyncio",
    "distributed.batched",
    "distributed.client",
    "distributed.core",
    "tornado.application",
)

Where: TypeAlias = "str | Client"
"""``threads``, ``sync``, ``processes``, ``slurm``, an address, a scheduler file, or a client."""


def check_scheduler(scheduler: Where | None) -> Where:
    """Return a scheduler if it can be meant, the default one for None, without connecting.

    Raises
    ------
    InputError
        It is neither a known name, an address nor a scheduler file.
    """
    if scheduler is None:
        scheduler = default_scheduler()
    if not isinstance(scheduler, str):
        _check_client(scheduler)
        return scheduler
    if scheduler in (*EMBEDDED, *OURS) or "://" in scheduler or Path(scheduler).is_file():
        return scheduler
    raise InputError(
        f"scheduler '{scheduler}' is unknown; give threads, sync, processes, slurm, "
        f"an address such as tcp://127.0.0.1:8786, or an existing scheduler file"
    )


def default_scheduler() -> Where:
    """Return where to work if nobody says so.

    The client of Dask that this process works with, if there is one; else what the
    environment or Dask's configuration gives as its address; else ``threads``.
    """
    if "distributed" in sys.modules:
        with suppress(ValueError):
            client: Client = sys.modules["distributed"].default_client()
            return client
    address = os.environ.get("DASK_SCHEDULER_ADDRESS") or dask.config.get("scheduler-address", None)
    return str(address) if address else "threads"


@contextmanager
def open_executor(
    scheduler: Where | None = None, workers: int | None = None, *, gpus: int = 0
) -> Iterator[Executor]:
    """Open what runs tasks; what is started for it ends with it, an existing cluster stays.

    Parameters
    ----------
    scheduler : {"threads", "sync", "processes", "slurm"}, address, file or Client
        ``threads`` and ``sync`` need no set-up and open no socket; ``processes``
        is a cluster on loopback, ``slurm`` one of jobs. By default `default_scheduler`.
    workers : int, optional
        Tasks at once of ``threads``, processes of ``processes``, jobs of ``slurm``.
        By default all cores, or one job. An existing cluster has as many as it has.
    gpus : int
        Of this machine: ``processes`` gives each to one process.

    Raises
    ------
    InputError
        There is no such scheduler, or it has no workers.
    DependencyError
        A package is not installed.
    """
    scheduler = check_scheduler(scheduler)
    if isinstance(scheduler, str) and scheduler in EMBEDDED:
        count = 1 if scheduler == "sync" else workers or max(2, available_cores())
        yield Embedded(scheduler, count)
        return
    _load_distributed(scheduler)
    from bigunet.cluster.dask_cluster import Cluster

    with _client(scheduler, workers, gpus) as client:
        cluster = Cluster(client, ours=scheduler == "processes")
        try:
            yield cluster
        finally:
            cluster.close()


@contextmanager
def _client(scheduler: Where, workers: int | None, gpus: int) -> Iterator[Client]:
    if scheduler == "processes":
        from bigunet.cluster.local import local_client

        with local_client(workers, gpus) as client:
            yield client
    elif scheduler == "slurm":
        from bigunet.cluster.slurm import slurm_client

        with slurm_client(workers) as client:
            yield client
    elif isinstance(scheduler, str):
        with _connected(scheduler) as client:
            yield _with_workers(client)
    else:
        yield _with_workers(scheduler)


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    from distributed import Client

    from bigunet.cluster.tls import check_address

    address = scheduler if "://" in scheduler else _address_in(Path(scheduler))
    check_address(address)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at '{scheduler}' ({cause_text(error)}); start one, "
            "or use threads"
        ) from error
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    _set_levels(dict.fromkeys(levels, logging.CRITICAL))
    try:
        yield client
    finally:
        is_well = client.status == "running"
        # A scheduler that is gone cannot be told good-bye.
        with suppress(Exception):
            client.close(timeout=CLOSE_SECONDS)
        # What is left of a client that lost it goes on to complain as long as the process lives.
        if is_well:
            _set_levels(levels)


def _set_levels(levels: Mapping[str, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _address_in(file: Path) -> str:
    """Return the address that a scheduler wrote into its file."""
    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no scheduler file of Dask ({cause_text(error)})") from error


def _with_workers(client: Client) -> Client:
    if not client.nthreads():
        where = client.scheduler_info()["address"]
        raise InputError(f"the cluster at '{where}' has no workers; start some and retry")
    return client


def _check_client(client: Any) -> None:
    """Refuse what is no client of distributed that can be used from here."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not isinstance(client, distributed.Client):
        raise InputError(f"scheduler {client!r} is neither a name nor a distributed.Client")
    if client.asynchronous or client.status != "running":
        raise InputError(f"scheduler {client!r} cannot be used: it is asynchronous, or closed")


def _load_distributed(scheduler: Where) -> None:
    try:
        import distributed  # noqa: F401 - whether it is there is all
    except ImportError as error:
        raise DependencyError(
            f"scheduler '{scheduler}' needs the package distributed; install it, or use threads"
        ) from error
