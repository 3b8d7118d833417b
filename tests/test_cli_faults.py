"""What is found, or happens, only while a run goes on: nothing half is ever shown."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import run
from slides import files, is_listed, read_label, write_slide
from strategies import random_image, random_model

from bigunet import save_model
from bigunet.models.unet import UNet
from bigunet.staging import Staging

resource = pytest.importorskip("resource", reason="signals and limits differ on Windows")

SIDE = 512
# Many small blocks, so that a run can be met at many moments.
OPTIONS = ("--tile", "64", "--block", "64", "--device", "cpu", "--runtime", "eager")
BLOCKS = (SIDE // 64) ** 2


def chunks_in(folder: Path) -> int:
    return sum(1 for _ in (folder / "0").glob("c/*/*"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide and two models."""
    folder = tmp_path_factory.mktemp("source")
    pixels = random_image((SIDE, SIDE), np.uint8)
    write_slide(folder / "slide.zarr", pixels, "yx", chunk=128, levels=3)
    for seed, name in enumerate(("old", "new")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = UNet(1, 2, width=12, depth=2)
        save_model(network, folder / f"{name}.pt", name="nuclei")
    return folder


@pytest.fixture
def slide(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source / "slide.zarr", tmp_path / "slide.zarr"))


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the files that each model's label has after a run that nothing disturbed."""
    results = {}
    for name in ("old", "new"):
        path = tmp_path_factory.mktemp(name) / "slide.zarr"
        shutil.copytree(source / "slide.zarr", path)
        began = time.monotonic()
        done = run("segment", path, "--model", source / f"{name}.pt", *OPTIONS)
        assert done.exit_code == 0, done.stderr
        # Of noise both classes are in every chunk, so that all are written.
        assert chunks_in(path / "labels" / "nuclei") == BLOCKS
        results[name] = files(path / "labels")
        results["pixels"] = read_label(path, "nuclei")
        results["seconds"] = time.monotonic() - began
    return results


def line_of(slide: Path, model: Path, *options: str) -> list[str]:
    return ["segment", str(slide), "--model", str(model), *OPTIONS, *options]


def started(line: list[str]) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a terminal does."""
    command = [sys.executable, "-c", "from bigunet.cli.main import main; main()", *line]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)


def assert_failed(done: Any, slide: Path) -> str:
    """Hold a run that could not finish to the law, and return its last line."""
    assert done.exit_code == 1 and not done.stdout
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == done.stderr.splitlines()[-1:]
    assert not is_listed(slide, "nuclei")
    return errors[0]


# Chunks


@pytest.mark.parametrize("damage", [b"", b"no chunk at all", None])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("overlap", ["direct", "map_overlap"])
def test_a_broken_chunk(
    tmp_path: Path, source: Path, overlap: str, version: str, damage: bytes | None
) -> None:
    path = tmp_path / "slide.zarr"
    slide = write_slide(path, random_image((256, 256), np.uint8), "yx", version=version)
    chunk = slide / "s0" / ("c/1/0" if version == "0.5" else "1.0")
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-20] if damage is None else damage)
    line = line_of(slide, source / "new.pt", "--overlap", overlap)
    said = assert_failed(run(*line), slide)
    # The first block whose halo meets the chunk.
    for fact in ("block rows 0:64, columns 0:64", str(slide / "s0"), "(1, 0)", "not listed"):
        assert fact in said
    chunk.write_bytes(whole)
    assert run(*line).exit_code == 0
    assert is_listed(slide, "nuclei")


def test_a_broken_chunk_that_the_intensities_meet(slide: Path, tmp_path: Path) -> None:
    chunk = slide / "s0" / "c" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:50])
    model = tmp_path / "model.pt"
    save_model(random_model(2), model, name="nuclei", intensity="percentile")
    before = files(slide)
    said = assert_failed(run(*line_of(slide, model)), slide)
    assert "(1, 1)" in said and str(slide / "s0") in said
    assert files(slide) == before


# Room


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill_up(disk: Path, spare: int) -> Path:
    """Leave so many bytes, in whole pages, on a disk."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    with ballast.open("wb") as stream:
        stream.write(bytes(max(0, free - spare)))
    return ballast


@pytest.mark.parametrize("pages", [0, 1, 4, 60, 78])
def test_a_full_disk(disk: Path, source: Path, undisturbed: dict[str, Any], pages: int) -> None:
    slide = disk / "slide.zarr"
    shutil.copytree(source / "slide.zarr", slide)
    ballast = fill_up(disk, 4096 * pages)
    line = line_of(slide, source / "new.pt")
    said = assert_failed(run(*line), slide)
    assert os.strerror(errno.ENOSPC) in said
    ballast.unlink()
    done = run(*line)
    assert done.exit_code == 0, done.stderr
    assert files(slide / "labels") == undisturbed["new"]


def test_a_file_that_may_not_grow(source: Path, slide: Path, undisturbed: dict[str, Any]) -> None:
    """Stands in for a full disk where none can be mounted."""
    line = ["segment", str(slide), "--model", str(source / "new.pt"), "--tile", "512"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        done = run(*line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = assert_failed(done, slide)
    assert os.strerror(errno.EFBIG) in said and "block rows 0:512" in said
    assert run(*line_of(slide, source / "new.pt")).exit_code == 0
    assert files(slide / "labels") == undisturbed["new"]


# Signals


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_ctrl_c(source: Path, slide: Path, undisturbed: dict[str, Any], scheduler: str) -> None:
    line = line_of(slide, source / "new.pt", "--scheduler", scheduler)
    process = started(line)
    wait_for(lambda: chunks_in(slide / "labels" / "nuclei") > 5, process)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, talk = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 130 and not out, talk
    assert talk.splitlines()[-1].startswith("Stopped. ") and "same command again" in talk
    assert "Traceback" not in talk
    assert not is_listed(slide, "nuclei")
    again = run(*line_of(slide, source / "new.pt"))
    assert again.exit_code == 0, again.stderr
    assert "going on with an unfinished run" in again.stderr
    # Of processes the record has other threads; noise of two classes has no ties that they move.
    np.testing.assert_array_equal(read_label(slide, "nuclei"), undisturbed["pixels"])


@pytest.mark.parametrize("seed", range(5))
def test_killed(source: Path, slide: Path, undisturbed: dict[str, Any], seed: int) -> None:
    line = line_of(slide, source / "new.pt")
    process = started(line)
    wait_for((slide / "labels" / ".bigunet-nuclei").exists, process)
    time.sleep(random.Random(seed).random() * undisturbed["seconds"])
    process.kill()
    process.communicate()
    complete = is_listed(slide, "nuclei")
    again = run(*line)
    assert again.exit_code == (2 if complete else 0), again.stderr
    assert files(slide / "labels") == undisturbed["new"]


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_the_old_label_stays_until_the_new_one_is_there(
    source: Path, slide: Path, undisturbed: dict[str, Any], share: float
) -> None:
    assert run(*line_of(slide, source / "old.pt")).exit_code == 0
    before, old = files(slide / "labels"), read_label(slide, "nuclei")
    assert before == undisturbed["old"]
    line = line_of(slide, source / "new.pt", "--overwrite")
    process = started(line)

    def far_enough() -> bool:
        assert is_listed(slide, "nuclei")
        done = chunks_in(slide / "labels" / ".bigunet-nuclei" / "new")
        return done > share * BLOCKS

    wait_for(far_enough, process)
    process.send_signal(signal.SIGSTOP)
    np.testing.assert_array_equal(read_label(slide, "nuclei"), old)
    process.kill()
    process.communicate()
    after = files(slide / "labels")
    assert {name: after[name] for name in before} == before
    assert run(*line).exit_code == 0
    assert files(slide / "labels") == undisturbed["new"]


# Objects: blocks are staged, merged, and written once more


OBJECTS = ("--save", "objects,classes", "--fill-holes")


@pytest.fixture(scope="module")
def undisturbed_objects(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the files of both labels after a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("objects") / "slide.zarr"
    shutil.copytree(source / "slide.zarr", path)
    began = time.monotonic()
    done = run(*line_of(path, source / "new.pt", *OBJECTS))
    assert done.exit_code == 0, done.stderr
    return {"files": files(path / "labels"), "seconds": time.monotonic() - began}


def listed_of_run(slide: Path) -> list[bool]:
    return [is_listed(slide, name) for name in ("nuclei", "nuclei-classes")]


def test_ctrl_c_while_ids_are_written(
    source: Path, slide: Path, undisturbed_objects: dict[str, Any]
) -> None:
    line = line_of(slide, source / "new.pt", *OBJECTS)
    process = started(line)
    wait_for(lambda: chunks_in(slide / "labels" / "nuclei") > 0, process)
    os.killpg(process.pid, signal.SIGINT)
    out, talk = process.communicate(timeout=60)
    assert process.returncode == 130 and not out, talk
    assert "Traceback" not in talk
    assert listed_of_run(slide) == [False, False]
    assert run(*line).exit_code == 0
    assert files(slide / "labels") == undisturbed_objects["files"]


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_objects_are_made(
    source: Path, slide: Path, undisturbed_objects: dict[str, Any], seed: int
) -> None:
    line = line_of(slide, source / "new.pt", *OBJECTS)
    process = started(line)
    wait_for((slide / "labels" / ".bigunet-nuclei").exists, process)
    time.sleep(random.Random(seed).random() * undisturbed_objects["seconds"])
    process.kill()
    process.communicate()
    complete = listed_of_run(slide)
    assert complete in ([False, False], [True, True])
    again = run(*line)
    assert again.exit_code == (2 if all(complete) else 0), again.stderr
    assert files(slide / "labels") == undisturbed_objects["files"]


def test_staged_blocks_that_vanish_are_named(
    source: Path, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ids = Staging.write_ids

    def damaging(staging: Staging, *args: Any) -> None:
        write_ids(staging, *args)
        (slide / "labels" / ".bigunet-nuclei" / "labels-0-1-2.npz").write_bytes(b"half of it")

    monkeypatch.setattr(Staging, "write_ids", damaging)
    said = assert_failed(run(*line_of(slide, source / "new.pt", *OBJECTS)), slide)
    for fact in ("9 of 64", "labels-0-1-2.npz", "rows 0:64", "not listed", "same command"):
        assert fact in said
    monkeypatch.undo()
    assert run(*line_of(slide, source / "new.pt", *OBJECTS)).exit_code == 0
    assert listed_of_run(slide) == [True, True]
