"""What happens to tasks on a cluster where processes die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dask.delayed import Delayed, delayed

from bigunet.cluster import Failure, Task, open_executor, task
from bigunet.cluster.flights import Landing, Raised
from bigunet.cluster.watch import Watch
from bigunet.errors import RunError

distributed = pytest.importorskip("distributed")
if not hasattr(signal, "SIGKILL"):
    pytest.skip("signals differ on Windows", allow_module_level=True)


def double(number: int) -> int:
    return 2 * number


def double_or_die(number: int, deadly: tuple[int, ...], mark: Path) -> int:
    if number in deadly:
        (mark / f"{number}-{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return 2 * number


def fail_on_three(number: int) -> int:
    if number == 3:
        raise OSError("cannot read chunk 3")
    return number


def touch(number: int, folder: Path) -> None:
    (folder / str(number)).touch()
    time.sleep(0.05)


def test_results_come_as_room_is_made(pair: Any) -> None:
    drawn, found = [], []

    def watched() -> Iterator[Task]:
        for n in range(60):
            drawn.append(n)
            yield task(double, n, where="")

    def on_result(result: Any) -> None:
        found.append(result)
        assert len(drawn) - len(found) < 2 * 4

    with open_executor(pair.scheduler_address) as executor:
        executor.run(watched(), on_result)
        executor.run([], on_result)
    assert sorted(found) == list(range(0, 120, 2))


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lazy_tasks() -> Iterator[Task]:
    def read(n: int) -> Delayed:
        made: Delayed = delayed(fail_on_three)(n)
        return made

    return (task(double, read(n), where=f"block {n}") for n in range(6))


def test_what_comes_before_a_lazy_task_may_fail(pair: Any) -> None:
    found: list[Any] = []
    with open_executor(pair.scheduler_address) as executor:
        executor.run(lazy_tasks(), found.append)
        with pytest.raises(OSError, match="chunk 3"):
            executor.compute(delayed(fail_on_three)(3))
    assert sorted(one for one in found if not isinstance(one, Failure)) == [0, 2, 4, 8, 10]
    (failure,) = (one for one in found if isinstance(one, Failure))
    assert failure == Failure(where="block 3", cause="OSError: cannot read chunk 3")


def test_a_run_that_is_stopped_takes_its_tasks_back(pair: Any, tmp_path: Path) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with open_executor(pair.scheduler_address) as executor:
        with pytest.raises(KeyboardInterrupt):
            executor.run((task(touch, n, tmp_path, where="") for n in range(99)), stop)
        found: list[int] = []
        executor.run((task(double, n, where="") for n in range(4)), found.append)
    assert sorted(found) == [0, 2, 4, 6]
    assert len(list(tmp_path.iterdir())) <= 8


def test_what_kills_its_worker_is_set_aside_and_named(start_cluster: Any, tmp_path: Path) -> None:
    deadly, found = (5, 17), list[Any]()
    with (
        start_cluster({"nthreads": 2}, {"nthreads": 2}, allowed_failures=0) as cluster,
        open_executor(cluster.scheduler_address) as executor,
    ):
        tasks = (task(double_or_die, n, deadly, tmp_path, where=f"block {n}") for n in range(40))
        executor.run(tasks, found.append)
    failures = {one.where: one.cause for one in found if isinstance(one, Failure)}
    done = [one for one in found if not isinstance(one, Failure)]
    assert sorted(done) == [2 * n for n in range(40) if n not in deadly]
    assert set(failures) == {"block 5", "block 17"}
    for cause in failures.values():
        assert cause.startswith("killed its worker 1 times, alone on it; the last was tcp://127")
    # Once when first met, and once alone.
    assert len(list(tmp_path.iterdir())) == 4


def test_a_result_that_has_arrived_outlives_its_worker(pair: Any) -> None:
    with distributed.Client(pair, set_as_default=False) as client:
        landing = Landing(client, Watch(client))
        address, pid = next(iter(client.run(os.getpid).items()))
        # Nobody else may do it again: its loss would not be seen.
        future = client.submit(double, 21, workers=[address])
        landing.expect([future])
        wait_until(landing._ready.has_ready)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: future.status != "finished")
        assert landing.batch() == [(future, 42)]


def test_what_fails_on_its_way_here_arrives_as_an_error(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its worker died before the result was fetched, and then those that did it again."""
    result, failures = distributed.Future._result, ["once"]

    async def failing_once(future: Any, raiseit: bool = True) -> Any:
        if failures:
            raise distributed.KilledWorker(failures.pop(), None, 0)
        return await result(future, raiseit=raiseit)

    with distributed.Client(pair, set_as_default=False) as client:
        landing = Landing(client, Watch(client))
        future = client.submit(fail_on_three, 3)
        wait_until(lambda: future.status == "error")
        monkeypatch.setattr(distributed.Future, "_result", failing_once)
        landing.expect([future])
        ((arrived, outcome),) = landing.batch(time.monotonic() + 30)
    assert arrived == future and isinstance(outcome, Raised)
    assert str(outcome.error) == "cannot read chunk 3"


# The cluster is lost


ALONE = """
import asyncio, signal
from distributed import Scheduler, Worker

async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        async with Worker(scheduler.address, nthreads=2, dashboard=False) as worker:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, lambda: loop.create_task(worker.close()))
            print(scheduler.address, flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def apart() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Return the address of a scheduler with a worker, and their process."""
    command = [sys.executable, "-c", ALONE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def linger(number: int) -> int:
    """Take long, from the twentieth on: whatever happens then meets tasks at work."""
    time.sleep(0 if number < 20 else 5)
    return number


def run_until(
    address: str, happens: Callable[[], object], work: Callable[[int], int] = double
) -> None:
    """Run tasks without end, and let something happen after the twentieth."""
    found: list[Any] = []

    def on_result(result: Any) -> None:
        found.append(result)
        if len(found) == 20:
            happens()

    with open_executor(address) as executor:
        executor.share(b"something to take back")
        executor.run((task(work, n, where="") for n in range(10**9)), on_result)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"REPLY_SECONDS": 1, "LOOK_SECONDS": 0.2, "LOST_SECONDS": 2}.items():
        monkeypatch.setattr(f"bigunet.cluster.watch.{name}", seconds)


@pytest.mark.usefixtures("impatient")
def test_a_lost_scheduler_ends_the_run_soon(apart: Any, caplog: pytest.LogCaptureFixture) -> None:
    address, process = apart
    for kind in (signal.SIGSTOP, signal.SIGKILL):
        process.send_signal(signal.SIGCONT)
        began = time.monotonic()
        with pytest.raises(RunError, match=f"^lost the Dask scheduler at {address}$"):
            run_until(address, lambda kind=kind: process.send_signal(kind))
        assert time.monotonic() - began < 20
    # One line says it all; distributed's and tornado's tracebacks are kept from the user.
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_cluster_that_is_restarted_drops_its_tasks(pair: Any) -> None:
    dropped = pytest.raises(RunError, match=r"dropped tasks of this run: it was restarted")
    with distributed.Client(pair, set_as_default=False) as other, dropped:
        run_until(pair.scheduler_address, lambda: other.restart(wait_for_workers=False), linger)


@pytest.mark.usefixtures("impatient")
def test_lost_workers_end_the_run_after_a_while(apart: Any) -> None:
    address, process = apart
    began = time.monotonic()
    with pytest.raises(RunError, match=f"^all workers of .* at {address} have been gone for 2 s"):
        run_until(address, lambda: process.send_signal(signal.SIGUSR1))
    assert time.monotonic() - began < 20
