"""What a step of training learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bigunet.training.steps import make_target
from tests.training.made_cells import TINY, new_run


def test_a_step_weighs_what_is_known_only(cells: Path, tmp_path: Path) -> None:
    steps = list(new_run(cells, tmp_path / "m.pt").steps.epoch(0))
    assert len(steps) == TINY.steps
    side = TINY.output + 2 * TINY.margin
    for step in steps:
        assert step.image.shape == (1, side, side)
        assert step.weights.shape == step.target.shape == (TINY.output,) * 2
        assert set(np.unique(step.target)) <= {0, 1} and (step.weights >= 0).all()


def test_objects_of_two_classes_need_no_gap() -> None:
    ids = np.repeat(np.array([[1, 1, 2, 2, 3, 3]], np.int32), 3, axis=0)
    apart, classes = make_target(ids, np.array([0, 1, 1, 2], np.uint8), np.ones(ids.shape, bool), 2)
    assert apart[0].tolist() == [1, 0, 0, 2, 3, 3]
    assert classes[0].tolist() == [1, 0, 0, 1, 2, 2]
