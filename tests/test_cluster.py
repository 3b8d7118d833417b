"""Tasks come back from wherever they ran, and failures do not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask.delayed import Delayed, delayed

from bigunet import cluster
from bigunet.cluster import (
    Failure,
    available_cores,
    available_memory,
    failures_text,
    open_executor,
    task,
)
from bigunet.errors import InputError, RunError


def square(number: int) -> int:
    if number == 7:
        raise RunError("seven cannot be squared")
    if number == 8:
        raise ValueError("two\nlines")
    return number * number


def tasks(count: int) -> Iterator[Delayed]:
    return (task(square, n, where=f"number {n}") for n in range(count))


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_every_task_is_reported_once(scheduler: str) -> None:
    found: list[Any] = []
    with open_executor(scheduler, 3) as executor:
        executor.run(tasks(20), found.append)
        assert executor.compute(delayed(7)) == 7
    failures = [f for f in found if isinstance(f, Failure)]
    assert sorted(f for f in found if not isinstance(f, Failure)) == [
        n * n for n in range(20) if n not in (7, 8)
    ]
    assert {(f.where, f.cause) for f in failures} == {
        ("number 7", "seven cannot be squared"),
        ("number 8", "ValueError: two lines"),
    }


def test_windows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_WINDOW", 4)
    drawn, found = [], []

    def watched() -> Iterator[Delayed]:
        for n in range(9, 30):
            drawn.append(n)
            yield task(square, n, where="")

    def on_result(result: Any) -> None:
        found.append(result)
        assert len(drawn) - len(found) <= 4

    with open_executor("threads", 2) as executor:
        executor.run(watched(), on_result)
    assert len(found) == 21


def test_results_are_told_in_the_callers_thread() -> None:
    threads = set()
    with open_executor("threads", 4) as executor:
        executor.run(tasks(6), lambda _: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_an_existing_cluster_is_used_by_address_and_by_file(tmp_path: Path) -> None:
    """On loopback, with real processes; the cluster is left running."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        file = tmp_path / "scheduler.json"
        client.write_scheduler_file(str(file))
        for where in (local.scheduler_address, str(file)):
            found: list[Any] = []
            with open_executor(where) as executor:
                assert (executor.workers, executor.processes, executor.threads) == (2, 2, 1)
                assert executor.compute(delayed(7)) == 7
                executor.run(tasks(12), found.append)
            assert len(found) == 12 and sum(isinstance(f, Failure) for f in found) == 2
        assert len(client.scheduler_info()["workers"]) == 2


def test_what_is_no_scheduler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_REPLY_SECONDS", 1)
    with pytest.raises(InputError, match="'dusk' is unknown"), open_executor("dusk"):
        pass
    refused = pytest.raises(
        InputError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:1'"
    )
    with refused, open_executor("tcp://127.0.0.1:1"):
        pass


def test_there_are_cores_and_memory() -> None:
    assert available_cores() >= 1
    assert available_memory() > 100_000_000


def test_causes_that_differ_in_numbers_only_are_said_once() -> None:
    failures = [
        Failure(where=f"block {n}", cause=f"cannot write rows {n}:{n + 9}: no space left")
        for n in (3, 2, 7)
    ]
    said = failures_text([*failures, Failure(where="block 4", cause="cannot read")])
    assert said == (
        "cannot write rows 2:11: no space left (block 2 and 2 more); cannot read (block 4)"
    )
