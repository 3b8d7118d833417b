"""What the models that ship promise: small, described, good on nuclei, and the same however cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bigunet
import bigunet.sites
from benchmarks import train_models
from bigunet.images.sample import sample_arrays
from bigunet.models.checkpoint import shipped_models
from tests.commands import run
from tests.slides import read_label, write_slide

MODELS = sorted(shipped_models())
RESULTS = Path(train_models.__file__).parent / "results"
MIN_AREA = 30
"""What the card says it was scored with."""
FLOOR = 0.95
"""Of F1 at an IoU of 0.5 on the synthetic slide: 0.98 and 0.99 were measured at two sizes."""


@pytest.fixture(scope="module")
def nuclei() -> tuple[np.ndarray, np.ndarray]:
    """Pixels and true ids of a synthetic slide."""
    image, truth = sample_arrays(768)
    return image.compute(), truth.compute().astype(np.int32)


@pytest.fixture
def segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Segment pixels with ``nuclei``; return ids, and what was said after the plan."""
    # Threads and processes then compute with one thread of torch each, on any machine.
    monkeypatch.setattr(bigunet.sites, "available_cores", lambda: 1)

    def segment(pixels: np.ndarray, **options: Any) -> tuple[np.ndarray, list[str]]:
        slide = tmp_path / "slide.zarr"
        if not slide.exists():
            write_slide(slide, pixels, "yx", chunk=256, levels=1)
        said: list[str] = []
        bigunet.segment_image(
            slide,
            "nuclei",
            device="cpu",
            tile=256,
            overwrite=True,
            progress=lambda told: said.append(told.message or ""),
            **options,
        )
        return read_label(slide, "nuclei"), [line for line in said if line.startswith("warning")]

    return segment


def test_nuclei_ships() -> None:
    assert "nuclei" in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_ships_is_small_and_described(name: str) -> None:
    model = bigunet.load_model(name)
    card = model.card
    assert shipped_models()[name].stat().st_size <= 4e6
    assert card.name == name and card.instances and card.gap == 2
    assert card.intensity is not None and len(card.class_names) == model.classes
    assert card.diameters is not None and 2 < card.diameters[0] < card.diameters[1] < 200
    assert set(card.about) == {"data", "licence", "recipe", "note"} and all(card.about.values())
    assert f"train_models.py {name}" in card.about["recipe"]


@pytest.mark.parametrize("name", MODELS)
def test_the_scores_of_the_card_are_those_of_the_results(name: str) -> None:
    saved = json.loads((RESULTS / f"model_{name}.json").read_text(encoding="utf-8"))
    card = bigunet.load_model(name).card
    assert dict(card.scores) == {
        f"{domain}, images not trained on": train_models.ap_text(figures)
        for domain, figures in saved["val"].items()
    }
    assert f"--min-area {saved['min_area']}" in card.about["recipe"]


@pytest.mark.parametrize("name", MODELS)
def test_info_prints_the_card(name: str) -> None:
    card = bigunet.load_model(name).card
    done = run("info", name)
    assert done.exit_code == 0 and str(shipped_models()[name]) in done.stdout
    low, high = card.diameters or (0, 0)
    for text in (f"{low:.1f} to {high:.1f} pixels", *card.about.values(), *card.scores.values()):
        assert str(text) in done.stdout


def test_nuclei_are_found_apart_and_of_known_size(
    nuclei: tuple[np.ndarray, np.ndarray], segment: Callable[..., Any]
) -> None:
    image, truth = nuclei
    ids, warnings = segment(image, min_area=MIN_AREA)
    counts = bigunet.evaluate(ids.astype(np.int32), truth, kind="instances").pooled.objects
    assert counts is not None and counts.true > 300
    assert counts.f1[0] >= FLOOR
    assert counts.merged <= counts.touching / 10
    assert warnings == []


def test_nuclei_far_smaller_than_those_trained_on_are_warned_of(
    nuclei: tuple[np.ndarray, np.ndarray], segment: Callable[..., Any]
) -> None:
    small = nuclei[0].reshape(192, 4, 192, 4).mean((1, 3)).astype(np.uint16)
    _, (warning,) = segment(small)
    assert "median diameter" in warning and "5.2 to 57.7 px" in warning and "--level" in warning


def test_objects_do_not_depend_on_blocks_or_workers(
    nuclei: tuple[np.ndarray, np.ndarray], segment: Callable[..., Any]
) -> None:
    """Byte for byte, with one size of tile; `benchmarks.bench_sample` has every pair, larger."""
    image, _ = nuclei
    first, _ = segment(image, min_area=MIN_AREA, block=256, workers=1)
    assert first.max() > 300
    for block, workers, scheduler in (
        (512, 4, "threads"),
        (768, 2, "threads"),
        (512, 2, "processes"),
    ):
        ids, _ = segment(
            image, min_area=MIN_AREA, block=block, workers=workers, scheduler=scheduler
        )
        assert ids.dtype == first.dtype and ids.tobytes() == first.tobytes(), (block, workers)
