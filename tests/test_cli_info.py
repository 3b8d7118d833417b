"""``bigunet info``, ``bigunet sample`` and ``bigunet preview`` on small real stores."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import bigunet
from bigunet.cli.main import main


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "slide.zarr"
    done = run("sample", str(path), "--size", "600", "--seed", "1", "--workers", "1", "-q")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{path}\n"
    assert done.stderr == ""
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_sample_is_the_same_again(slide: Path, tmp_path: Path) -> None:
    again = tmp_path / "again" / slide.name
    again.parent.mkdir()
    done = run("sample", str(again), "--size", "600", "--seed", "1", "--workers", "2")
    assert done.exit_code == 0
    assert "sample: 100 %" in done.stderr
    assert files(again) == files(slide)


def test_sample_refuses_what_is_there(slide: Path) -> None:
    done = run("sample", str(slide), "--size", "600")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert not done.stdout


def test_info_of_an_image(slide: Path) -> None:
    done = run("info", str(slide))
    assert done.exit_code == 0
    for fact in (str(slide), "OME-Zarr 0.5", "1 x 600 x 600", "uint16", "0.5 µm", "truth  uint32"):
        assert fact in done.stdout


def test_info_of_an_image_as_json(slide: Path) -> None:
    facts = json.loads(run("info", str(slide), "--json").stdout)
    assert facts["kind"] == "image"
    assert [level["shape"] for level in facts["levels"]] == [[1, 600, 600], [1, 300, 300]]
    assert [level["pixel_size_um"] for level in facts["levels"]] == pytest.approx([0.5, 1.0])
    assert [label["name"] for label in facts["labels"]] == ["truth"]


def test_info_says_which_label_cannot_be_opened(slide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.zarr"
    shutil.copytree(slide, broken)
    shutil.rmtree(broken / "labels/truth/0")
    done = run("info", str(broken))
    assert done.exit_code == 0
    assert "truth: " in done.stdout
    facts = json.loads(run("info", str(broken), "--json").stdout)
    assert facts["labels"][0]["error"]


def test_info_tells_how_bigunet_made_a_label(slide: Path, tmp_path: Path) -> None:
    marked = tmp_path / "marked.zarr"
    shutil.copytree(slide, marked)
    file = marked / "labels/truth/zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["bigunet"] = {"version": "0.1.0", "model": "tiny"}
    file.write_text(json.dumps(content))
    done = run("info", str(marked))
    assert "made by bigunet:" in done.stdout
    assert "model    tiny" in done.stdout


@pytest.mark.parametrize("name", ["missing.zarr", "missing.pt", "folder", "file.tif", "file.pt"])
@pytest.mark.parametrize("command", ["info", "preview"])
def test_what_is_no_image_is_one_line(tmp_path: Path, name: str, command: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name.startswith("file"):
        path.write_bytes(b"not what it says")
    more = [] if command == "info" else [str(tmp_path / "out.png"), "--labels", "truth"]
    done = run(command, str(path), *more)
    assert done.exit_code == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert not done.stdout
    assert not (tmp_path / "out.png").exists()


def test_info_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    bigunet.save_model(bigunet.UNet(in_channels=1, classes=2, width=2, depth=1), path)
    done = run("info", str(path))
    assert done.exit_code == 0, done.stderr
    assert "in_channels 1, classes 2, width 2, depth 1" in done.stdout
    facts = json.loads(run("info", str(path), "--json").stdout)
    assert facts["kind"] == "model"
    assert facts["architecture"]["width"] == 2
    assert facts["margin"] == 8
    assert facts["card"]["class_names"] == ["background", "foreground"]


def test_info_of_a_model_that_ships_is_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigunet.models import checkpoint

    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    bigunet.save_model(
        bigunet.UNet(in_channels=1, classes=2, width=2, depth=1),
        tmp_path / "nuclei.pt",
        instances=True,
        diameters=(8.123, 40),
        about={"data": "images of nuclei", "licence": "CC0", "note": "experimental"},
        scores={"fluorescence": "AP@0.5 0.88", "grey": 0.5},
    )
    done = run("info", "nuclei")
    assert done.exit_code == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        *(str(tmp_path / "nuclei.pt"), "instances yes", "diameters 8.1 to 40.0 pixels"),
        *("data images of nuclei", "licence CC0", "note experimental"),
        *("fluorescence AP@0.5 0.88", "grey 0.5"),
    ):
        assert line in lines
    card = json.loads(run("info", "nuclei", "--json").stdout)["card"]
    assert card["scores"] == {"fluorescence": "AP@0.5 0.88", "grey": 0.5}
    assert (card["about"]["licence"], card["diameters"]) == ("CC0", [8.123, 40.0])


def test_preview_draws_a_picture(slide: Path, tmp_path: Path) -> None:
    from PIL import Image

    out = tmp_path / "overlay.png"
    done = run("preview", str(slide), "--labels", "truth", str(out), "--region", "0:300,0:300")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{out}\n"
    with Image.open(out) as picture:
        assert min(picture.size) >= 200


def test_preview_names_the_labels_there_are(slide: Path, tmp_path: Path) -> None:
    done = run("preview", str(slide), "--labels", "cells", str(tmp_path / "overlay.png"))
    assert done.exit_code == 2
    assert "truth" in done.stderr


class Verified:
    """A stand-in for Verification."""

    def __init__(self, *, ok: bool) -> None:
        self.ok = ok

    def lines(self) -> list[str]:
        return [f"ok {self.ok}"]

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok}


@pytest.mark.parametrize("ok", [True, False])
def test_verify_exits_with_1_where_pixels_differ(monkeypatch: pytest.MonkeyPatch, ok: bool) -> None:
    calls = []

    def verify_image(*arguments: Any, **options: Any) -> Verified:
        calls.append((arguments, options))
        return Verified(ok=ok)

    module = ModuleType("bigunet.verification")
    module.verify_image = verify_image
    monkeypatch.setitem(sys.modules, "bigunet.verification", module)
    done = run("verify", "a.zarr", "--labels", "n", "--model", "m.pt", "--windows", "3", "--json")
    assert done.exit_code == (0 if ok else 1)
    assert json.loads(done.stdout) == {"ok": ok}
    assert not done.stderr
    options = {"windows": 3, "seed": 0, "device": "auto", "precision": "auto"}
    assert callable(calls[0][1].pop("progress"))
    assert calls == [(("a.zarr", "n", "m.pt"), options)]
