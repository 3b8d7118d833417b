"""Faults while a run goes on: processes are killed, stores fail, the network is lost.

Nothing is ever half shown, what is on record is right and not made again, and the same
command goes on. ``benchmarks.bench_faults`` has the same rounds, longer and more of them.
"""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
import pytest
from commands import run
from slides import files, is_listed, read_label, write_slide
from strategies import random_image, random_model
from zarr.storage import LocalStore

from benchmarks import bench_faults, counted_blocks
from benchmarks.kill_rounds import IN_FLIGHT, Case
from benchmarks.loopback import THREADS, Loopback, begun, living
from bigunet import save_model
from bigunet.images.labels import unfinished_run
from bigunet.images.open import open_image

pytest.importorskip("distributed")
if not hasattr(signal, "SIGKILL"):
    pytest.skip("signals differ on Windows", allow_module_level=True)

SIDE, BLOCK = 256, 32
BLOCKS = (SIDE // BLOCK) ** 2
LABELS = {"classes": ("nuclei",), "objects,classes": ("nuclei", "nuclei-classes")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide and a model."""
    folder = tmp_path_factory.mktemp("source")
    write_slide(folder / "slide.zarr", random_image((SIDE, SIDE), np.uint8), "yx", chunk=64)
    save_model(random_model(1), folder / "model.pt", name="nuclei")
    return folder


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source / "slide.zarr", folder / "slide.zarr"))


def line_of(slide: Path, source: Path, save: str, *more: object) -> tuple[object, ...]:
    sizes = ("--tile", BLOCK, "--block", BLOCK, "--overlap", "direct", "--device", "cpu")
    return "segment", slide, "--model", source / "model.pt", "--save", save, *sizes, "--json", *more


def whole(
    line: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, threads: int
) -> dict[str, bytes]:
    """Return the files of labels after an undisturbed run in this process."""
    with monkeypatch.context() as patch:
        patch.setattr("bigunet.sites.available_cores", lambda: threads)
        done = run(*line)
    assert done.exit_code == 0, done.stderr
    return files(Path(str(line[1])) / "labels")


def on_record(slide: Path) -> list[int]:
    record = unfinished_run(open_image(slide), name="nuclei")
    return [] if record is None else list(record.done)


def assert_failed(done: Any, slide: Path, names: tuple[str, ...]) -> str:
    """Hold a run that could not finish to the law, and return its last line."""
    assert done.exit_code == 1 and not done.stdout, done.output
    assert "Traceback" not in done.stderr and "(unexpected" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == done.stderr.splitlines()[-1:]
    assert not any(is_listed(slide, name) for name in names)
    return str(errors[0])


# Processes are killed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_is_killed_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of the benchmark, which holds all laws: see there."""
    monkeypatch.setattr(bench_faults, "KILLS", ("client", "scheduler", "terminate"))
    monkeypatch.setattr(bench_faults, "SAVES", ("objects,classes",))
    found = bench_faults.bench(1, 3, 512, tmp_path)
    assert not found["broken"]
    assert found["total"]["killed"] >= 3 and found["total"]["blocks"] == 64
    assert found["total"]["ends"]["done"] + found["total"]["ends"].get("killed", 0) >= 1
    assert 0 <= found["total"]["redone"] <= found["total"]["most"]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder where workers of ``processes`` write down what they begin."""
    folder = tmp_path / "watched"
    folder.mkdir()
    preload = "from benchmarks.counted_blocks import dask_setup"
    monkeypatch.setenv(counted_blocks.FOLDER, str(folder))
    monkeypatch.setattr("bigunet.cluster.local._QUIET_TO_THE_END", preload)
    monkeypatch.setattr("bigunet.sites.available_cores", lambda: 2)
    return folder


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something in another thread."""
    thread = Thread(target=act, daemon=True)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def test_processes_that_are_killed_lose_what_they_work_on(
    source: Path, tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, slide = "objects,classes", copied(source, tmp_path)
    expected = whole(line_of(copied(source, tmp_path / "whole"), source, save), monkeypatch, 1)

    def kill() -> None:
        for number in (10, 30):
            while len(begun(watched)) < number:
                time.sleep(0.02)
            os.kill(living(watched)[0], signal.SIGKILL)

    with meanwhile(kill):
        done = run(*line_of(slide, source, save, "--scheduler", "processes", "--workers", 2))
    assert done.exit_code == 0, done.stderr
    assert files(slide / "labels") == expected
    assert 0 <= len(begun(watched)) - BLOCKS <= 2 * IN_FLIGHT


def test_a_block_that_kills_its_worker_is_set_aside(
    source: Path, tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigunet.cluster.local.ALLOWED_FAILURES", 0)
    save, slide = "objects,classes", copied(source, tmp_path)
    expected = whole(line_of(copied(source, tmp_path / "whole"), source, save), monkeypatch, 1)
    line = line_of(slide, source, save, "--scheduler", "processes", "--workers", 2)
    (watched / "deadly").write_text("19")
    said = assert_failed(run(*line), slide, LABELS[save])
    where = "block rows 64:96, columns 96:128"
    for fact in (f"1 of {BLOCKS} failed", "killed its worker", where, "the same command goes on"):
        assert fact in said
    told = run("status", slide).stdout
    assert f"{BLOCKS - 1} of {BLOCKS} blocks (98 %), 1 failed" in told
    assert f"{where}: killed its worker" in told
    assert set(range(BLOCKS)) - set(on_record(slide)) == {19}
    (watched / "deadly").unlink()
    before = len(begun(watched))
    assert run(*line).exit_code == 0
    assert begun(watched)[before:] == [19]
    assert files(slide / "labels") == expected


# The network is lost


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = Case.write(tmp_path / "whole", "classes", 512)
    expected = whole(tuple(undisturbed.line("threads")), monkeypatch, THREADS)
    case = Case.write(tmp_path, "classes", 512)
    with Loopback(tmp_path / "cluster") as cluster:
        stopped = []

        def stop() -> None:
            while len(cluster.begun()) < 20:
                time.sleep(0.02)
            # No sooner, for on a busy machine it may take its time to answer.
            monkeypatch.setattr("bigunet.cluster.watch.REPLY_SECONDS", 2)
            cluster.signal_scheduler(signal.SIGSTOP)
            stopped.append(time.monotonic())

        with meanwhile(stop):
            done = run(*case.line(cluster.address))
        monkeypatch.undo()
        assert time.monotonic() - stopped[0] < 30
        said = assert_failed(done, case.slide, ("nuclei",))
        assert said.startswith(f"Error: lost the Dask scheduler at {cluster.address}; ")
        recorded = on_record(case.slide)
        assert 0 < len(recorded) < case.blocks
        cluster.signal_scheduler(signal.SIGCONT)
        cluster.wait_until_ready()
        before = len(cluster.begun())
        again = run(*case.line(cluster.address))
        assert again.exit_code == 0, again.stderr
        assert not set(recorded).intersection(cluster.begun()[before:])
    assert case.files() == expected


# A store that fails


class Faults:
    """Lets a hundredth of what a store reads, and of what it writes, fail: each time in another way."""

    READING = ("io", "timeout", "short")
    WRITING = ("torn", "space", "io", "timeout")

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.done = Counter({ways: rng.randrange(90) for ways in (self.READING, self.WRITING)})
        self.struck, self._lock = Counter[str](), Lock()
        self._ways = {ways: cycle(ways) for ways in self.done}

    @property
    def operations(self) -> int:
        """How many there were."""
        return self.done.total()

    def strike(self, ways: tuple[str, ...]) -> str | None:
        """Count an operation; return how it fails, or None."""
        with self._lock:
            self.done[ways] += 1
            if self.done[ways] % 100:
                return None
            way = next(self._ways[ways])
            self.struck[way] += 1
            return way

    @staticmethod
    def error(kind: str) -> OSError:
        if kind == "timeout":
            return TimeoutError("the store did not answer")
        number = errno.ENOSPC if kind == "space" else errno.EIO
        return OSError(number, "the store failed")

    @contextmanager
    def happening(self) -> Iterator[None]:
        """Let Zarr's store fail, and the files of staged blocks."""
        get, put, open_file = LocalStore.get, LocalStore.set, Path.open

        async def failing_get(store: LocalStore, *args: Any, **kwargs: Any) -> Any:
            kind = self.strike(self.READING)
            if kind in ("io", "timeout"):
                raise self.error(kind)
            found = await get(store, *args, **kwargs)
            if kind == "short" and found is not None:
                return found[: len(found) // 2]
            return found

        async def failing_set(store: LocalStore, key: str, value: Any) -> None:
            kind = self.strike(self.WRITING)
            if kind == "torn":
                await put(store, key, value[: len(value) // 2])
            if kind is not None:
                raise self.error(kind)
            await put(store, key, value)

        def failing_open(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            is_staged = path.name.startswith("labels-") and ".bigunet-" in str(path)
            kind = self.strike(self.WRITING if "w" in mode else self.READING) if is_staged else None
            if kind == "short":
                return io.BytesIO(path.read_bytes()[:-20])
            if kind is not None:
                raise self.error(kind)
            return open_file(path, mode, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalStore, "get", failing_get)
            patch.setattr(LocalStore, "set", failing_set)
            patch.setattr(Path, "open", failing_open)
            yield


@pytest.mark.parametrize(
    ("save", "operations"),
    [
        ("objects,classes", 1000),
        pytest.param("objects,classes", 10_000, marks=pytest.mark.slow),
        pytest.param("classes", 10_000, marks=pytest.mark.slow),
    ],
)
def test_a_store_that_fails(
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    save: str,
    operations: int,
) -> None:
    monkeypatch.setattr("bigunet.cluster.tasks.PAUSES", (0.0, 0.0))
    undisturbed = copied(source, tmp_path_factory.mktemp("whole"))
    expected = whole(line_of(undisturbed, source, save), monkeypatch, 2)
    classes = read_label(undisturbed, LABELS[save][-1])
    monkeypatch.setattr("bigunet.sites.available_cores", lambda: 2)
    faults, ends = Faults(seed=operations), Counter[int]()
    while faults.operations < operations:
        slide = copied(source, tmp_path_factory.mktemp("one"))
        with faults.happening():
            done = run(*line_of(slide, source, save))
        ends[done.exit_code] += 1
        if done.exit_code == 2:
            # What it begins with could not be read.
            assert not (slide / "labels").exists()
            continue
        if done.exit_code:
            assert_failed(done, slide, LABELS[save])
            recorded = on_record(slide)
            for number in recorded:
                y, x = (slice(BLOCK * n, BLOCK * (n + 1)) for n in divmod(number, SIDE // BLOCK))
                found = read_label(slide, LABELS[save][-1])
                np.testing.assert_array_equal(found[y, x], classes[y, x])
            again = run(*line_of(slide, source, save))
            assert again.exit_code == 0, again.stderr
            assert json.loads(again.stdout)["blocks"]["resumed"] == len(recorded)
        assert files(slide / "labels") == expected
    assert set(faults.struck) == {*Faults.READING, *Faults.WRITING}
    assert ends[1] and set(ends) <= {0, 1, 2}
