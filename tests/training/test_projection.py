"""What is said of the time a run takes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigunet.training.learner import Learner
from bigunet.training.projection import projected_seconds
from tests.training.made_cells import TINY, new_run


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_time_is_that_of_a_step_times_all_that_are_left(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    def slow(self: Learner, step: Any) -> None:
        time.sleep(0.2)

    monkeypatch.setattr(Learner, "rehearse", slow)
    settings = replace(TINY, epochs=5, steps=steps)
    run = new_run(cells, tmp_path / "m.pt", settings, val_share=0)
    expected = 0.2 * 5 * steps
    # Other work on the machine can make it longer, nothing can make it shorter.
    assert expected <= projected_seconds(run) < 20 * expected


def test_validation_counts(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bigunet.training import projection

    run = new_run(cells, tmp_path / "m.pt", replace(TINY, epochs=2, steps=1), val_share=0.5)
    seen: list[int] = []

    def slow(model: Any, examples: Any) -> None:
        seen.extend(one.image.size for one in examples)
        time.sleep(0.5)

    monkeypatch.setattr(projection, "validate", slow)
    assert projected_seconds(run) >= 2 * 2 * 0.5
    assert seen == [72 * 72] and len(run.val) == 2
