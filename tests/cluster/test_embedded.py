"""Work in threads of this process: all results come, and a bounded number is drawn ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from dask.delayed import delayed

from bigunet.cluster import Failure, Task, open_executor, task
from bigunet.errors import InputError, RunError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigunet.cluster.tasks.PAUSES", ())


def square(number: int) -> int:
    if number == 7:
        raise RunError("seven cannot be squared")
    if number == 8:
        raise ValueError("two\nlines")
    return number * number


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_every_task_is_reported_once(scheduler: str) -> None:
    found: list[Any] = []
    with open_executor(scheduler, 3) as executor:
        executor.run((task(square, n, where=f"number {n}") for n in range(20)), found.append)
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
    monkeypatch.setattr("bigunet.cluster.embedded.WINDOW", 4)
    drawn, found = [], []

    def watched() -> Iterator[Task]:
        for n in range(9, 30):
            drawn.append(n)
            yield task(square, n, where="")

    def on_result(result: Any) -> None:
        found.append(result)
        assert len(drawn) - len(found) <= 4

    with open_executor("threads", 2) as executor:
        executor.run(watched(), on_result)
    assert len(found) == 21


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
@pytest.mark.parametrize("lazy", [False, True])
def test_tasks_are_begun_in_order(scheduler: str, lazy: bool) -> None:
    begun: list[int] = []
    arguments = (delayed(n, name=f"part-{n * 7919 % 5000}") if lazy else n for n in range(5000))
    with open_executor(scheduler, 1) as executor:
        executor.run((task(begun.append, n, where="") for n in arguments), lambda _: None)
    assert begun == list(range(5000))


def test_results_are_told_in_the_callers_thread() -> None:
    threads = set()
    with open_executor("threads", 4) as executor:
        tasks = (task(square, n, where="") for n in range(6))
        executor.run(tasks, lambda _: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_there_is_nothing_to_bring_anywhere() -> None:
    value = object()
    with open_executor("threads", 4) as executor:
        assert executor.share(value) is value
        assert (executor.workers, executor.processes) == (4, 1)
        assert executor.threads is None and executor.memory is None
        executor.check_versions({"bigunet": "another"})
        executor.check(square, 3)
        with pytest.raises(RunError, match="seven"):
            executor.check(square, 7)


def test_a_device_is_what_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_executor("sync") as executor:
        for usable, kinds in ((True, {"cpu", "cuda"}), (False, {"cpu"})):
            monkeypatch.setattr("bigunet.models.devices._usable", lambda _, answer=usable: answer)
            assert executor.devices() == kinds


def test_errors_of_the_generator_are_raised() -> None:
    def broken() -> Iterator[Task]:
        yield task(square, 1, where="")
        raise InputError("no more")

    with open_executor("sync") as executor, pytest.raises(InputError, match="no more"):
        executor.run(broken(), print)
