"""A run that can be trusted: it goes on bit for bit, and loses nothing that it should not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bigunet import load_model
from bigunet.errors import RunError
from bigunet.training import run
from bigunet.training.fit import Trained, train
from bigunet.training.learner import Learner
from bigunet.training.validation import Score
from tests.training.made_cells import TINY, same, states, weights, write_cells

pytestmark = pytest.mark.usefixtures("one_thread")


class Stopped(BaseException):
    """Something that kills a run."""


def train_tiny(data: Path, model: Path, **changes: Any) -> Trained:
    options = {key: changes.pop(key) for key in ("resume",) if key in changes}
    return train(data, model, settings=replace(TINY, **changes), device="cpu", **options)


def assert_same_runs(one: Path, two: Path) -> None:
    """Hold two runs to have left the same, bit for bit."""
    assert same(weights(one), weights(two))
    first, second = states(one, two)
    assert same(first["weights"], second["weights"])
    numbers = [
        [(e["loss"], e["f1"], e["ap"], e["iou"]) for e in s["history"]] for s in (first, second)
    ]
    assert numbers[0] == numbers[1] and first["best"] == second["best"]


# Going on


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_resuming_is_bit_for_bit_as_if_nothing_had_happened(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any
) -> None:
    whole = train_tiny(cells, tmp_path / "whole.pt", recipe=recipe)
    taken = 0

    def stop_in_the_second_epoch(self: Learner, *arguments: Any) -> float:
        nonlocal taken
        taken += 1
        if taken == TINY.steps + 3:
            raise Stopped
        return original(self, *arguments)

    original = Learner.learn
    monkeypatch.setattr(Learner, "learn", stop_in_the_second_epoch)
    with pytest.raises(Stopped):
        train_tiny(cells, tmp_path / "part.pt", recipe=recipe)
    monkeypatch.undo()
    rest = train_tiny(cells, tmp_path / "part.pt", recipe=recipe, resume=True)
    assert_same_runs(tmp_path / "whole.pt", tmp_path / "part.pt")
    assert [e.loss for e in rest.epochs] == [e.loss for e in whole.epochs]


def test_stopped_at_any_file_it_loses_at_most_one_epoch(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file is about to be put in place: what is there is whole, and goes on."""
    whole, part = tmp_path / "whole.pt", tmp_path / "part.pt"
    train_tiny(cells, whole, epochs=2, steps=1)
    original = Path.replace
    moments = 0

    while True:
        left = moments

        def stop(self: Path, target: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped
            return original(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", stop)
            try:
                train_tiny(cells, part, epochs=2, steps=1)
                break
            except Stopped:
                pass
        finished = part.with_suffix(".state.pt").exists()
        if part.exists():
            load_model(part)
        if finished:
            (state,) = states(part)
            rest = train_tiny(cells, part, epochs=2, steps=1, resume=True)
            assert len(rest.epochs) == 2 and len(state["history"]) >= 1
            assert_same_runs(whole, part)
        for path in tmp_path.glob("*part*"):
            path.unlink()
        moments += 1
    # Model, state, log and picture of the first epoch; state and log of the second at least.
    assert moments >= 6


def test_a_process_that_is_killed_loses_at_most_one_epoch(cells: Path, tmp_path: Path) -> None:
    settings = {"epochs": 6, "steps": 20}
    part, log = tmp_path / "part.pt", tmp_path / "part.csv"
    line = [
        *("train", cells, "--output", part, "--device", "cpu", "--width", 2, "--depth", 1),
        *("--tile", 32, "--seed", 7, "--epochs", 6, "--steps", 20),
    ]
    command = [sys.executable, "-c", "from bigunet.cli.main import main; main()", *map(str, line)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        deadline = time.monotonic() + 120
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        process.kill()
        process.communicate()
    finished = len(log.read_text().splitlines()) - 1
    (state,) = states(part)
    assert 2 <= finished <= len(state["history"]) <= finished + 1 < 6
    assert load_model(part).width == 2
    train_tiny(cells, part, resume=True, **settings)
    train_tiny(cells, tmp_path / "whole.pt", **settings)
    assert_same_runs(tmp_path / "whole.pt", part)


def test_another_run_in_its_place_forgets_the_state(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(cells, tmp_path / "m.pt", epochs=1)

    def stop(*_: Any) -> Any:
        raise Stopped

    monkeypatch.setattr(Learner, "learn", stop)
    with pytest.raises(Stopped):
        train(cells, tmp_path / "m.pt", settings=TINY, overwrite=True, device="cpu")
    assert not (tmp_path / "m.state.pt").exists()
    assert load_model(tmp_path / "m.pt").width == 2


# Where it ends


def scored(ap: float, ap_error: float = 0.0, iou: float = 0.5) -> Score:
    return Score(f1=1.0, ap=ap, ap_error=ap_error, iou=iou)


@pytest.mark.parametrize(
    ("error", "kept", "epochs"), [(0.0, 2, 5), (0.05, 2, 5), (0.15, 4, 7), (0.35, 6, 8)]
)
def test_of_epochs_that_cannot_be_told_apart_the_last_is_kept(
    cells: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: float,
    kept: int,
    epochs: int,
) -> None:
    scores = iter([0.4, 0.6, 0.5, 0.5, 0.2, 0.3, 0.1, 0.1])
    monkeypatch.setattr(run, "validate", lambda *_: scored(next(scores), error))
    done = train_tiny(cells, tmp_path / "m.pt", epochs=8, steps=1, patience=3)
    assert (done.best.epoch, len(done.epochs)) == (kept, epochs)
    said = str(load_model(done.path).card.scores["images held back"])
    assert said.endswith(f"± {error:.3f}, IoU 0.500 after epoch {kept}")


def test_of_classes_the_best_iou_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_cells(tmp_path / "data")
    for path in (data / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    scores = iter([0.4, 0.6, 0.5])
    monkeypatch.setattr(run, "validate", lambda *_: scored(0.5, 0.2, next(scores)))
    assert train_tiny(data, tmp_path / "m.pt", epochs=3, steps=1).best.epoch == 2


def test_it_stops_early_and_has_nothing_to_go_on_with(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"epochs": 30, "steps": 1, "patience": 2, "learning_rate": 1e-12}
    scores = iter([0.5, 0.6, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(run, "validate", lambda *_: scored(next(scores)))
    done = train_tiny(cells, tmp_path / "m.pt", **changes)
    assert len(done.epochs) == 4 and done.best.epoch == 2
    before = (tmp_path / "m.state.pt").read_bytes()
    said: list[str] = []
    settings = replace(TINY, **changes)
    again = train(
        cells, tmp_path / "m.pt", settings=settings, resume=True, progress=said.append, device="cpu"
    )
    assert again.epochs == done.epochs and said[-1] == "nothing is left to do after 4 epochs"
    assert (tmp_path / "m.state.pt").read_bytes() == before


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_model(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0

    def break_later(self: Learner, *arguments: Any) -> float:
        nonlocal taken
        taken += 1
        return float("nan") if taken > TINY.steps else original(self, *arguments)

    original = Learner.learn
    monkeypatch.setattr(Learner, "learn", break_later)
    with pytest.raises(
        RunError, match=r"loss is nan in epoch 2, step 1; .*m\.pt holds the best of 1"
    ):
        train_tiny(cells, tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").width == 2
    assert len(states(tmp_path / "m.pt")[0]["history"]) == 1


def test_a_rate_that_is_far_too_high_is_named(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no epoch was finished; .*lower .*1e\+30") as caught:
        train_tiny(cells, tmp_path / "m.pt", learning_rate=1e30)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_weights_that_diverge_in_the_last_step_are_not_kept(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(self: Learner, *_: Any) -> float:
        with torch.no_grad():
            self.model.head.bias.fill_(float("inf"))
        return 1.0

    monkeypatch.setattr(Learner, "learn", diverge)
    with pytest.raises(RunError, match="weights are not finite in epoch 1, step 4"):
        train_tiny(cells, tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_one_line_and_the_run_goes_on(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(cells, tmp_path / "whole.pt", epochs=2)
    original = torch.save

    def full(content: Any, file: Any) -> None:
        if len(content.get("history", ())) == 2:
            file.write(b"half")
            raise RuntimeError("PytorchStreamWriter failed: no space left\nmore lines")
        original(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"epoch 2 was trained .*no space left; make room"):
        train_tiny(cells, tmp_path / "part.pt", epochs=2)
    monkeypatch.undo()
    assert not list(tmp_path.glob(".*"))
    train_tiny(cells, tmp_path / "part.pt", epochs=2, resume=True)
    assert_same_runs(tmp_path / "whole.pt", tmp_path / "part.pt")
