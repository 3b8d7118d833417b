"""A Dask cluster on loopback whose processes can be killed: a scheduler, and workers under nannies."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.counted_blocks import FOLDER

__all__ = [
    "DEADLINE",
    "MODES",
    "ROOT",
    "THREADS",
    "WORKERS",
    "Loopback",
    "begun",
    "deadline",
    "living",
]

ROOT = Path(__file__).resolve().parents[1]
WORKERS, THREADS = 2, 2
DEADLINE = 300
"""Seconds after which anything that is waited for hangs."""
MODES = ("sys.exit", "graceful", "segfault")
"""Of distributed's own KillWorker."""


class Loopback:
    """A scheduler and workers with nannies, each of them a process that can be killed.

    Parameters
    ----------
    folder : path
        For logs, and for what workers write down.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder, self.address = folder, f"tcp://127.0.0.1:{_free_port()}"
        self._settings = {f"DASK_{name}": str(value) for name, value in settings.items()}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Loopback:
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self._end(name)

    def mend(self) -> None:
        """Start what is not running (any more)."""
        self._keep("scheduler", "dask_scheduler", "--port", self.address.rpartition(":")[2])
        for number in range(WORKERS):
            name = f"worker-{number}"
            one = ("--nworkers", 1, "--nthreads", THREADS, "--memory-limit", 0, "--name", name)
            aside = ("--local-directory", self.folder, "--preload", "benchmarks.counted_blocks")
            self._keep(name, "dask_worker", self.address, *one, *aside)

    def wait_until_ready(self) -> None:
        """Mend until all workers are known to the scheduler."""
        with deadline(f"{WORKERS} workers at {self.address}", self.logs) as check:
            while self._known() < WORKERS:
                check()
                self.mend()
                time.sleep(0.2)

    def workers(self) -> list[int]:
        """Return the processes of the workers that live."""
        return living(self.folder)

    def begun(self) -> list[int]:
        """Return the numbers of all blocks that any worker ever began."""
        return begun(self.folder)

    def signal_scheduler(self, number: signal.Signals) -> None:
        """Stop the scheduler, or let it go on."""
        self._running["scheduler"].send_signal(number)

    def kill_scheduler(self) -> int:
        """Kill the scheduler; returns how many processes that were."""
        self._end("scheduler")
        return 1

    def kill_nanny(self, rng: random.Random) -> int:
        """Kill a nanny and its worker."""
        self._end(f"worker-{rng.randrange(WORKERS)}")
        return 1

    def kill_worker(self, rng: random.Random) -> int:
        """Kill a worker under its nanny, if one is up."""
        targets = self.workers()
        if targets:
            os.kill(rng.choice(targets), signal.SIGKILL)
        return len(targets[:1])

    def let_dask_kill(self, mode: str) -> int:
        """Let distributed's KillWorker kill all workers, each after a while."""
        from distributed import Client
        from distributed.chaos import KillWorker

        self.wait_until_ready()
        dead, targets = self._dead(), self.workers()
        with suppress(OSError), Client(self.address, timeout=5, set_as_default=False) as client:
            name = f"kill-{mode}"
            client.register_plugin(KillWorker(delay="300 ms", mode=mode), name=name)
            with deadline(f"KillWorker, {mode}", self.logs) as check:
                while all(map(_lives, targets)):
                    check()
                    time.sleep(0.05)
            client.unregister_worker_plugin(name)
        # Others have it, too, and their time may not be up yet.
        time.sleep(2)
        return len(self._dead() - dead)

    def logs(self) -> str:
        """Return the end of what each process said."""
        parts = (
            f"{file.name}:\n{file.read_text(errors='replace')[-3000:]}"
            for file in sorted(self.folder.glob("*.log"))
        )
        return "\n\n".join(parts)

    def _keep(self, name: str, module: str, *options: object) -> None:
        running = self._running.get(name)
        if running is not None and running.poll() is None:
            return
        if running is not None:
            self._end(name)
        line = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, options)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*line, "--host", "127.0.0.1", "--no-dashboard"],
                cwd=ROOT,
                env=os.environ | self._settings | {FOLDER: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, name: str) -> None:
        """Kill a process and all that it started, stopped ones included."""
        process = self._running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE)

    def _dead(self) -> set[int]:
        """Return the processes of workers that live no more."""
        return set(_started(self.folder)) - set(self.workers())

    def _known(self) -> int:
        from distributed import Client

        try:
            with Client(self.address, timeout=5, set_as_default=False) as client:
                return len(client.nthreads())
        except (OSError, TimeoutError):
            return 0


@contextmanager
def deadline(what: str, logs: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Yield what raises, with the logs, once this takes too long."""
    end = time.monotonic() + DEADLINE

    def check() -> None:
        assert time.monotonic() < end, f"{what}: not in {DEADLINE} s\n{logs()}"

    yield check


def begun(folder: Path) -> list[int]:
    """Return the numbers of the blocks that any worker began, in order."""
    return [int(line.split()[0]) for line in _lines(folder / "blocks")]


def living(folder: Path) -> list[int]:
    """Return the processes of the workers that live."""
    return [pid for pid in _started(folder) if _lives(pid)]


def _started(folder: Path) -> list[int]:
    """Return the processes of all workers that ever started."""
    return [int(line.split()[-1]) for line in _lines(folder / "workers")]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
