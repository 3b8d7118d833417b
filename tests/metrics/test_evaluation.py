"""`evaluate` end to end: the same scores however the pixels come, and how they are read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.metrics import evaluation, kinds, scoring, sources
from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.evaluation import evaluate
from bigunet.metrics.objects import count_objects
from bigunet.metrics.touching import touching_pairs
from tests.images.labelled_images import write_image, write_labels
from tests.metrics.made_labels import label_pairs

Pairs = tuple[np.ndarray, np.ndarray]


def cells(shift: int = 0) -> np.ndarray:
    """Twelve cells of 4 × 4 pixels; those of a row touch."""
    image = np.zeros((24, 24), dtype=np.uint16)
    for k in range(12):
        y, x = 1 + 8 * (k // 4), 2 + 4 * (k % 4) + shift
        image[y : y + 4, x : x + 4] = k + 1
    return image


def as_zarr(path: Path, **labels: np.ndarray) -> Path:
    scales = [(1.0, 1.0)]
    write_image(path, [np.zeros(cells().shape, np.uint16)], "yx", scales)
    for name, array in labels.items():
        write_labels(path, name, [array], "yx", scales)
    return path / "labels"


def without_names(result: Any) -> Any:
    facts = result.as_dict()
    for one in (facts["pooled"], *facts["images"]):
        del one["name"]
    return facts


def test_arrays_files_and_labels_score_the_same(tmp_path: Path) -> None:
    truth, found = cells(), cells(1)
    expected = evaluate(found, truth)
    assert expected.kind == "instances"
    assert expected.pooled.objects == count_objects(
        count_pairs(truth, found), touching_pairs(truth)
    )
    for name, array in (("truth.png", truth), ("found.tif", found)):
        Image.fromarray(array).save(tmp_path / name)
    files = evaluate(tmp_path / "found.tif", str(tmp_path / "truth.png"))
    labels = as_zarr(tmp_path / "slide.zarr", truth=truth, found=found)
    zarrs = evaluate(labels / "found", labels / "truth")
    assert without_names(files) == without_names(zarrs) == without_names(expected)


@given(label_pairs(), st.integers(1, 9))
def test_scores_do_not_depend_on_the_windows(pair: Pairs, block: int) -> None:
    expected = evaluate(pair[1], pair[0], kind="instances").as_dict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources.windows, "__defaults__", (block,))
        found = evaluate(pair[1], pair[0], kind="instances").as_dict()
    for key in ("ap", "f1", "touching_pairs", "merged_pairs", "true", "predicted"):
        assert found["pooled"]["objects"][key] == expected["pooled"]["objects"][key]
    for key, value in expected["pooled"]["partition"].items():
        assert found["pooled"]["partition"][key] == pytest.approx(value)


def test_a_folder_is_pooled_by_counts(tmp_path: Path) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    for folder, shift in ((truth, 0), (found, 1)):
        folder.mkdir()
        Image.fromarray(cells(shift)).save(folder / "a.png")
        Image.fromarray(cells() * (shift == 0)).save(folder / "b.png")
        Image.fromarray(cells() * 0).save(folder / "empty.png")
    result = evaluate(found, truth)
    assert [one.name for one in result.images] == ["a", "b", "empty"]
    objects = result.pooled.objects
    assert objects is not None
    assert (objects.true, objects.predicted) == (24, 12)
    # Shifted by one of four pixels: IoU 3/5.
    assert objects.matches[:3] == (12, 12, 12) and objects.matches[3] == 0
    assert objects.ap[0] == 12 / 24
    assert (objects.touching, objects.merged) == (18, 0)
    facts = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert facts["images"][2]["objects"]["mean_ap"] is None
    assert facts["images"][1]["objects"]["ap"]["0.5"] == 0
    lines = result.lines()
    assert lines[0].startswith("image") and lines[4].startswith("all")
    assert "0 of 18 pairs" in lines[4]
    assert lines[6].split()[:4] == ["IoU", "0.5", "0.55", "0.6"]


def test_a_mask_against_objects_is_taken_apart_by_regions() -> None:
    truth = cells()
    result = evaluate(truth > 0, truth)
    assert result.kind == "instances"
    assert result.notes == ("the objects of the prediction are its 4-connected regions",)
    objects = result.pooled.objects
    assert objects is not None
    assert (objects.true, objects.predicted) == (12, 3)
    assert (objects.touching, objects.merged) == (9, 9)
    by_ids = evaluate(truth > 0, truth, connected=False).pooled.objects
    assert by_ids is not None and by_ids.predicted == 1


def test_regions_of_other_classes_are_other_objects() -> None:
    truth = cells()
    classes = np.where(truth > 0, 1 + truth % 2, 0)
    objects = evaluate(classes, truth, kind="instances", connected=True).pooled.objects
    assert objects is not None
    assert (objects.predicted, objects.ap[-1]) == (12, 1)


def test_binary_masks_need_not_have_the_same_value() -> None:
    truth = (cells() > 0).astype(np.uint8) * 255
    result = evaluate(cells() > 0, truth)
    assert result.kind == "classes"
    assert [(one.value, one.iou) for one in result.pooled.classes] == [(0, 1), (1, 1)]
    sweep = result.pooled.boundaries
    assert sweep is not None
    assert sweep.rand_error.value == sweep.warping_error.value == sweep.pixel_error.value == 0


def test_a_class_outside_of_what_was_looked_at_first_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few pixels in the middle show one class; there are two."""
    monkeypatch.setattr(kinds, "SAMPLE", 4)
    truth = np.zeros((9, 9), dtype=np.uint8)
    truth[3:6, 3:6], truth[0, 0] = 1, 2
    result = evaluate(truth, truth)
    assert [one.value for one in result.pooled.classes] == [0, 1, 2]
    assert result.pooled.boundaries is None
    with pytest.raises(InputError, match="holds the values 1 and 2, and what was read before"):
        evaluate(np.uint8(255) * (truth == 1), truth)


def test_classes_are_compared_by_value() -> None:
    truth = np.where(cells() > 0, 1 + cells() % 2, 0)
    found = np.where(truth == 2, 1, truth)
    result = evaluate(found, truth)
    assert result.kind == "classes" and result.pooled.boundaries is None
    iou = {one.value: one.iou for one in result.pooled.classes}
    assert iou == {0: 1, 1: 0.5, 2: 0}
    assert [line.split()[1] for line in result.lines()[1:4]] == ["0", "1", "2"]


def test_probabilities_are_swept() -> None:
    inside = cells() > 0
    truth = inside.astype(np.uint8)
    map8 = np.where(inside, 200, 60).astype(np.uint8)
    floats = (map8 / 255).astype(np.float32)
    first = evaluate(floats, truth, threshold=0.1)
    assert first.kind == "probabilities"
    second = evaluate(map8, truth, kind="probabilities", threshold=0.1)
    assert without_names(first) == without_names(second)
    sweep = first.pooled.boundaries
    assert sweep is not None
    assert (sweep.pixel_error.value, sweep.pixel_error.threshold) == (0, 0.3)
    assert sweep.fixed.pixel_error == pytest.approx(1 - 2 * inside.mean() / (1 + inside.mean()))
    assert "0.1: " in first.lines()[1]


def test_large_planes_have_classes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scoring, evaluation):
        monkeypatch.setattr(module, "LARGEST_PLANE", 100)
    mask = (cells() > 0).astype(np.uint8)
    result = evaluate(mask, mask)
    assert result.pooled.boundaries is None and result.pooled.classes[1].iou == 1
    assert "left out for array" in result.notes[0]
    assert evaluate(cells(), cells()).pooled.objects is not None
    with pytest.raises(InputError, match=r"24 × 24 pixels: connected regions"):
        evaluate(mask, cells())
    with pytest.raises(InputError, match=r"24 × 24 pixels"):
        evaluate(mask / 2, mask)


def test_progress_ends_with_all_pixels_of_all_planes(tmp_path: Path) -> None:
    scales = [(1.0, 1.0, 1.0)]
    image = write_image(tmp_path / "s.zarr", [np.zeros((2, 24, 24), np.uint16)], "zyx", scales)
    write_labels(image, "truth", [np.stack([cells()] * 2)], "zyx", scales)
    path, seen = image / "labels" / "truth", list[tuple[int, int]]()
    evaluate(path, path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(576, 1152), (1152, 1152)]


def test_nothing_anywhere() -> None:
    empty = np.zeros((4, 4), dtype=np.uint8)
    objects = evaluate(empty, empty, kind="instances").pooled.objects
    assert objects is not None and math.isnan(objects.mean_ap)
    result = evaluate(empty, empty)
    assert result.kind == "classes" and len(result.pooled.classes) == 1
    assert result.lines()[-1].split() == ["all", "-", "0.000000", "-", "-", "-", "0.5:", "-"]


@pytest.mark.parametrize(
    ("prediction", "truth", "settings", "message"),
    [
        (cells(), cells() > 0, {}, "reads as classes and the prediction as objects"),
        (cells(), cells() * (cells() < 4), {}, "--kind instances reads 3 objects"),
        (cells(), cells(), {"kind": "nuclei"}, "'nuclei' is no kind"),
        (cells(), cells(), {"threshold": 1.0}, "1.0 is no threshold"),
        (cells() / 12, cells(), {"kind": "instances"}, "is probabilities, not instances"),
        (cells() / 2, cells() > 0, {}, "probabilities are 0 to 1"),
        (cells().astype(int) - 1, cells(), {}, "down to -1"),
    ],
)
def test_refusals(
    prediction: np.ndarray, truth: np.ndarray, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(prediction, truth, **settings)


def average_precision(truth: np.ndarray, prediction: np.ndarray, threshold: float) -> float:
    """AP written anew: every true object takes the first free one that fits."""
    free = [prediction == i for i in np.unique(prediction) if i]
    found, trues = len(free), [truth == i for i in np.unique(truth) if i]
    tp = 0
    for mask in trues:
        for k, other in enumerate(free):
            if (mask & other).sum() / (mask | other).sum() >= threshold:
                tp += 1
                del free[k]
                break
    return tp / (len(trues) + found - tp)


def test_real_nuclei_by_regions(shared_data: Path) -> None:
    """The truth as a mask, on real nuclei: scores are those of plain code."""
    paths = sorted((shared_data / "dsb2018" / "label").glob("*.png"))[:3]
    for path in paths:
        with Image.open(path) as picture:
            truth = np.asarray(picture)
        regions = ndimage.label(truth > 0)[0]
        objects = evaluate(truth > 0, truth, kind="instances", connected=True).pooled.objects
        assert objects is not None
        assert objects.ap[0] == average_precision(truth, regions, 0.5)
        assert objects.ap[8] == average_precision(truth, regions, 0.9)
