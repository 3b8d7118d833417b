"""The log for TensorBoard, read back by TensorBoard itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigunet.errors import DependencyError, OutputError
from bigunet.training.event_log import EventLog
from bigunet.training.fit import train
from bigunet.training.run_files import RunFiles
from tests.training.made_cells import TINY

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is an extra"
)


def logged(folder: Path) -> Any:
    events = accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


def steps(folder: Path, name: str) -> list[int]:
    return [event.step for event in logged(folder).Scalars(name)]


def test_curves_and_pictures_of_a_run(cells: Path, tmp_path: Path) -> None:
    done = train(
        cells, tmp_path / "m.pt", settings=TINY, device="cpu", tensorboard=tmp_path / "logs"
    )
    events = logged(tmp_path / "logs" / "m")
    curves = ["train/loss", "train/rate", "val/F1", "val/AP", "val/IoU"]
    assert events.Tags()["scalars"] == curves
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([epoch.loss for epoch in done.epochs])
    assert steps(tmp_path / "logs" / "m", "val/F1") == [1, 2, 3]
    (picture,) = events.Images("held back")
    assert (picture.step, picture.width, picture.height) == (1, 3 * 72, 72)


def test_a_run_that_goes_on_has_every_epoch_once(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, options = replace(TINY, epochs=4, steps=1), {"device": "cpu", "tensorboard": tmp_path}
    original, written = RunFiles.write_state, 0

    class Stopped(BaseException):
        pass

    def stop(self: RunFiles, state: Any) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise Stopped
        original(self, state)

    monkeypatch.setattr(RunFiles, "write_state", stop)
    with pytest.raises(Stopped):
        train(cells, tmp_path / "m.pt", settings=settings, **options)
    assert steps(tmp_path / "m", "train/loss") == [1, 2, 3]  # the third was logged and not kept
    monkeypatch.undo()
    train(cells, tmp_path / "m.pt", settings=settings, resume=True, **options)
    assert steps(tmp_path / "m", "train/loss") == [1, 2, 3, 4]
    train(cells, tmp_path / "m.pt", settings=replace(settings, epochs=1), overwrite=True, **options)
    assert steps(tmp_path / "m", "train/loss") == [1]


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", first=1) as events:
        events.scalars(1, {"loss": 0.5, "val": float("nan")})
    assert logged(tmp_path / "log").Tags()["scalars"] == ["loss"]


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with EventLog(None, first=1) as events:
        events.scalars(1, {"loss": 0.5})
        events.picture(1, "held back", tmp_path / "none.png")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write events to"):
        EventLog(tmp_path / "file" / "log", first=1)


def test_a_missing_package_is_named_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(DependencyError, match=r'pip install "bigunet\[train\]"'):
        train("nowhere", tmp_path / "m.pt", tensorboard=tmp_path / "log")
    assert not list(tmp_path.iterdir())


def test_tensorboard_is_loaded_for_those_who_ask() -> None:
    code = "import sys, bigunet.training.fit; assert 'tensorboard' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
