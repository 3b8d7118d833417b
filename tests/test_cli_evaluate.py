"""``bigunet evaluate`` on small files and stores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import refused, run
from PIL import Image


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Two folders of one mask each: a truth of nine objects, and all but one of them."""
    truth = np.zeros((12, 12), dtype=np.uint16)
    for k in range(9):
        y, x = 4 * (k // 3), 4 * (k % 3)
        truth[y : y + 4, x : x + 3] = k + 1
    for name, array in (("truth", truth), ("found", np.where(truth == 9, 0, truth))):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "a.png")
    return tmp_path


def test_a_table_on_screen(masks: Path) -> None:
    done = run("evaluate", masks / "found", masks / "truth")
    assert done.exit_code == 0, done.output
    head, row, *_ = done.stdout.splitlines()
    assert head.split()[:3] == ["image", "true", "found"]
    assert row.split()[:4] == ["all", "9", "8", "0.8889"]
    assert "0 of 6 pairs" in row


def test_json_has_pooled_scores_and_those_of_each_image(masks: Path) -> None:
    done = run("evaluate", masks / "found", masks / "truth", "--json", "-q")
    facts = json.loads(done.stdout)
    assert facts["kind"] == "instances"
    assert facts["pooled"]["objects"]["ap"]["0.95"] == pytest.approx(8 / 9)
    assert [one["name"] for one in facts["images"]] == ["a"]
    assert not done.stderr


def test_options_choose_the_reading(masks: Path) -> None:
    pair = masks / "found" / "a.png", masks / "truth" / "a.png"
    assert json.loads(run("evaluate", *pair, "--kind", "classes", "--json").stdout)["pooled"][
        "classes"
    ]
    regions = json.loads(run("evaluate", *pair, "--connected", "--json").stdout)
    assert regions["notes"] == ["the objects of the prediction are its 4-connected regions"]
    swept = run("evaluate", *pair, "--kind", "probabilities", "--threshold", "0.25", "--json")
    assert json.loads(swept.stdout)["pooled"]["boundaries"]["at_threshold"]["threshold"] == 0.25


def test_the_truth_of_a_sample_scores_one(tmp_path: Path) -> None:
    slide = tmp_path / "slide.zarr"
    assert run("sample", slide, "--size", "600", "-q").exit_code == 0
    truth = slide / "labels" / "truth"
    done = run("evaluate", truth, truth, "--json", "-q")
    objects = json.loads(done.stdout)["pooled"]["objects"]
    assert (objects["mean_ap"], objects["seg"], objects["merged_pairs"]) == (1, 1, 0)
    assert "labels/truth" in refused(tmp_path, "evaluate", slide, truth)


def test_refusals_are_one_line(masks: Path) -> None:
    found, truth = masks / "found", masks / "truth"
    assert "give two folders" in refused(masks, "evaluate", found, truth / "a.png")
    assert "does not exist" in refused(masks, "evaluate", found, masks / "nothing")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(found / "a.png")
    assert "3 × 3 pixels and the truth 12 × 12" in refused(masks, "evaluate", found, truth)
    (found / "a.png").write_bytes(b"broken")
    assert "a.png cannot be read" in refused(masks, "evaluate", found, truth)
