"""Processes of this machine: one for each GPU, or as many as are asked for."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bigunet.cluster import open_executor, task

pytest.importorskip("distributed")


ALLOCATOR = "MALLOC_TRIM_THRESHOLD_"
"""By which distributed makes a worker give memory back at once, at 4 % of its time."""


def sight(_: int) -> tuple[int, str | None, str | None]:
    time.sleep(0.05)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get(ALLOCATOR)


def number_of_threads(folder: Path, _: int) -> int:
    """Return how many tasks are at work in this process."""
    mark = folder / f"{os.getpid()}-{threading.get_ident()}"
    mark.touch()
    time.sleep(0.3)
    return len(list(folder.glob(f"{os.getpid()}-*")))


def test_each_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 3")
    monkeypatch.delenv(ALLOCATOR, raising=False)
    found: list[Any] = []
    with open_executor("processes", gpus=2) as executor:
        assert (executor.processes, executor.workers, executor.threads) == (2, 4, None)
        assert executor.devices() == {"cpu", "cuda"}
        executor.run((task(sight, n, where="") for n in range(30)), found.append, device="cuda")
    assert len(set(found)) == 2
    assert {gpu for _, gpu, _ in found} == {"5", "3"}
    assert {allocator for *_, allocator in found} == {None}


def test_a_process_works_on_two_tasks_at_once(tmp_path: Path) -> None:
    found: list[Any] = []
    with open_executor("processes", 1) as executor:
        assert (executor.processes, executor.workers) == (1, 2)
        assert executor.memory is not None and executor.memory > 10**8
        tasks = (task(number_of_threads, tmp_path, n, where="") for n in range(4))
        executor.run(tasks, found.append)
    assert max(found) == 2


def complain(message: str) -> None:
    logging.getLogger("distributed.worker").error(message)


def test_a_heartbeat_that_comes_too_late_is_not_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = ("Failed to communicate with scheduler during heartbeat.", "a real one")
    with open_executor("processes", 1) as executor:
        executor.run((task(complain, message, where="") for message in said), lambda _: None)
    err = capfd.readouterr().err
    assert "a real one" in err and "heartbeat" not in err


@pytest.mark.parametrize(
    ("workers", "gpus", "count"), [(3, 0, 3), (3, 2, 2), (1, 2, 1), (None, 2, 2)]
)
def test_as_many_processes_as_asked_for(workers: int | None, gpus: int, count: int) -> None:
    from bigunet.cluster.local import _workers

    specified = _workers(workers, gpus)
    assert len(specified) == count
    for one in specified.values():
        assert one["options"]["nthreads"] == 2 and one["options"]["host"] == "127.0.0.1"
        assert ("resources" in one["options"]) == bool(gpus)
