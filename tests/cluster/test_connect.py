"""From names, addresses, files and clients to what runs tasks there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.delayed import delayed

from bigunet.cluster import (
    Failure,
    available_cores,
    available_memory,
    check_scheduler,
    default_scheduler,
    open_executor,
    task,
)
from bigunet.errors import InputError

distributed = pytest.importorskip("distributed")


def root(number: int) -> float:
    if number < 0:
        raise ValueError("negative")
    return number**0.5


@pytest.fixture(scope="module")
def client(started_pair: Any) -> Iterator[Any]:
    with distributed.Client(started_pair) as client:
        yield client


def test_an_existing_cluster_is_used_in_any_way_and_left(client: Any, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    client.write_scheduler_file(str(file))
    for where in (client.scheduler.address, str(file), client):
        found: list[Any] = []
        with open_executor(where) as executor:
            assert (executor.workers, executor.processes, executor.threads) == (4, 2, 2)
            assert executor.memory == 10**9
            assert executor.compute(delayed(7)) == 7
            executor.run((task(root, n, where=str(n)) for n in range(-2, 10)), found.append)
        failed = [one.where for one in found if isinstance(one, Failure)]
        assert sorted(failed) == ["-1", "-2"] and len(found) == 12
    assert client.status == "running" and len(client.nthreads()) == 2


def test_the_default_is_what_dask_works_with(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_scheduler() is client
    monkeypatch.setattr(distributed, "default_client", no_client)
    assert default_scheduler() == "threads"
    with dask.config.set({"scheduler-address": "tcp://of.config:1"}):
        assert default_scheduler() == "tcp://of.config:1"
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://of.environment:1")
        assert default_scheduler() == "tcp://of.environment:1"


def no_client() -> None:
    raise ValueError("there is none")


@pytest.mark.parametrize("where", ["threads", "sync", "processes", "slurm", "tls://a:1", __file__])
def test_what_can_be_meant(where: str) -> None:
    assert check_scheduler(where) == where


def test_what_is_no_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    monkeypatch.setattr("bigunet.cluster.connect.CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match="'dusk' is unknown"), open_executor("dusk"):
        pass
    for where in ("tcp://127.0.0.1:1", "nonsense://1"):
        refused = pytest.raises(InputError, match=f"no Dask scheduler answers at '{where}' \\(")
        with refused, open_executor(where):
            pass
    with pytest.raises(InputError, match="is no scheduler file"), open_executor(__file__):
        pass
    with pytest.raises(InputError, match="neither a name nor a distributed"):
        check_scheduler(7)  # type: ignore[type-var]
    asynchronous = asyncio.run(as_asynchronous(client.scheduler.address))
    with pytest.raises(InputError, match="asynchronous, or closed"):
        check_scheduler(asynchronous)


async def as_asynchronous(address: str) -> Any:
    async with distributed.Client(address, asynchronous=True, set_as_default=False) as client:
        return client


def test_a_cluster_without_workers_is_refused(start_cluster: Any) -> None:
    with start_cluster() as cluster:
        refused = pytest.raises(InputError, match="has no workers")
        with refused, open_executor(cluster.scheduler_address):
            pass


def test_there_are_cores_and_memory() -> None:
    assert available_cores() >= 1
    assert available_memory() > 100_000_000
