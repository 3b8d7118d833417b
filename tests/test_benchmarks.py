"""Benchmarks run in tiny sizes, so that they do not rot."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from benchmarks import (
    bench_em,
    bench_five_images,
    bench_learning_curve,
    bench_recipes,
    bench_robustness,
    bench_sample,
    bench_separation,
    measure,
    train_models,
    trials,
)
from bigunet.metrics.boundaries import components
from bigunet.training.files import read_image

Run = Callable[..., dict[str, Any]]
TINY = ("--steps", "1", "--tile", "20", "--width", "2")


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    found: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_results_say_what_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    path = measure.save_results("x", {"figure": 1})
    saved = json.loads(path.read_text())
    assert saved["figure"] == 1
    assert {"command", "commit", "date", "cpu", "cores", "device", "torch"} <= set(
        saved["conditions"]
    )


def test_results_are_no_change_of_the_commit_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setenv("BIGUNET_COMMIT", "as I was told")
    assert measure.commit() == "as I was told"
    code, results = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "x.json"
    results.parent.mkdir(parents=True)
    for file in (code, results):
        file.write_text("before")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for line in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", *line], cwd=tmp_path, check=True)
    results.write_text("after")
    clean = measure.commit()
    assert len(clean) >= 7 and "-" not in clean
    code.write_text("after")
    assert measure.commit() == f"{clean}-dirty"


def test_the_sample_is_segmented_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigunet import sites
    from bigunet.images.sample import write_sample

    # Small passes gain nothing from threads of torch, and lose much on a busy machine.
    monkeypatch.setattr(sites, "available_cores", lambda: 1)
    slide = write_sample(tmp_path / "slide.zarr", 300, 1)
    runs = []
    for block in (128, 300):
        bench_sample.measure_one(slide, "nuclei", tile=128, block=block, workers=2)
        runs.append(last_line(capsys))
    bench_sample.check_identity(runs)
    scores = bench_sample.score(slide)
    assert runs[0]["block"] != runs[1]["block"] and scores["found"] == runs[0]["objects"]
    assert scores["f1"][0] > 0.9
    with pytest.raises(RuntimeError, match="depend on blocks"):
        bench_sample.check_identity([runs[0], {**runs[1], "sha256": "another"}])


@pytest.fixture
def run_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a benchmark's command in this process, and return what it saves."""
    monkeypatch.setattr(measure, "ROOT", tmp_path)

    def one_by_one(function: Callable[..., Any], cases: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [function(*case) for case in cases]

    def run(module: ModuleType, *arguments: object, saved: str = "trial") -> dict[str, Any]:
        for place in (trials, module):
            if hasattr(place, "run_side_by_side"):
                monkeypatch.setattr(place, "run_side_by_side", one_by_one)
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        module.main()
        path = tmp_path / "benchmarks" / "results" / f"{saved}.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    return run


@pytest.fixture
def few_nuclei(shared_data: Path, tmp_path: Path) -> Path:
    """Return corners of four images to train with and one to score, as `dsb2018` has them."""
    source, folder = shared_data / "dsb2018", tmp_path / "nuclei"
    with (source / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["domain"] == "fluorescence"]
    rows = [r for r in rows if r["channels"] == "1" and int(r["n_nuclei"]) > 30]
    chosen = [
        *{r["group"]: r for r in rows if r["subset"] == "train"}.values(),
    ][:4] + [r for r in rows if r["subset"] == "val"][:1]
    for kind in ("image", "label"):
        names = [r["name"] for r in chosen]
        cut_corners(source / kind, folder / kind, names, 128)
    with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, chosen[0])
        table.writeheader()
        table.writerows(chosen)
    return folder


def cut_corners(source: Path, target: Path, names: Sequence[str], side: int) -> None:
    target.mkdir(parents=True)
    for name in names:
        with PIL.Image.open(source / f"{name}.png") as image:
            image.crop((0, 0, side, side)).save(target / f"{name}.png")


def test_separation_weights_are_compared(run_trial: Run, few_nuclei: Path) -> None:
    options = ("--data", few_nuclei, *TINY, "--save", "trial")
    saved = run_trial(bench_separation, *options, "--seeds", 1)
    assert [one["w0"] for one in saved["runs"]] == [10.0, 0.0]
    assert all(one["images"] == 1 and one["touching"] > 0 for one in saved["runs"])
    # A trial that was cut short goes on with the runs it has; of other sizes it begins anew.
    more = run_trial(bench_separation, *options, "--seeds", 2)["runs"]
    assert more[:2] == saved["runs"] and all(one["commit"] and one["cpu"] for one in more)
    assert [(one["w0"], one["seed"]) for one in more[2:]] == [(10.0, 1), (0.0, 1)]
    other = run_trial(bench_separation, *options, "--seeds", 1, "--width", 3)["runs"]
    assert len(other) == 2


def test_numbers_of_images_are_compared(run_trial: Run, few_nuclei: Path) -> None:
    sizes = ("--images", 2, "--seeds", 1, *TINY)
    saved = run_trial(bench_learning_curve, "--data", few_nuclei, *sizes, "--save", "trial")
    assert [one["elastic"] for one in saved["runs"]] == [10.0, 0.0]


def test_the_readme_is_followed(run_trial: Run, few_nuclei: Path) -> None:
    short = ("--epochs", 1, "--steps", 1, "--tile", 20, "--width", 2)
    saved = run_trial(bench_five_images, "--data", few_nuclei, *short, "--save", "trial")
    (one,) = saved["runs"]
    assert one["images"] > 0 and one["annotated"] <= 5


def test_recipes_are_compared(
    run_trial: Run, few_nuclei: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_recipes, "TIMED_STEPS", 2)
    sizes = ("--minutes", 0.02, "--seeds", 1, "--width", 1)
    saved = run_trial(bench_recipes, "--data", few_nuclei, *sizes, "--save", "trial")
    assert [one["recipe"] for one in saved["runs"]] == ["fast", "paper"]
    assert all(one["steps"] >= 1 for one in saved["runs"])


def test_sections_are_scored_in_folds(
    run_trial: Run, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("image", "label"):
        names = [f"{section:02}" for section in range(4)]
        cut_corners(shared_data / "isbi2012_em" / "train" / kind, tmp_path / kind, names, 64)
    monkeypatch.setattr(bench_em, "SECTIONS", 4)
    sizes = ("--depth", 1, "--folds", 1, *TINY)
    saved = run_trial(bench_em, "--data", tmp_path, *sizes, "--save", "trial")
    (fold,) = saved["runs"]
    assert list(fold["sections"]) == ["01"]
    assert saved["mean"] == saved["median"] == fold["sections"]["01"]
    assert 0 <= saved["mean"]["rand"] <= saved["mean"]["rand_at_fixed_threshold"]
    assert 0 <= saved["mean"]["rand_of_grown_cells"] <= 1


def test_thinned_membranes_join_no_cells(shared_data: Path) -> None:
    inside = read_image(shared_data / "isbi2012_em" / "train" / "label" / "00.png")[0] > 0
    thinned = bench_em.thinned(inside, 2)
    before, after = components(inside), components(thinned)
    assert (thinned >= inside).all()
    assert thinned.mean() > inside.mean() + 0.1
    assert after.max() == before.max() == len(np.unique(before[inside] * 1000 + after[inside]))
    assert np.array_equal(bench_em.thinned(inside, 0), inside)


def test_changes_of_the_image_are_compared(
    run_trial: Run, few_nuclei: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, one in (("GAINS", 0.5), ("MARGINS", 0.5), ("SCALES", 0.7)):
        monkeypatch.setattr(bench_robustness, name, (one,))
    saved = run_trial(bench_robustness, "--data", few_nuclei, "--save", "trial")
    assert list(saved["f1"]) == ["as it is", "gain 0.5", "margin 50%", "scale 0.7", "d4"]
    # The model's intensities are percentiles, and halving floats loses nothing.
    assert saved["f1"]["gain 0.5"] == saved["f1"]["as it is"] > 0


def test_a_trained_model_is_tuned_scored_and_described(
    run_trial: Run, few_nuclei: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bigunet

    monkeypatch.setattr(train_models, "THRESHOLDS", (0.0, 0.25))
    monkeypatch.setattr(train_models, "AREAS", (0, 30))
    output = tmp_path / "made" / "nuclei.pt"
    given = ("nuclei", "--data", few_nuclei, "--trained", "nuclei", "--output", output)
    saved = run_trial(train_models, *given, saved="model_nuclei")
    shipped, made = bigunet.load_model("nuclei"), bigunet.load_model(output)
    assert made.head.bias is not None and shipped.head.bias is not None
    shift = (shipped.head.bias - made.head.bias).tolist()
    assert shift[0] == 0 and math.isclose(shift[1], saved["threshold"], abs_tol=1e-6)
    assert f"--min-area {saved['min_area']}" in made.card.about["recipe"]
    text = train_models.ap_text(saved["val"]["fluorescence"])
    assert made.card.scores["fluorescence, images not trained on"] == text


def test_models_are_trained_with_the_command(few_nuclei: Path, tmp_path: Path) -> None:
    import bigunet

    images = trials.nuclei_images(few_nuclei, "train")
    table = trials.write_table(tmp_path / "images.csv", images[:3], images[3:])
    recipe = train_models.Recipe("fluorescence", 1, 1, (1e-3, 5e-4), "a step, and another")
    output = tmp_path / "trained.pt"
    train_models.train(few_nuclei, recipe, output, table)
    assert bigunet.load_model(output.with_stem("trained-0")).card.instances
    card = bigunet.load_model(output).card
    assert card.instances and card.gap == 2
