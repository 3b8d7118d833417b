"""``bigunet train`` on real files: what it says, writes, and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bigunet import load_model
from bigunet.cli.main import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(3):
        mask = np.zeros((64, 64), np.uint8)
        mask[10:30, 10 + number : 40] = 255
        Image.fromarray(mask // 2 + 20).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


TINY = ("--width", 2, "--depth", 1, "--epochs", 2, "--steps", 2, "--tile", 32, "--device", "cpu")


def test_a_model_comes_out_and_segment_takes_it(data: Path, tmp_path: Path) -> None:
    done = run("train", data, "--output", tmp_path / "m.pt", *TINY)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "m.pt")
    assert "2 images to train with, 1 held back; classes" in done.stderr
    assert "epoch 2/2: loss" in done.stderr
    model = load_model(tmp_path / "m.pt")
    assert (model.width, model.depth, model.card.name) == (2, 1, "m")
    again = run("train", data, "--output", tmp_path / "m.pt", *TINY)
    assert again.exit_code == 2 and "--resume" in again.stderr
    more = [*TINY[:5], 3, *TINY[6:]]
    longer = run("train", data, "--output", tmp_path / "m.pt", *more, "--resume", "-q")
    assert longer.exit_code == 0 and longer.stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--val", "nowhere"), "nowhere"),
        (("--init", "nowhere.pt"), "nowhere.pt"),
        (("--learning-rate", -1), "learning rate is -1"),
        (("--masks", "some"), "--masks"),
        (("--width", 0), "--width"),
        (("--output", "nowhere/m.pt"), "does not exist"),
    ],
)
def test_what_cannot_work_is_one_line(
    data: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    done = run("train", data, "--output", tmp_path / "m.pt", *TINY, *options)
    assert done.exit_code == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("Error: ")
    assert not (tmp_path / "m.pt").exists()
