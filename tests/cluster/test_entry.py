"""Workers that join a run late: they take part only if they are like the others."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dask.delayed import delayed

from bigunet.cluster import Executor, Task, open_executor, shared, task
from bigunet.cluster.dask_cluster import Cluster
from bigunet.errors import RunError
from bigunet.stages import Progress, Stages

distributed = pytest.importorskip("distributed")

HERE = {"bigunet": importlib.metadata.version("bigunet")}
OTHER_VERSION = """
import importlib.metadata as metadata
true = metadata.version
metadata.version = lambda name: "0.0.1" if name == "bigunet" else true(name)
"""
BLIND = "import os; os.environ['BLIND'] = '1'"
LIKE_THE_OTHERS = "import os"


def check_sight(what: str) -> None:
    if os.environ.get("BLIND"):
        raise OSError(f"cannot see {what}")


def at_work(_: int) -> str:
    time.sleep(0.01)
    return str(distributed.get_worker().name)


def tasks_until(happened: Callable[[], object], more: int) -> Iterator[Task]:
    """Yield tasks until something happened, and then some more; every fifth is lazy."""
    deadline, number = time.monotonic() + 200, 0
    while more:
        assert time.monotonic() < deadline
        more, number = more - bool(happened()), number + 1
        given = number if number % 5 else delayed(int)(number)
        yield task(at_work, given, where=f"number {number}")


def named(executor: Executor, name: str) -> bool:
    """Tell whether the cluster has a worker of this name by now."""
    facts = executor.client.scheduler_info(n_workers=-1)["workers"]  # type: ignore[attr-defined]
    return any(one["id"] == name for one in facts.values())


@pytest.mark.parametrize(
    ("preload", "cause"),
    [
        (OTHER_VERSION, f"bigunet 0.0.1 instead of {HERE['bigunet']}"),
        (BLIND, "OSError: cannot see the slide"),
    ],
)
def test_a_late_worker_that_is_not_like_the_others_gets_no_work(
    pair: Any, join: Any, preload: str, cause: str
) -> None:
    told: list[Progress] = []
    found: list[Any] = []
    with open_executor(pair.scheduler_address) as executor:
        executor.check_versions(HERE)
        executor.check(check_sight, "the slide")
        stages = Stages(executor, told.append)
        with join(pair, "late", preload):
            tasks = tasks_until(lambda: executor.refused, 60)
            stages.run("segment", tasks, 10**6, found.append)
            assert named(executor, "late") and executor.workers == 4
    assert set(found) == {"0", "1"}
    (message,) = {step.message for step in told if step.message}
    assert message.startswith("warning: worker tcp://127.0.0.1:")
    assert message.endswith(f" joined late and gets no work: {cause}")
    assert sum(step.message is not None for step in told) == 1


def test_what_a_late_worker_hands_back_is_done_by_others(
    pair: Any, join: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it is not known yet that it was refused."""
    events: list[Any] = []
    monkeypatch.setattr(Cluster, "_on_refusal", lambda _, event: events.append(event[1]))
    found: list[Any] = []
    with open_executor(pair.scheduler_address) as executor:
        assert isinstance(executor, Cluster)
        executor.check_versions(HERE)

        def heard_of_it() -> bool:
            if events and len(found) > 40:
                executor.watch.refuse(*events[0])
            return bool(executor.refused)

        with join(pair, "late", OTHER_VERSION):
            executor.run(tasks_until(heard_of_it, 20), found.append)
    assert set(found) == {"0", "1"} and len(found) > 60


def test_a_late_worker_that_is_like_the_others_takes_part(pair: Any, join: Any) -> None:
    found: list[Any] = []
    with open_executor(pair.scheduler_address) as executor:
        executor.check_versions(HERE)
        executor.check(check_sight, "the slide")
        with join(pair, "late", LIKE_THE_OTHERS):
            executor.run(tasks_until(lambda: "late" in found, 1), found.append)
        assert not executor.refused


def test_refused_workers_alone_end_the_run(
    start_cluster: Any, join: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"LOOK_SECONDS": 0.2, "LOST_SECONDS": 2}.items():
        monkeypatch.setattr(f"bigunet.cluster.watch.{name}", seconds)
    with (
        start_cluster({"nthreads": 2}) as cluster,
        open_executor(cluster.scheduler_address) as executor,
    ):
        executor.check_versions(HERE)
        with join(cluster, "late", OTHER_VERSION):
            del cluster.worker_spec[0]

            def leave() -> bool:
                cluster.sync(cluster._correct_state)
                return False

            with pytest.raises(RunError, match="have been gone for 2 s"):
                executor.run(tasks_until(leave, 1), print)


# What killed clients leave behind


KILLED = """
import os, signal, sys
from bigunet.cluster import open_executor

with open_executor(sys.argv[1]) as executor:
    executor.share(b"something that is never taken back")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left(dask_worker: Any) -> tuple[int, int]:
    ours = [name for name in dask_worker.plugins if name.startswith("bigunet")]
    return len(shared._kept), len(ours)


def test_what_a_killed_client_left_is_taken_back(pair: Any) -> None:
    with distributed.Client(pair, set_as_default=False) as client, open_executor(client) as other:
        other.share(b"of a run that goes on")
        subprocess.run([sys.executable, "-c", KILLED, pair.scheduler_address], check=False)
        assert set(client.run(left).values()) == {(2, 2)}
        deadline = time.monotonic() + 30
        while set(client.run(left).values()) != {(1, 1)}:
            assert time.monotonic() < deadline
            with open_executor(pair.scheduler_address):
                pass
