"""The score of held-back images, where it is known what is found."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bigunet.training import validation
from bigunet.training.steps import Prepared
from bigunet.training.validation import validate
from tests.training.made_cells import new_run


@pytest.mark.parametrize("missed", [0, 1, 3])
def test_the_error_of_the_ap_is_that_of_a_share(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missed: int
) -> None:
    """Objects that are found are found at every IoU, so the AP is the share that is found."""
    run = new_run(cells, tmp_path / "m.pt")
    ids = np.unique(next(iter(run.val)).instances)[1:]

    def found(_: object, prepared: Prepared) -> np.ndarray:
        return np.isin(prepared.instances, ids[missed:]).astype(np.uint8)

    monkeypatch.setattr(validation, "_predicted", found)
    monkeypatch.setattr(
        validation,
        "instances_from_classes",
        lambda classes: np.where(classes > 0, next(iter(run.val)).instances, 0),
    )
    score = validate(run.model, run.val)
    share = 1 - missed / len(ids)
    assert score.ap == pytest.approx(share)
    assert score.ap_error == pytest.approx(math.sqrt(share * (1 - share) / len(ids)))
    assert score.f1 == pytest.approx(2 * share / (1 + share))
