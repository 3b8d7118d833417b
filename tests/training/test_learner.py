"""Steps of learning: rates against their closed form, and a rehearsal that leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigunet.models.unet import UNet
from bigunet.training.learner import Learner
from bigunet.training.steps import Step
from tests.training.made_cells import TINY, new_run, same


def learner(**changes: Any) -> Learner:
    return Learner(UNet(1, 2, width=2, depth=1), replace(TINY, **changes), "cpu")


def test_the_rate_rises_and_falls_as_half_a_cosine_or_stays() -> None:
    fast = learner(recipe="fast", epochs=100, steps=4, learning_rate=0.2)
    number = np.arange(400)
    closed = 0.1 * (1 + np.cos(np.pi * number / 400)) * np.minimum(1, (number + 1) / 200)
    assert np.allclose([fast.rate(n) for n in number], closed)
    assert fast.rate(0) == pytest.approx(0.001) and fast.rate(499) == 0
    paper = learner(recipe="paper", learning_rate=0.2)
    assert {paper.rate(n) for n in range(30)} == {0.2}


@pytest.mark.parametrize(("recipe", "longest"), [("fast", 1.0), ("paper", None)])
def test_only_the_fast_recipe_cuts_long_gradients(recipe: Any, longest: float | None) -> None:
    taught = learner(recipe=recipe)
    rng = np.random.default_rng(0)
    side = 12 + 2 * taught.model.margin
    image = rng.normal(0, 30, (1, side, side)).astype(np.float32)
    target, heavy = rng.integers(0, 2, (12, 12)), np.full((12, 12), 1e3, np.float32)
    taught.learn(Step(image, target, heavy), 0)
    gradients = [w.grad.flatten() for w in taught.model.parameters() if w.grad is not None]
    norm = float(torch.cat(gradients).norm())
    assert norm == pytest.approx(longest, rel=1e-3) if longest else norm > 10


def test_the_paper_moves_by_momentum(cells: Path, tmp_path: Path) -> None:
    optimiser = learner(recipe="paper").optimiser
    assert isinstance(optimiser, torch.optim.SGD)
    assert optimiser.param_groups[0]["momentum"] == 0.99


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_a_rehearsal_leaves_no_trace(cells: Path, tmp_path: Path, recipe: Any) -> None:
    run = new_run(cells, tmp_path / "m.pt", replace(TINY, recipe=recipe))
    step, *_ = run.steps.epoch(0)
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    run.learner.rehearse(step)
    assert same(dict(run.model.state_dict()), before)
    assert not run.learner.optimiser.state
    assert all(weight.grad is None for weight in run.model.parameters())
    run.learner.learn(step, 0)
    assert not same(dict(run.model.state_dict()), before)


@pytest.mark.parametrize(
    ("recipe", "units", "mixed"),
    [("fast", True, True), ("fast", False, False), ("paper", True, False)],
)
def test_bfloat16_is_for_the_fast_recipe_where_there_are_units_for_it(
    monkeypatch: pytest.MonkeyPatch, recipe: Any, units: bool, mixed: bool
) -> None:
    monkeypatch.setattr("bigunet.training.learner.computes_bfloat16", lambda _: units)
    taught = learner(recipe=recipe)
    seen = list[torch.dtype]()
    taught.model.head.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    side = 12 + 2 * taught.model.margin
    image = np.random.default_rng(0).normal(0, 1, (1, side, side)).astype(np.float32)
    taught.learn(Step(image, np.eye(12, dtype=int), np.ones((12, 12), np.float32)), 0)
    assert taught.mixed is mixed
    assert seen == [torch.bfloat16 if mixed else torch.float32]


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_come_last_in_every_layer(channels: int) -> None:
    taught = Learner(UNet(channels, 2, width=4, depth=2), TINY, "cpu")
    last = list[bool]()
    for layer in taught.model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(
                lambda *given: last.append(
                    given[2].is_contiguous(memory_format=torch.channels_last)
                )
            )
    side = 12 + 2 * taught.model.margin
    image = np.zeros((channels, side, side), np.float32)
    taught.learn(Step(image, np.eye(12, dtype=int), np.ones((12, 12), np.float32)), 0)
    assert len(last) == 13 and all(last)
