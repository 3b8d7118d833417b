"""What workers are given and asked: shared values, checks, versions, devices."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigunet.cluster import Executor, Failure, Steps, open_executor, shared, task
from bigunet.cluster.devices import FOUND
from bigunet.errors import InputError, RunError

distributed = pytest.importorskip("distributed")
HERE = {"bigunet": importlib.metadata.version("bigunet")}


class Weights:
    """A large value that says when it is brought into a process."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.values = folder, np.arange(size)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        (self.folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()


def weigh(weights: Weights, number: int) -> tuple[int, int]:
    return os.getpid(), int(weights.values[number])


def weigh_or_die(weights: Weights, number: int, mark: Path) -> tuple[int, int]:
    if number == 20 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return weigh(weights, number)


def kept(dask_worker: Any) -> tuple[int, int, int]:
    ours = [name for name in dask_worker.plugins if name.startswith("bigunet")]
    return len(shared._kept), len(shared._keepers), len(ours)


def of_scheduler(dask_scheduler: Any) -> int:
    return sum(name.startswith("bigunet") for name in dask_scheduler.worker_plugins)


def run(executor: Executor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
    """Run a function for 40 numbers, and return the results in their order."""
    found: list[Any] = []
    tasks = (task(function, args[0], n, *args[1:], where=f"number {n}") for n in range(40))
    executor.run(tasks, found.append, **kwargs)
    assert len(found) == 40
    return found


def test_a_value_is_brought_once_to_each_process_and_taken_back(
    pair: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with distributed.Client(pair, set_as_default=False) as client:
        with open_executor(client) as executor:
            weights = Weights(tmp_path, 4_000_000)
            token = executor.share(weights)
            assert executor.share(weights) == token
            found = run(executor, weigh, token)
            assert sorted(value for _, value in found) == list(range(40))
            arrived = Counter(file.name.split("-")[0] for file in tmp_path.iterdir())
            assert arrived == Counter({str(pid): 1 for pid, _ in found})
            assert set(client.run(kept).values()) == {(1, 1, 1)}
        assert set(client.run(kept).values()) == {(0, 0, 0)}
        assert client.run_on_scheduler(of_scheduler) == 0
    assert not recwarn.list


def test_a_value_survives_killed_workers(pair: Any, tmp_path: Path) -> None:
    with open_executor(pair.scheduler_address) as executor:
        folder = tmp_path / "arrivals"
        folder.mkdir()
        token = executor.share(Weights(folder, 100))
        found = run(executor, weigh_or_die, token, tmp_path / "mark")
        assert sorted(value for _, value in found) == list(range(40))
        assert (tmp_path / "mark").exists()


def test_workers_that_are_all_gone_are_waited_for(pair: Any) -> None:
    with open_executor(pair.scheduler_address) as executor:
        token = executor.share(1)
        with distributed.Client(pair, set_as_default=False) as client:
            for pid in client.run(os.getpid).values():
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while executor.watch.look(now=True).members and time.monotonic() < deadline:
            pass
        assert not executor.processes
        assert sorted(run(executor, int.__add__, token)) == list(range(1, 41))


def test_local_functions_travel(pair: Any) -> None:
    with open_executor(pair.scheduler_address) as executor:
        token = executor.share(lambda number: number + 1)
        found = run(executor, lambda add, number: add(number), token)
    assert sorted(found) == list(range(1, 41))


# Checks


def fail_on(names: list[str], value: int) -> None:
    if (name := str(distributed.get_worker().name)) in names:
        raise OSError(f"worker {name} cannot read {value}")


def test_a_check_names_the_workers_that_fail(pair: Any) -> None:
    with open_executor(pair.scheduler_address) as executor:
        executor.check(fail_on, [], 7)
        seven = executor.share(7)
        with pytest.raises(RunError) as one:
            executor.check(fail_on, ["1"], seven)
        with pytest.raises(RunError) as both:
            executor.check(fail_on, ["0", "1"], seven)
    address = next(iter(pair.scheduler_info["workers"])).rpartition(":")[0]
    start = "1 of 2 workers cannot take part: "
    assert str(one.value).startswith(f"{start}{address}")
    assert str(one.value).endswith(": OSError: worker 1 cannot read 7")
    assert str(both.value).count("cannot read 7") == 2


def test_a_worker_that_does_not_answer_is_named(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigunet.cluster.dask_cluster.CHECK_SECONDS", 0.5)
    refused = pytest.raises(RunError, match=r"2 of 2 .*: no answer in 0\.5 s")
    with open_executor(pair.scheduler_address) as executor, refused:
        executor.check(time.sleep, 2)


def test_other_versions_are_named(pair: Any) -> None:
    with open_executor(pair.scheduler_address) as executor:
        executor.check_versions(HERE | {"torch": importlib.metadata.version("torch")})
        with pytest.raises(InputError) as other:
            executor.check_versions({"bigunet": "99"})
        with pytest.raises(InputError, match="no-such-package none instead of 1"):
            executor.check_versions({"no-such-package": "1"})
    assert str(other.value).startswith("3 processes of the Dask cluster have other packages")
    assert f": bigunet {HERE['bigunet']} instead of 99; " in str(other.value)
    assert f"scheduler {pair.scheduler_address}: " in str(other.value)


# Devices


def has_fake_cuda() -> bool:
    return os.environ.get("FAKE_CUDA") == "1"


def at_work(_: None, number: int) -> str:
    time.sleep(0.01)
    return str(distributed.get_worker().name)


def at_work_or_die(_: None, number: int, mark: Path) -> str:
    return weigh_or_die_at(number, mark)


def weigh_or_die_at(number: int, mark: Path) -> str:
    if number == 20 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return at_work(None, number)


FAKE = {"env": {"FAKE_CUDA": "1"}}


@pytest.fixture(scope="module")
def silent(start_cluster: Any) -> Iterator[Any]:
    """Return three workers; the first has CUDA and does not say so."""
    with start_cluster({"name": "gpu", "nthreads": 2, **FAKE}, {}, {}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def saying(start_cluster: Any) -> Iterator[Any]:
    """Return three workers; the first says that it has a GPU."""
    with start_cluster({"name": "gpu", "nthreads": 2, "resources": {"GPU": 1}}, {}, {}) as cluster:
        yield cluster


@pytest.fixture(params=["silent", "saying"])
def mixed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("bigunet.cluster.dask_cluster.has_cuda", has_fake_cuda)
    cluster = request.getfixturevalue(request.param)
    cluster.wait_for_workers(3, timeout=30)
    return cluster


@pytest.fixture
def mended(saying: Any) -> Any:
    """Return a mixed cluster with all workers there, whatever a test did to them."""
    saying.wait_for_workers(3, timeout=30)
    return saying


def test_only_workers_with_the_device_predict_and_all_do_the_rest(mixed: Any) -> None:
    with open_executor(mixed.scheduler_address) as executor:
        assert executor.devices() == {"cpu", "cuda"}
        assert set(run(executor, at_work, None, device="cuda")) == {"gpu"}
        assert set(run(executor, at_work, None, device="cuda:0")) == {"gpu"}
        for device in (None, "cpu"):
            assert set(run(executor, at_work, None, device=device)) == {"gpu", "1", "2"}


# Steps of a task


def named(*before: Any) -> str:
    time.sleep(0.01)
    return str(distributed.get_worker().name)


def read(_: None, number: int) -> tuple[str, np.ndarray]:
    return named(), np.full(10_000, number)


def compute(before: tuple[str, np.ndarray], _: None, number: int) -> tuple[str, str, int]:
    by, pixels = before
    time.sleep(0.05)
    return by, named(), int(pixels.sum())


def write(before: tuple[str, str, int], _: None, number: int) -> tuple[str, ...]:
    *by, total = before
    assert total == 10_000 * number
    return (*by, named())


def tasks_known(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def test_steps_go_to_all_workers_but_those_that_need_the_device(mixed: Any) -> None:
    with open_executor(mixed.scheduler_address) as executor:
        steps = Steps(read, compute, write)
        readers, at_device, writers = map(
            set, zip(*run(executor, steps, None, device="cuda"), strict=True)
        )
        assert at_device == {"gpu"}
        assert readers | writers == {"gpu", "1", "2"}
        assert {"1", "2"} <= readers | writers and writers > {"gpu"}
        # Where every worker will do, nothing is sent from one to the other.
        assert all(len(set(by)) == 1 for by in run(executor, steps, None, device="cpu"))


def fail_to_write(before: Any, _: None, number: int) -> int:
    if number == 7:
        raise InputError("no place for 7")
    return number


def test_a_step_that_fails_is_the_failure_of_its_task(mended: Any) -> None:
    with open_executor(mended.scheduler_address) as executor:
        found = run(executor, Steps(read, compute, fail_to_write), None, device="cuda")
    failed = [one for one in found if isinstance(one, Failure)]
    assert failed == [Failure(where="number 7", cause="no place for 7")]


def read_or_die(_: None, number: int, mark: Path) -> tuple[str, np.ndarray]:
    weigh_or_die_at(number, mark)
    return read(_, number)


def compute_marked(before: Any, _: None, number: int, mark: Path) -> tuple[str, str, int]:
    return compute(before, _, number)


def write_or_die(before: Any, _: None, number: int, mark: Path) -> tuple[str, ...]:
    weigh_or_die_at(number, mark.with_suffix(".write"))
    return write(before, _, number)


def test_workers_that_are_killed_between_steps_do_no_harm(mended: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with open_executor(mended.scheduler_address) as executor:
        steps = Steps(read_or_die, compute_marked, write_or_die)
        found = run(executor, steps, None, mark, device="cuda")
    assert len(list(tmp_path.iterdir())) == 2
    assert {by for _, by, _ in found} == {"gpu"}


def test_steps_of_a_run_that_is_stopped_are_taken_back(mended: Any) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with (
        distributed.Client(mended, set_as_default=False) as client,
        open_executor(client) as executor,
    ):
        tasks = (task(Steps(read, compute, write), None, n, where="") for n in range(99))
        with pytest.raises(KeyboardInterrupt):
            executor.run(tasks, stop, device="cuda")
        deadline = time.monotonic() + 30
        while client.run_on_scheduler(tasks_known):
            assert time.monotonic() < deadline
            time.sleep(0.05)


# Slots of a device


def meet(_: None, number: int, folder: Path) -> bool:
    """Return whether another task was at work in this process at the same time."""
    mark = folder / str(number)
    mark.touch()
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            if len(list(folder.iterdir())) > 1:
                return True
            time.sleep(0.01)
        return False
    finally:
        time.sleep(0.02)
        mark.unlink()


def test_tasks_of_a_device_fill_all_slots_of_its_worker(mixed: Any, tmp_path: Path) -> None:
    with open_executor(mixed.scheduler_address) as executor:
        found = run(executor, meet, None, tmp_path, device="cuda")
    assert sum(found) > 30


def test_a_worker_that_was_killed_gets_its_tasks_again(mixed: Any, tmp_path: Path) -> None:
    """Also where it is the only one with the device, so that tasks have to wait for it."""
    with open_executor(mixed.scheduler_address) as executor:
        found = run(executor, at_work_or_die, None, tmp_path / "mark", device="cuda")
    assert set(found) == {"gpu"} and (tmp_path / "mark").exists()


def test_without_the_device_nothing_is_tried(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigunet.cluster.dask_cluster.has_cuda", has_fake_cuda)
    with open_executor(pair.scheduler_address) as executor:
        assert executor.devices() == {"cpu"}
        refused = pytest.raises(RunError, match=r"none of the 2 workers at tcp://.* has cuda: ")
        with refused:
            executor.run([task(at_work, None, 1, where="")], print, device="cuda")


def resources(dask_worker: Any) -> dict[str, float]:
    return dict(dask_worker.state.total_resources)


def test_a_device_that_went_away_is_not_used(silent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for probe, count in ((has_fake_cuda, 1), (no_cuda, 0)):
        monkeypatch.setattr("bigunet.cluster.dask_cluster.has_cuda", probe)
        with (
            distributed.Client(silent, set_as_default=False) as client,
            open_executor(client) as executor,
        ):
            assert ("cuda" in executor.devices()) == bool(count)
            found = client.run(resources).values()
            assert sum(one.get(FOUND, 0) for one in found) == count


def no_cuda() -> bool:
    return False
