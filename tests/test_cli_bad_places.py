"""Places that cannot be written to, or hold what may not be replaced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from commands import edit, refused, run, tree
from slides import write_slide
from strategies import random_image, random_model

from bigunet import save_model


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = random_image((2, 96, 80), np.uint8)
    return write_slide(tmp_path / "slide.zarr", pixels, "cyx", chunk=32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(random_model(1, channels=2), tmp_path / "unet.pt")
    return tmp_path / "unet.pt"


def test_a_complete_label_and_a_label_of_others(tmp_path: Path, slide: Path, model: Path) -> None:
    line = ("segment", slide, "--model", model)
    assert run(*line).exit_code == 0
    assert "--overwrite" in refused(tmp_path, *line)
    others = slide / "labels" / "others"
    shutil.copytree(slide / "labels" / "unet", others)
    edit(others / "zarr.json", lambda content: content["attributes"].pop("bigunet"))
    edit(
        slide / "labels" / "zarr.json",
        lambda content: content["attributes"]["ome"]["labels"].append("others"),
    )
    for more in ([], ["--overwrite"]):
        said = refused(tmp_path, *line, "--name", "others", *more)
        assert "not written by bigunet" in said and "--name" in said


def test_outputs_that_would_hurt(tmp_path: Path, slide: Path, model: Path) -> None:
    (tmp_path / "file.zarr").write_text("precious")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "precious").touch()
    (tmp_path / "other.zarr").symlink_to(slide, target_is_directory=True)
    line = ("segment", slide, "--model", model, "--overwrite", "--output")
    places = slide, slide / "inner", tmp_path, "other.zarr", "file.zarr", "file.zarr/x"
    for place in (*places, "folder.zarr"):
        said = refused(tmp_path, *line, tmp_path / place)
        assert "--output" in said


# Rights

# What is locked, whether it can still be read, --output, and what the line says.
LOCKED: dict[str, tuple[str, bool, str | None, str]] = {
    "image": ("slide.zarr", True, None, "--output NEW.zarr"),
    "labels": ("slide.zarr/labels", True, None, "--output NEW.zarr"),
    "output": ("results", True, "results/new.zarr", "another --output"),
    "level": ("slide.zarr/s0", False, None, "s0"),
    "metadata": ("slide.zarr/zarr.json", False, None, "zarr.json"),
    "all": ("slide.zarr", False, None, "slide.zarr"),
    "model": ("unet.pt", False, None, "unet.pt"),
    "staging": ("slide.zarr/labels/.bigunet-unet", True, None, "--output NEW.zarr"),
}
# Runs the command once, so that all it needs is imported, and then as a user without rights.
AS_NOBODY = """
    import json, os, sys
    from click.testing import CliRunner
    from bigunet.cli.main import main

    first, *lines = json.loads(sys.argv[1])
    assert CliRunner().invoke(main, first).exit_code == 0
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    done = (CliRunner().invoke(main, line) for line in lines)
    print(json.dumps([(one.exit_code, one.stdout, one.stderr) for one in done]))
"""


def make_case(folder: Path, locked: str, readable: bool) -> None:
    slide = folder / "slide.zarr"
    write_slide(slide, random_image((2, 96, 80), np.uint8), "cyx", chunk=32)
    if "labels" in locked:
        zarr.create_group(slide / "labels")
        (slide / "labels" / ".bigunet-unet").mkdir()
    (folder / "results").mkdir()
    save_model(random_model(1, channels=2), folder / "unet.pt")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (folder / locked).chmod(0o555 if readable else 0)


@pytest.fixture(scope="module")
def done_by_nobody() -> Iterator[dict[str, tuple[int, str, str, bool]]]:
    """Return exit code, stdout, stderr and whether nothing changed, for each case."""
    # Not pytest's folder, which other users cannot look into.
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o755)
        make_case(root / "free", "results", True)
        lines = [line_of(root / "free", None)]
        lines[0].append("--dry-run")
        for name, (locked, readable, output, _) in LOCKED.items():
            make_case(root / name, locked, readable)
            lines.append(line_of(root / name, output))
        before = {name: tree(root / name) for name in LOCKED}
        command = [sys.executable, "-c", textwrap.dedent(AS_NOBODY), json.dumps(lines)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results = zip(LOCKED, json.loads(done.stdout), strict=True)
        yield {name: (*result, tree(root / name) == before[name]) for name, result in results}


def line_of(folder: Path, output: str | None) -> list[str]:
    line = ["segment", str(folder / "slide.zarr"), "--model", str(folder / "unet.pt")]
    return [*line, "--output", str(folder / output)] if output else line


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
@pytest.mark.parametrize("case", LOCKED)
def test_without_rights(done_by_nobody: dict[str, Any], case: str) -> None:
    code, out, talk, same = done_by_nobody[case]
    assert (code, out) == (2, ""), talk
    (line,) = talk.splitlines()
    assert line.startswith("Error: ") and LOCKED[case][3] in line
    assert "unexpected" not in line
    assert same
