"""What this machine is measured to be best at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from strategies import random_model

import bigunet
from bigunet.cli.main import main
from bigunet.errors import InputError
from bigunet.tuning import tune


def test_tiles_that_memory_has_no_room_for_are_left_out() -> None:
    model = random_model(2)
    sizes = {"tiles": (32, 256), "runtimes": ("eager",), "precisions": ("float32",)}
    assert [m.tile for m in tune(model, memory=2_000_000, **sizes).measured] == [32]
    with pytest.raises(InputError, match="not even a tile of 32 px fits"):
        tune(model, memory=1000, **sizes)


def test_the_command(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "bigunet.tuning.tune.__kwdefaults__", {**tune.__kwdefaults__, "tiles": (32,)}
    )
    before = torch.get_num_threads()
    bigunet.save_model(random_model(1), tmp_path / "m.pt")
    done = CliRunner().invoke(main, ["tune", str(tmp_path / "m.pt"), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert {one["precision"] for one in said["measured"]} == {"float32", "bfloat16"}
    assert said["stored"] is None and torch.get_num_threads() == before
    done = CliRunner().invoke(
        main, ["tune", str(tmp_path / "m.pt"), "--precision", "float32", "--save"]
    )
    assert done.exit_code == 0 and place.exists()
    assert f"stored in {place}" in done.stdout and "<- best" in done.stdout
