"""``bigunet train`` on real files: what it says, writes, and refuses."""

from __future__ import annotations

from collections.abc import Callable
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
        (("--scale", 0.5), "--scale"),
        (("--output", "nowhere/m.pt"), "does not exist"),
        (("--output", "m.model"), "end with .pt"),
    ],
)
def test_what_cannot_work_is_one_line(
    data: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    done = run("train", data, "--output", tmp_path / "m.pt", *TINY, *options)
    assert done.exit_code == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("Error: ")
    assert not (tmp_path / "m.pt").exists()


def write(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def empty(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        write(path, np.zeros((64, 64), np.uint8))


def of_three_classes(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        write(path, np.repeat(np.arange(4, dtype=np.uint8), 16)[:, None].repeat(64, axis=1))


def with_varying_alpha(folder: Path) -> None:
    write(folder / "images" / "1.png", np.arange(64 * 64 * 4, dtype=np.uint8).reshape(64, 64, 4))


@pytest.mark.parametrize(
    ("spoil", "options", "facts"),
    [
        (lambda d: write(d / "masks/1.png", np.ones((60, 64), np.uint8)), (), ("1.png", "60")),
        (lambda d: [p.unlink() for p in (d / "masks").iterdir()], (), ("masks",)),
        (lambda d: [p.rename(d / "masks" / f"_{p.name}") for p in (d / "masks").iterdir()], (), ()),
        (empty, (), ("empty",)),
        (of_three_classes, ("--masks", "classes", "--classes", "ground,cell"), ("4", "2")),
        (lambda d: (d / "images/1.png").write_bytes(b"no picture"), (), ("images/1.png",)),
        (lambda d: (d / "masks/2.png").write_bytes(b""), (), ("masks/2.png",)),
        (with_varying_alpha, (), ("images/1.png", "transparency")),
    ],
)
def test_data_that_cannot_be_used_is_one_line_and_leaves_nothing(
    data: Path,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    options: tuple[str, ...],
    facts: tuple[str, ...],
) -> None:
    spoil(data)
    logs = tmp_path / "logs"
    model = tmp_path / "m.pt"
    done = run("train", data, "--output", model, *TINY, *options, "--tensorboard", logs)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and "unexpected" not in line
    assert all(fact in line for fact in facts), line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_log_for_tensorboard(data: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    done = run("train", data, "--output", tmp_path / "m.pt", *TINY, "--tensorboard", logs)
    assert done.exit_code == 0, done.output
    assert [path.name.split(".")[:3] for path in (logs / "m").iterdir()] == [
        ["events", "out", "tfevents"]
    ]


def test_a_loss_that_is_no_number_is_one_line_and_a_failure(data: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.pt"
    done = run("train", data, "--output", model, *TINY, "--learning-rate", 1e30, "-q")
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: the loss is ") and "lower learning rate" in line
    assert not model.exists()


def test_scale_reaches_the_tiles(data: Path, tmp_path: Path) -> None:
    made = {}
    for scale in (1, 3):
        output = tmp_path / f"{scale}.pt"
        assert run("train", data, "--output", output, *TINY, "--scale", scale, "-q").exit_code == 0
        made[scale] = load_model(output).head.weight.detach().numpy()
    assert not np.array_equal(made[1], made[3])
