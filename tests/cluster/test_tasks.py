"""A task is tried again where that may help, and failures name their causes once."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from dask.delayed import delayed

from bigunet.cluster import Failure, Steps, failures_text, task
from bigunet.errors import InputError, OutputError, RunError, TakenOverError


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the pauses instead of making them."""
    found: list[float] = []
    monkeypatch.setattr("bigunet.cluster.tasks.time.sleep", found.append)
    return found


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return call, calls


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_task_that_raises_is_tried_three_times(times: int, pauses: list[float]) -> None:
    call, calls = failing(times, RunError("a chunk was slow"))
    assert task(call, where="here")() == "done"
    assert len(calls) == times + 1
    assert len(pauses) == times
    assert all(0.5 * mean <= p <= 1.5 * mean for p, mean in zip(pauses, (0.1, 0.4), strict=False))


def test_what_raises_three_times_is_a_failure() -> None:
    call, calls = failing(9, ValueError("two\nlines"))
    assert task(call, where="here")() == Failure(where="here", cause="ValueError: two lines")
    assert len(calls) == 3


def full() -> RunError:
    error = RunError("cannot write rows 0:64")
    error.__cause__ = OSError(errno.ENOSPC, "no space left")
    return error


@pytest.mark.parametrize("error", [TakenOverError("another run"), InputError("no"), full()])
def test_what_nothing_can_mend_is_not_tried_again(error: Exception) -> None:
    call, calls = failing(9, error)
    stops = isinstance(error, TakenOverError)
    failure = Failure(where="here", cause=str(error), stops_run=stops)
    assert task(call, where="here")() == failure
    assert len(calls) == 1


@pytest.mark.parametrize("error", [OutputError("gone"), OSError(errno.EIO, "?"), TimeoutError()])
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    call, calls = failing(2, error)
    assert task(call, where="here")() == "done" and len(calls) == 3


def test_the_same_task_for_dask() -> None:
    made = task(max, delayed(int)("4"), 3, where="here")
    assert made.is_lazy and made.delayed().compute(scheduler="sync") == 4
    assert not task(max, 4, 3, where="here").is_lazy


def read(first: int, second: int) -> int:
    return first - second


def compute(before: int, first: int, second: int) -> tuple[int, ...]:
    return before, first, second


def write(before: tuple[int, ...], first: int, second: int) -> tuple[tuple[int, ...], int, int]:
    if first < 0:
        raise InputError("no place")
    return before, first, second


@pytest.mark.parametrize("first", [7, -7])
def test_steps_one_by_one_give_what_they_give_at_once(first: int) -> None:
    whole = task(Steps(read, compute, write), first, 3, where="here")
    assert whole.steps is not None and task(read, first, 3, where="here").steps is None
    one, two, three = whole.steps
    done = ((first - 3, first, 3), first, 3)
    expected = done if first > 0 else Failure(where="here", cause="no place")
    assert whole() == three(two(one())) == expected


def test_what_fails_in_a_step_goes_no_further() -> None:
    calls: list[int] = []

    def fail(*_: int) -> int:
        calls.append(1)
        raise RunError("a chunk was slow")

    whole = task(Steps(fail, write, write), 7, 3, where="here")
    assert whole.steps is not None
    one, two, three = whole.steps
    assert three(two(one())) == whole() == Failure(where="here", cause="a chunk was slow")
    assert len(calls) == 6


def test_causes_that_differ_in_numbers_only_are_said_once() -> None:
    failures = [
        Failure(where=f"block {n}", cause=f"cannot write rows {n}:{n + 9}: no space left")
        for n in (3, 2, 7)
    ]
    said = failures_text([*failures, Failure(where="block 4", cause="cannot read")])
    assert said == (
        "cannot write rows 2:11: no space left (block 2 and 2 more); cannot read (block 4)"
    )
