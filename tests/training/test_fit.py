"""A run that can be trusted: it learns, goes on bit for bit, and loses nothing."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.draw import disk

from bigunet import load_model, segment
from bigunet.errors import BigunetError, InputError, ModelError, OutputExistsError, RunError
from bigunet.training import fit, steps
from bigunet.training.fit import train
from bigunet.training.settings import Training
from bigunet.training.steps import PreparedExamples, Steps, make_target, set_weights

TINY = Training(width=2, depth=1, epochs=3, steps=4, tile=32, seed=7)


def write_cells(folder: Path, count: int = 4, side: int = 72) -> Path:
    """Write images of bright discs on a dark ground, some of them touching."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        ids = np.zeros((side, side), np.uint16)
        # Ids of their own in every image: few values could be classes, too, and be refused.
        for label in range(20 * number + 1, 20 * number + 9):
            ids[disk(rng.integers(5, side - 5, 2), 7, shape=ids.shape)] = label
        image = rng.normal(40 + 120 * (ids > 0), 8).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(ids).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cells(tmp_path_factory.mktemp("cells") / "data")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(path).state_dict())


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_it_learns_to_tell_cells_from_ground(cells: Path, tmp_path: Path) -> None:
    settings = replace(TINY, width=4, epochs=6, steps=25, learning_rate=5e-3)
    done = train(cells, tmp_path / "m.pt", settings=settings, device="cpu")
    assert done.epochs[-1].loss < 0.7 * done.epochs[0].loss
    assert done.best.iou > 0.7
    model = load_model(done.path)
    assert model.card.intensity is not None and model.card.gap == 2
    image = np.asarray(Image.open(cells / "images" / "0.png"))
    truth = np.asarray(Image.open(cells / "masks" / "0.png")) > 0
    assert (segment(image, model).compute().astype(bool) == truth).mean() > 0.85


def test_what_lies_beside_the_model(cells: Path, tmp_path: Path) -> None:
    said: list[str] = []
    done = train(cells, tmp_path / "m.pt", settings=TINY, progress=said.append, device="cpu")
    rows = list(csv.DictReader((tmp_path / "m.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["loss"]) == done.epochs[-1].loss
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size == (3 * 72, 72)
    assert not list(tmp_path.glob("*.partial"))
    assert "3 images to train with, 1 held back; instances" in said[0]
    assert said[-1].startswith("epoch 3/3: loss")


class Stopped(BaseException):
    """Something that kills a run."""


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_resuming_is_bit_for_bit_as_if_nothing_had_happened(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any
) -> None:
    settings = replace(TINY, recipe=recipe)
    whole = train(cells, tmp_path / "whole.pt", settings=settings, device="cpu")
    steps = 0

    def stop_in_the_second_epoch(self: Any, *parts: torch.Tensor) -> float:
        nonlocal steps
        steps += 1
        if steps == TINY.steps + 3:
            raise Stopped
        return original(self, *parts)

    original = fit._Run._step
    monkeypatch.setattr(fit._Run, "_step", stop_in_the_second_epoch)
    with pytest.raises(Stopped):
        train(cells, tmp_path / "part.pt", settings=settings, device="cpu")
    monkeypatch.undo()
    rest = train(cells, tmp_path / "part.pt", settings=settings, resume=True, device="cpu")
    assert same(weights(tmp_path / "whole.pt"), weights(tmp_path / "part.pt"))
    states = [
        torch.load(tmp_path / f"{name}.state.pt", weights_only=True) for name in ("whole", "part")
    ]
    assert same(states[0]["weights"], states[1]["weights"])
    assert [e.loss for e in rest.epochs] == [e.loss for e in whole.epochs]


def test_the_seed_decides(cells: Path, tmp_path: Path) -> None:
    one, two, other = (
        train(cells, tmp_path / f"{n}.pt", settings=replace(TINY, seed=s, epochs=1), device="cpu")
        for n, s in enumerate((1, 1, 2))
    )
    assert same(weights(one.path), weights(two.path))
    assert not same(weights(one.path), weights(other.path))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_model(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def break_later(self: Any, *parts: torch.Tensor) -> float:
        nonlocal steps
        steps += 1
        return float("nan") if steps > TINY.steps else original(self, *parts)

    original = fit._Run._step
    monkeypatch.setattr(fit._Run, "_step", break_later)
    with pytest.raises(
        RunError, match=r"loss is nan in epoch 2, step 1; .*m\.pt holds the best of 1"
    ):
        train(cells, tmp_path / "m.pt", settings=TINY, device="cpu")
    assert load_model(tmp_path / "m.pt").width == 2


def test_it_stops_early(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(TINY, epochs=30, steps=1, patience=2, learning_rate=1e-12)
    scores = iter([0.5, 0.6, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(fit, "validate", lambda *_: fit.Score(f1=next(scores), iou=0.5))
    done = train(cells, tmp_path / "m.pt", settings=settings, device="cpu")
    assert len(done.epochs) == 4 and done.best.epoch == 2


def test_a_model_to_begin_with(cells: Path, tmp_path: Path) -> None:
    first = train(cells, tmp_path / "a.pt", settings=replace(TINY, width=3), device="cpu")
    settings = replace(TINY, epochs=1, steps=1, learning_rate=1e-12)
    train(cells, tmp_path / "b.pt", settings=settings, init=first.path, device="cpu")
    before, after = weights(first.path), weights(tmp_path / "b.pt")
    assert load_model(tmp_path / "b.pt").width == 3
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resume": True}, ModelError, "nothing can be resumed"),
        ({"init": "nowhere.pt"}, BigunetError, "nowhere"),
        ({"device": "tpu"}, InputError, "tpu"),
    ],
)
def test_what_cannot_work_is_refused(
    cells: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(cells, tmp_path / "m.pt", settings=TINY, **options)
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_replaced_unasked(cells: Path, tmp_path: Path) -> None:
    train(cells, tmp_path / "m.pt", settings=replace(TINY, epochs=1), device="cpu")
    with pytest.raises(OutputExistsError, match="--resume"):
        train(cells, tmp_path / "m.pt", settings=TINY, device="cpu")
    with pytest.raises(ModelError, match="other settings"):
        train(cells, tmp_path / "m.pt", settings=replace(TINY, seed=1), resume=True, device="cpu")
    train(cells, tmp_path / "m.pt", settings=TINY, overwrite=True, device="cpu")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("recipe", "slow", "recipe 'slow' is unknown"),
        ("epochs", 0, "epochs is 0"),
        ("learning_rate", -1.0, "learning rate is -1.0"),
        ("gap", 1, "gap is 1"),
    ],
)
def test_settings_that_cannot_be_meant(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Training(**{name: value})


def test_a_step_weighs_what_is_known_only(cells: Path) -> None:
    dataset = fit.open_dataset(cells)
    weights_of = set_weights(dataset.train, 2, TINY)
    rule = fit.default_rule(dataset.dtype, 1)
    steps = list(Steps(PreparedExamples(dataset.train, rule), weights_of, TINY).epoch(0))
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


def test_images_are_read_once_for_all_epochs(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    original = steps.prepare

    def watched(example: Any, rule: Any) -> Any:
        prepared.append(example.name)
        return original(example, rule)

    monkeypatch.setattr(steps, "prepare", watched)
    train(cells, tmp_path / "m.pt", settings=TINY, device="cpu")
    assert sorted(prepared) == ["0", "1", "2", "3"]
