"""Runtime and tile: a fixed rule, or what was stored on purpose; never what a run times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pytest
import torch
import yaml
from slides import write_slide
from strategies import random_image, random_model

import bigunet
from bigunet import UNet
from bigunet.errors import InputError
from bigunet.models import runtimes
from bigunet.pipeline import plan_image
from bigunet.speed import Choice, fastest, target_tile
from bigunet.tuning import tune

pytestmark = pytest.mark.usefixtures("place")


def stored(place: Path) -> Any:
    """Let this process know what a new one would find."""
    return dask.config.set(yaml.safe_load(place.read_text()))


def test_the_rule_looks_at_device_runtime_and_size_of_the_network() -> None:
    for width, depth, tile in ((16, 3, 2048), (64, 4, 1024), (300, 2, 512)):
        with torch.device("meta"):
            model = UNet(1, 2, width=width, depth=depth)
        assert target_tile(model, "cpu", "eager") == target_tile(model, "cpu", "compile") == 512
        assert target_tile(model, "cpu", "openvino") == target_tile(model, "cuda", "eager") == tile
        assert fastest(model, "cpu", "float32") == Choice(runtime="eager", tile=512)
        assert fastest(model, "cpu", "bfloat16", "openvino").tile == tile


def test_what_is_measured_counts_once_it_is_stored(place: Path, tmp_path: Path) -> None:
    model = random_model(2)
    tuning = tune(model, tiles=(32, 64), runtimes=("openvino",), precisions=("float32",))
    assert not place.exists() and fastest(model, "cpu", "float32") == tuning.rule
    tuning = tune(
        model, tiles=(32, 64), runtimes=("openvino",), precisions=("float32",), store=True
    )
    best = tuning.best("float32")
    assert tuning.stored == place and best.tile in (32, 64)
    slide = write_slide(tmp_path / "slide.zarr", random_image((200, 200), np.uint8), "yx")
    with stored(place):
        choice = Choice(runtime="openvino", tile=best.tile)
        assert fastest(model, "cpu", "float32") == choice
        plan = plan_image(slide, model, name="n")
        assert plan.runtime == "openvino" and max(plan.tiling.tile) <= best.tile + 2**2
        lazy = bigunet.predict(random_image((200, 200), np.uint8), model)
        asked = bigunet.predict(
            random_image((200, 200), np.uint8), model, runtime="openvino", tile=plan.tiling.tile
        )
        np.testing.assert_array_equal(lazy.compute(), asked.compute())
        # Of other networks, precisions, runtimes and machines it says nothing.
        assert fastest(UNet(1, 2, width=5, depth=2), "cpu", "float32") == tuning.rule
        assert fastest(model, "cpu", "bfloat16") == tuning.rule
        assert fastest(model, "cpu", "float32", "eager") == tuning.rule
        assert fastest(model, "cpu", "float32", here=False) == tuning.rule


def test_one_more_is_stored_beside_what_is_there(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("bigunet:\n  tuned: {other: {runtime: eager, tile: 8}}\ndistributed: {a: 1}\n")
    for width in (4, 5):
        tune(UNet(1, 2, width=width, depth=1), tiles=(32,), runtimes=("eager",), store=True)
    everything = yaml.safe_load(place.read_text())
    assert everything["distributed"] == {"a": 1} and len(everything["bigunet"]["tuned"]) == 5


@pytest.mark.parametrize("wrong", [{"runtime": "eager"}, {"runtime": "eager", "tile": -4}, "fast"])
def test_what_is_no_choice_is_refused(place: Path, wrong: Any) -> None:
    model = random_model(2)
    tune(model, tiles=(32,), runtimes=("eager",), precisions=("float32",), store=True)
    found = yaml.safe_load(place.read_text())
    found["bigunet"]["tuned"] = dict.fromkeys(found["bigunet"]["tuned"], wrong)
    with (
        dask.config.set(found),
        pytest.raises(InputError, match=r"is no choice of runtime and tile.*tune --save"),
    ):
        fastest(model, "cpu", "float32")


def test_a_stored_runtime_that_is_gone_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(2)
    tune(model, tiles=(32,), runtimes=("openvino",), precisions=("float32",), store=True)
    monkeypatch.setattr(runtimes, "_installed", lambda: False)
    with stored(place), pytest.raises(InputError, match="'openvino' is not installed"):
        fastest(model, "cpu", "float32")
