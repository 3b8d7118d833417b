"""Clusters of real processes on loopback; each is started once for a file, for that takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import dask
import pytest

ClusterMaker: TypeAlias = Callable[..., AbstractContextManager[Any]]


@contextmanager
def started(*workers: dict[str, Any], allowed_failures: int = 3) -> Iterator[Any]:
    """Start a scheduler and workers with options of their own; yield the cluster."""
    distributed = pytest.importorskip("distributed")
    common = {"host": "127.0.0.1", "dashboard": False, "nthreads": 1, "memory_limit": 10**9}
    scheduler = {
        "host": "127.0.0.1",
        "port": 0,
        "dashboard_address": "127.0.0.1:0",
        "allowed_failures": allowed_failures,
    }
    # Else nannies are sent away where a machine is too busy to start workers again in 15 s.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "60s"})
    with (
        patient,
        distributed.SpecCluster(
            scheduler={"cls": distributed.Scheduler, "options": scheduler},
            workers={
                i: {"cls": distributed.Nanny, "options": common | own}
                for i, own in enumerate(workers)
            },
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster


@contextmanager
def joined(cluster: Any, name: str, preload: str) -> Iterator[None]:
    """Let a worker join late, that runs some code first; take it away in the end."""
    distributed = pytest.importorskip("distributed")
    # As the others have it.
    own = next(iter(cluster.worker_spec.values()))["options"]
    options = {**own, "name": name, "preload": preload, "env": {}, "resources": {}}
    cluster.worker_spec[name] = {"cls": distributed.Nanny, "options": options}
    cluster.sync(cluster._correct_state)
    try:
        yield
    finally:
        del cluster.worker_spec[name]
        cluster.sync(cluster._correct_state)


@pytest.fixture(scope="session")
def join() -> Callable[..., AbstractContextManager[None]]:
    """Return what lets a worker join a cluster late."""
    return joined


@pytest.fixture(scope="session")
def start_cluster() -> ClusterMaker:
    """Return what starts a scheduler and a worker process for each set of options."""
    return started


@pytest.fixture(scope="module")
def started_pair() -> Iterator[Any]:
    """Return a cluster of two worker processes of two threads, as a user may have one."""
    with started({"nthreads": 2}, {"nthreads": 2}) as cluster:
        yield cluster


@pytest.fixture
def pair(started_pair: Any) -> Any:
    """Return the same with both workers there, whatever a test did to them."""
    started_pair.wait_for_workers(2, timeout=30)
    return started_pair
