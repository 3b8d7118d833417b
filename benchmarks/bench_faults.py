"""What is left of a run whose processes are killed, again and again.

A scheduler, two workers under nannies and ``bigunet segment`` are processes on
loopback. In each round a seeded schedule kills them in mid-run; a command that
ended without success is started again, until it succeeds. Held after every round:

- the label's files are those of an undisturbed run, byte for byte; before that no
  reader sees a label
- no block that was on record when a command started was computed again
- redone work ≤ blocks in flight, `IN_FLIGHT` for every process that was killed: all
  tasks of a client may be on the worker that dies, or have been taken home by nobody

Run ``python -m benchmarks.bench_faults --runs 20 --kills 10``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.counted_blocks import FOLDER, PAUSE
from benchmarks.measure import save_results
from bigunet.cluster.flights import AHEAD
from bigunet.ledger import Record, read_ledger

__all__ = [
    "ENDS",
    "KILLS",
    "Case",
    "Loopback",
    "Round",
    "begun",
    "files",
    "is_visible",
    "living",
    "run_round",
]

ROOT = Path(__file__).resolve().parents[1]
SIDE, BLOCK, NAME = 1024, 64, "nuclei"
WORKERS, THREADS = 2, 2
IN_FLIGHT = AHEAD * WORKERS * THREADS
SAVES = ("classes", "objects,classes")
DEADLINE = 300
"""Seconds after which anything that is waited for hangs."""
MODES = ("sys.exit", "graceful", "segfault")
"""Of distributed's own KillWorker."""
KILLS = ("worker", "nanny", "scheduler", "client", "terminate", *MODES)
ENDS = {0: "done", 1: "failed", 2: "refused", 3: "stopped", -signal.SIGKILL: "killed"}
COMMAND = "from bigunet.cli.main import main; main()"


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


@dataclass(frozen=True)
class Case:
    """A slide, and what is asked of it."""

    slide: Path
    model: Path
    save: str = SAVES[0]
    """As ``--save`` takes it."""
    side: int = SIDE

    @classmethod
    def write(cls, folder: Path, save: str, side: int = SIDE) -> Case:
        """Make a slide of round things, and a network that finds them."""
        from benchmarks.threshold_model import threshold_model
        from bigunet import save_model
        from bigunet.images.sample import write_sample

        folder.mkdir(parents=True, exist_ok=True)
        slide = write_sample(folder / "slide.zarr", side)
        model = folder / "model.pt"
        save_model(threshold_model(), model, name=NAME, intensity="percentile")
        return cls(slide, model, save, side)

    @property
    def blocks(self) -> int:
        """How many there are."""
        return (self.side // BLOCK) ** 2

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of what is written."""
        return (NAME, f"{NAME}-classes") if "," in self.save else (NAME,)

    def line(self, scheduler: str) -> list[str]:
        """Return the arguments of the command."""
        sizes = ("--tile", str(BLOCK), "--block", str(BLOCK), "--overlap", "direct")
        places = (str(self.slide), "--model", str(self.model), "--save", self.save)
        return ["segment", *places, *sizes, "--device", "cpu", "--scheduler", scheduler]

    def record(self) -> Record | None:
        """Return what is on record."""
        folder = self.slide / "labels" / f".bigunet-{NAME}"
        records = [record for mark in folder.glob("*.run") if (record := read_ledger(mark))]
        return max(records, key=lambda record: len(record.done), default=None)

    def visible(self) -> dict[str, bool]:
        """Tell of each label whether readers find it."""
        return {name: is_visible(self.slide / "labels", name) for name in self.labels}

    def files(self) -> dict[str, bytes]:
        """Return the files of all labels."""
        return files(self.slide / "labels")


@dataclass
class Round:
    """What happened."""

    save: str
    seed: int
    blocks: int
    kills: Counter[str] = field(default_factory=Counter)
    """Processes that were killed, by the kind of kill."""
    ends: Counter[str] = field(default_factory=Counter)
    """How commands ended."""
    said: list[str] = field(default_factory=list)
    """The last line of each that failed or was refused."""
    computed: int = 0
    """Blocks that a worker began."""
    seconds: float = 0.0

    @property
    def redone(self) -> int:
        """Blocks that were begun more than once, each time."""
        return self.computed - self.blocks

    def as_dict(self) -> dict[str, Any]:
        """Return the figures."""
        figures = asdict(self) | {"kills": dict(self.kills), "ends": dict(self.ends)}
        # Full of places on this machine.
        figures.pop("said")
        allowed = IN_FLIGHT * self.kills.total()
        return figures | {"seconds": round(self.seconds, 1), "redone": self.redone, "most": allowed}


def run_round(
    cluster: Loopback,
    case: Case,
    kills: Sequence[str],
    seed: int,
    expected: dict[str, bytes] | None = None,
) -> Round:
    """Run the command, again while it ends without success, and kill processes meanwhile.

    Parameters
    ----------
    kills : sequence of KILLS
        In this order, each after a certain share of the blocks has begun.
    expected : mapping, optional
        Files of all labels after an undisturbed run.

    Raises
    ------
    AssertionError
        One of the laws does not hold, or something hangs.
    """
    rng, told, began = random.Random(seed), Round(case.save, seed, case.blocks), time.monotonic()
    before = len(cluster.begun())
    waiting = _schedule(rng, kills, case.blocks)
    while not all(case.visible().values()):
        cluster.wait_until_ready()
        record, begun = case.record(), len(cluster.begun())
        code, talk = _run_once(cluster, case, waiting, rng, before, told, expected)
        code = _check_end(code, talk, cluster)
        told.ends[ENDS[code]] += 1
        if code in (1, 2):
            told.said += talk.splitlines()[-1:]
        again = set() if record is None else set(record.done).intersection(cluster.begun()[begun:])
        assert not again, f"{len(again)} blocks on record were computed again: {sorted(again)}"
    told.computed, told.seconds = len(cluster.begun()) - before, time.monotonic() - began
    assert told.ends["done"] or told.ends["killed"], told
    if not told.ends["done"]:
        # Killed after the label was there: what is left to do is to tidy up.
        code, talk = _run_once(cluster, case, [], rng, before, told, expected)
        assert code == 2, talk
    assert expected is None or case.files() == expected, "other files than those undisturbed"
    assert told.redone <= IN_FLIGHT * told.kills.total(), told
    return told


def _run_once(
    cluster: Loopback,
    case: Case,
    waiting: list[tuple[int, float, str]],
    rng: random.Random,
    before: int,
    told: Round,
    expected: dict[str, bytes] | None,
) -> tuple[int, str]:
    """Run the command once, kill what is due, and return its exit code and what it said."""
    client = started(case.line(cluster.address), cluster.folder)
    try:
        with deadline("bigunet segment", cluster.logs) as check:
            marks = _marks(case)
            while client.poll() is None:
                check()
                _assert_hidden_or_whole(case, expected)
                begun = len(cluster.begun()) - before
                # SIGTERM in the imports ends any program; it is meant for one at work.
                at_work = _marks(case) - marks
                if waiting and begun >= waiting[0][0] and (at_work or waiting[0][2] != "terminate"):
                    _, pause, kind = waiting.pop(0)
                    time.sleep(pause)
                    told.kills[kind] += _kill(kind, cluster, client, rng)
                cluster.mend()
                time.sleep(0.05)
    finally:
        client.kill()
    _assert_hidden_or_whole(case, expected)
    return client.wait(), (cluster.folder / "client.log").read_text()


def _kill(kind: str, cluster: Loopback, client: subprocess.Popen[bytes], rng: random.Random) -> int:
    """Kill something; return how many processes were killed."""
    if kind in MODES:
        return cluster.let_dask_kill(kind)
    if kind == "worker":
        return cluster.kill_worker(rng)
    if kind == "nanny":
        return cluster.kill_nanny(rng)
    if kind == "scheduler":
        return cluster.kill_scheduler()
    if client.poll() is not None:
        return 0
    client.send_signal(signal.SIGKILL if kind == "client" else signal.SIGTERM)
    client.wait(DEADLINE)
    return 1


def _schedule(
    rng: random.Random, kills: Sequence[str], blocks: int
) -> list[tuple[int, float, str]]:
    """Return after how many blocks, and how many seconds more, each kill is due."""
    after = sorted(rng.sample(range(1, blocks - IN_FLIGHT), len(kills)))
    return [(n, rng.uniform(0, 0.3), kind) for n, kind in zip(after, kills, strict=True)]


def _check_end(code: int, talk: str, cluster: Loopback) -> int:
    """Hold the end of a command to the law, a known code and one line that says why; return it."""
    said = f"exit code {code}:\n{talk}\n\n{cluster.logs()}"
    lines = talk.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    if code in (-signal.SIGTERM, -signal.SIGKILL) and errors:
        # It came when all was said, and the program on its way out.
        code = 1
    assert code in ENDS, said
    assert "Traceback" not in talk and "(unexpected;" not in talk, said
    assert errors == (lines[-1:] if code in (1, 2) else []), said
    return code


def _assert_hidden_or_whole(case: Case, expected: dict[str, bytes] | None) -> None:
    """Readers see either nothing, or a label that is whole."""
    if expected is None:
        return
    for name, visible in case.visible().items():
        if visible:
            mine = {path: data for path, data in expected.items() if path.startswith(f"{name}/")}
            found = files(case.slide / "labels" / name)
            assert {f"{name}/{path}": data for path, data in found.items()} == mine


def started(line: Sequence[str], logs: Path, command: str = COMMAND) -> subprocess.Popen[bytes]:
    """Start the command; what it says goes to ``client.log``."""
    with (logs / "client.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", command, *line],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def begun(folder: Path) -> list[int]:
    """Return the numbers of the blocks that any worker began, in order."""
    return [int(line.split()[0]) for line in _lines(folder / "blocks")]


def living(folder: Path) -> list[int]:
    """Return the processes of the workers that live."""
    return [pid for pid in _started(folder) if _lives(pid)]


def is_visible(labels: Path, name: str) -> bool:
    """Tell whether readers find a label: it is listed, and is an image."""
    listed = _ome(labels).get("labels", ())
    return name in listed and "multiscales" in _ome(labels / name)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@contextmanager
def deadline(what: str, logs: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Yield what raises, with the logs, once this takes too long."""
    end = time.monotonic() + DEADLINE

    def check() -> None:
        assert time.monotonic() < end, f"{what}: not in {DEADLINE} s\n{logs()}"

    yield check


def bench(runs: int, kills: int, side: int, folder: Path) -> dict[str, Any]:
    """Return the figures of all rounds; each kind of label is made undisturbed first."""
    undisturbed = {save: _undisturbed(folder / f"undisturbed-{save}", save, side) for save in SAVES}
    rounds, broken = list[dict[str, Any]](), list[int]()
    for seed in range(runs):
        save = SAVES[seed % len(SAVES)]
        case = Case.write(folder / f"case-{seed}", save, side)
        kinds = random.Random(seed).sample(KILLS * (1 + kills // len(KILLS)), kills)
        try:
            with Loopback(folder / f"round-{seed}") as cluster:
                told = run_round(cluster, case, kinds, seed, undisturbed[save][0])
        except AssertionError as error:
            print(f"round {seed}: {error}", flush=True)
            broken.append(seed)
            continue
        rounds.append(told.as_dict())
        print(json.dumps(rounds[-1]), *told.said, sep="\n  ", flush=True)
    return {
        "side": side,
        "block": BLOCK,
        "pause": PAUSE,
        "in_flight": IN_FLIGHT,
        "total": _total(rounds),
        "broken": broken,
        "undisturbed": {save: told for save, (_, told) in undisturbed.items()},
        "rounds": rounds,
    }


def _undisturbed(folder: Path, save: str, side: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files and the figures of a round in which nothing is killed."""
    case = Case.write(folder, save, side)
    with Loopback(folder / "cluster") as cluster:
        told = run_round(cluster, case, (), 0)
    print("undisturbed", json.dumps(told.as_dict()), *told.said, sep="\n  ", flush=True)
    return case.files(), told.as_dict()


def _total(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up what all rounds have."""
    counts = {
        name: sum((Counter(one[name]) for one in rounds), Counter()) for name in ("kills", "ends")
    }
    sums = {n: sum(one[n] for one in rounds) for n in ("blocks", "computed", "redone", "most")}
    return {"killed": counts["kills"].total(), **{n: dict(c) for n, c in counts.items()}, **sums}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10, help="in each run")
    parser.add_argument("--side", type=int, default=SIDE, help="of the slide, in pixels")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    # So that clusters end with this process, whoever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        found = bench(given.runs, given.kills, given.side, Path(folder))
    print(json.dumps(found["total"]))
    if given.save:
        print(save_results(given.save, found))
    if found["broken"]:
        sys.exit(f"the laws did not hold in rounds {found['broken']}")


def _started(folder: Path) -> list[int]:
    """Return the processes of all workers that ever started."""
    return [int(line.split()[-1]) for line in _lines(folder / "workers")]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _marks(case: Case) -> set[Path]:
    return set((case.slide / "labels" / f".bigunet-{NAME}").glob("*.run"))


def _ome(group: Path) -> dict[str, Any]:
    """Return what a group says of itself, as any reader sees it."""
    try:
        found: dict[str, Any] = json.loads((group / "zarr.json").read_text())["attributes"]["ome"]
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return {}
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
