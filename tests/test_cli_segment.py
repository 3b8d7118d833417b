"""The whole route from the command line, on small slides with a tiny network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner

import bigunet
from bigunet.cli.main import main


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "slide.zarr"
    assert run("sample", path, "--size", "600", "-q").exit_code == 0
    return path


@pytest.fixture
def slide(sample: Path, tmp_path: Path) -> Path:
    """Return a slide of one's own."""
    return Path(shutil.copytree(sample, tmp_path / "slide.zarr"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.pt"
    torch.manual_seed(0)
    network = bigunet.UNet(in_channels=1, classes=2, width=2, depth=2)
    bigunet.save_model(network, path, name="tiny", intensity="percentile")
    return path


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def classes(slide: Path, name: str = "tiny") -> Any:
    return np.asarray(zarr.open_array(slide / "labels" / name / "0", mode="r")[:])


def listed(slide: Path) -> list[str]:
    return [label["name"] for label in json.loads(run("info", slide, "--json").stdout)["labels"]]


def test_route(slide: Path, model: Path, tmp_path: Path) -> None:
    done = run("segment", slide, "--model", model, "--block", "256", "--tile", "128")
    assert done.exit_code == 0, done.stderr
    assert str(slide / "labels/tiny") in done.stdout
    assert "bigunet preview" in done.stdout.splitlines()[-1]
    first = done.stderr.splitlines()[0]
    assert all(fact in first for fact in ("cpu", "level 0", "intensity"))
    assert classes(slide).shape == (600, 600)
    assert listed(slide) == ["truth", "tiny"]

    assert "made by bigunet" in run("info", slide).stdout
    verified = run("verify", slide, "--labels", "tiny", "--model", model, "--windows", "2")
    assert verified.exit_code == 0, verified.output
    picture = tmp_path / "overlay.png"
    assert run("preview", slide, "--labels", "tiny", picture).exit_code == 0
    assert picture.stat().st_size > 1000


def test_verify_finds_what_was_changed(slide: Path, model: Path) -> None:
    assert run("segment", slide, "--model", model, "--block", "256", "-q").exit_code == 0
    array = zarr.open_array(slide / "labels/tiny/0", mode="r+")
    array[:] = 1 - np.asarray(array[:])
    verified = run("verify", slide, "--labels", "tiny", "--model", model, "--windows", "2")
    assert verified.exit_code == 1
    assert not verified.stderr


def test_same_answer_from_every_way_to_run(slide: Path, model: Path) -> None:
    ways = {
        "threads": "--block 256 --workers 2",
        "sync": "--scheduler sync --block 128",
        "overlapped": "--overlap map_overlap --block 256",
        "whole": "--block 1024",
    }
    results = {}
    for name, options in ways.items():
        line = ("segment", slide, "--model", model, "--name", name, "--tile", "128")
        done = run(*line, *options.split(), "-q")
        assert done.exit_code == 0, done.stderr
        results[name] = classes(slide, name)
    for result in results.values():
        assert np.array_equal(result, results["whole"])


def test_region_is_a_window_of_the_full_run(slide: Path, model: Path) -> None:
    line = ("segment", slide, "--model", model, "--tile", "128", "--block", "256", "-q")
    assert run(*line).exit_code == 0
    done = run(*line, "--name", "part", "--region", "100:333,57:500")
    assert done.exit_code == 0, done.stderr
    window = slice(100, 333), slice(57, 500)
    assert np.array_equal(classes(slide, "part")[window], classes(slide)[window])


def test_dry_run_writes_nothing(slide: Path, model: Path) -> None:
    before = state(slide)
    done = run("segment", slide, "--model", model, "--dry-run")
    assert done.exit_code == 0, done.stderr
    for fact in ("level", "blocks", "tiles", "margin", "memory", "bytes", "time", "output"):
        assert fact in done.stdout
    as_json = run("segment", slide, "--model", model, "--dry-run", "--json")
    assert json.loads(as_json.stdout)["memory_projected"] > 0
    assert state(slide) == before


def test_json_result(slide: Path, model: Path) -> None:
    done = run("segment", slide, "--model", model, "--json", "-q")
    assert done.stderr == ""
    assert json.loads(done.stdout)["outputs"] == {"classes": str(slide / "labels/tiny")}


def test_probabilities_need_an_output(slide: Path, model: Path, tmp_path: Path) -> None:
    line = ("segment", slide, "--model", model, "--save", "classes,probabilities", "-q")
    before = state(slide)
    assert run(*line).exit_code == 2
    new = tmp_path / "new.zarr"
    done = run(*line, "--output", new, "--json")
    assert done.exit_code == 0, done.stderr
    assert set(json.loads(done.stdout)["outputs"]) == {"classes", "probabilities"}
    assert state(slide) == before
    assert "2 x 600 x 600" in run("info", new).stdout


def test_overwrite_is_asked_for(slide: Path, model: Path) -> None:
    assert run("segment", slide, "--model", model, "-q").exit_code == 0
    before = state(slide)
    refused = run("segment", slide, "--model", model, "-q")
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert state(slide) == before
    assert run("segment", slide, "--model", model, "-q", "--overwrite").exit_code == 0
    foreign = run("segment", slide, "--model", model, "--name", "truth", "--overwrite")
    assert foreign.exit_code == 2
    assert "--name" in foreign.stderr


REFUSED = {
    "--level 7": "level",
    "--channels 3": "channel",
    "--channels nucleus": "channel",
    "--channels 0,0": "channel",
    "--region 0:10,590:601": "region",
    "--memory-limit 1MB": "--memory-limit",
    "--name a/b": "name",
    "--scheduler nowhere": "scheduler",
    "--intensity 0,1 --intensity 0,2": "intensit",
    "--save classes,probabilities": "--output",
}


@pytest.mark.parametrize("options", REFUSED)
def test_refused_before_anything_is_written(slide: Path, model: Path, options: str) -> None:
    before = state(slide)
    done = run("segment", slide, "--model", model, *options.split())
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert REFUSED[options] in line.lower()
    assert not done.stdout
    assert state(slide) == before


@pytest.mark.parametrize("kind", ["missing", "truncated", "foreign", "folder"])
def test_unusable_models_are_refused(slide: Path, model: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other.pt"
    if kind == "truncated":
        path.write_bytes(model.read_bytes()[:-100])
    elif kind == "foreign":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "folder":
        path.mkdir()
    before = state(slide)
    done = run("segment", slide, "--model", path)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "other.pt" in line
    assert state(slide) == before


def test_several_images_go_on(slide: Path, model: Path, tmp_path: Path) -> None:
    done = run("segment", tmp_path / "missing.zarr", slide, "--model", model)
    assert done.exit_code == 1
    assert "1 of 2 images failed:" in done.stderr
    assert "missing.zarr" in done.stderr.splitlines()[-1]
    assert listed(slide) == ["truth", "tiny"]


def test_a_broken_chunk_is_exit_code_1_and_nothing_is_listed(slide: Path, model: Path) -> None:
    chunk = slide / "0/c/0/1/1"
    chunk.write_bytes(chunk.read_bytes()[:50])
    done = run("segment", slide, "--model", model, "--intensity", "0,4000")
    assert done.exit_code == 1, done.output
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "chunk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert listed(slide) == ["truth"]


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_ctrl_c_and_the_same_command_again(slide: Path, model: Path, tmp_path: Path) -> None:
    network = bigunet.UNet(in_channels=1, classes=2, width=12, depth=3)
    slow = tmp_path / "slow.pt"
    bigunet.save_model(network, slow, name="slow")
    code = "from bigunet.cli.main import main; main()"
    line = [sys.executable, "-c", code, "segment", str(slide), "--model", str(slow)]
    line += ["--block", "64", "--tile", "64"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run_:
        deadline = time.monotonic() + 60
        while not list(slide.glob("labels/slow/0/c/*/*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        run_.send_signal(signal.SIGINT)
        out, talk = run_.communicate(timeout=60)
    assert run_.returncode == 130, talk
    assert talk.splitlines()[-1].startswith("Stopped. ")
    assert "Traceback" not in talk
    assert not out
    assert listed(slide) == ["truth"]

    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert listed(slide) == ["truth", "slow"]
    assert not list(slide.glob("labels/.bigunet*"))
