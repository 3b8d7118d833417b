"""A round: ``bigunet segment`` on a cluster, killed and started again until it succeeds.

In mid-run a seeded schedule kills processes of the cluster, and the command. Held while
commands run and after the round:

- the label's files are those of an undisturbed run, byte for byte; before that no
  reader sees a label
- no block that was on record when a command started was computed again
- redone work ≤ blocks in flight, `IN_FLIGHT` for every process that was killed: all
  tasks of a client may be on the worker that dies, or have been taken home by nobody
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.loopback import DEADLINE, MODES, ROOT, THREADS, WORKERS, Loopback, deadline
from bigunet.cluster.flights import AHEAD
from bigunet.ledger import Record, read_ledger

__all__ = ["BLOCK", "IN_FLIGHT", "KILLS", "SAVES", "SIDE", "Case", "Round", "run_round"]

SIDE, BLOCK, NAME = 1024, 64, "nuclei"
IN_FLIGHT = AHEAD * WORKERS * THREADS
SAVES = ("classes", "objects,classes")
KILLS = ("worker", "nanny", "scheduler", "client", "terminate", *MODES)
ENDS = {0: "done", 1: "failed", 2: "refused", 3: "stopped", -signal.SIGKILL: "killed"}
COMMAND = "from bigunet.cli.main import main; main()"


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


def is_visible(labels: Path, name: str) -> bool:
    """Tell whether readers find a label: it is listed, and is an image."""
    listed = _ome(labels).get("labels", ())
    return name in listed and "multiscales" in _ome(labels / name)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _marks(case: Case) -> set[Path]:
    return set((case.slide / "labels" / f".bigunet-{NAME}").glob("*.run"))


def _ome(group: Path) -> dict[str, Any]:
    """Return what a group says of itself, as any reader sees it."""
    try:
        found: dict[str, Any] = json.loads((group / "zarr.json").read_text())["attributes"]["ome"]
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return {}
    return found
