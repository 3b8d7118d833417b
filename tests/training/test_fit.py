"""Training as a whole: it learns, it says what it does, and refuses what cannot work."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from bigunet import load_model, segment
from bigunet.errors import BigunetError, InputError, ModelError, OutputExistsError
from bigunet.training import steps
from bigunet.training.fit import train
from bigunet.training.settings import Training
from tests.training.made_cells import TINY, same, weights, write_cells

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = replace(TINY, epochs=1, steps=1)


def test_it_learns_to_tell_cells_from_ground(cells: Path, tmp_path: Path) -> None:
    settings = replace(TINY, width=4, epochs=10, steps=25, learning_rate=5e-3)
    done = train(cells, tmp_path / "m.pt", settings=settings, device="cpu")
    assert done.epochs[-1].loss < 0.7 * done.epochs[0].loss
    assert done.best.iou > 0.7
    assert 0 < done.best.ap < done.best.f1
    top = max(done.epochs, key=lambda epoch: epoch.ap)
    assert done.best.ap >= top.ap - top.ap_error
    model = load_model(done.path)
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
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"m.pt", "m.state.pt", "m.csv", "m.png"}
    assert "3 images to train with, 1 held back; instances" in said[0]
    assert said[1].startswith("12 steps, about ")
    assert said[-1].startswith("epoch 3/3: loss")


def test_the_card_tells_what_the_model_is(cells: Path, tmp_path: Path) -> None:
    done = train(cells, tmp_path / "m.pt", settings=SHORT, device="cpu")
    card = load_model(done.path).card
    assert card.intensity is not None and card.name == "m"
    assert (card.gap, card.instances) == (2, True)
    # Discs of radius 7, overlapped by others and cut off by the border.
    assert card.diameters is not None and card.diameters[0] < 12 < card.diameters[1] < 14
    assert card.about == {
        "recipe": "fast: 3 images, 1 epochs of 1 tiles of 32 px, rate 0.001, seed 7"
    }
    assert f"IoU {done.best.iou:.3f} after epoch 1" in str(card.scores["images held back"])


def test_class_maps_make_a_model_of_classes(tmp_path: Path) -> None:
    data = write_cells(tmp_path / "data")
    for path in (data / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    done = train(data, tmp_path / "m.pt", settings=SHORT, val_share=0, device="cpu")
    card = load_model(done.path).card
    assert (card.gap, card.instances, card.scores) == (0, False, {})
    assert card.diameters is not None


def test_what_another_model_was_told_about_stays_with_it(cells: Path, tmp_path: Path) -> None:
    from bigunet import save_model

    first = train(cells, tmp_path / "a.pt", settings=replace(SHORT, width=3), device="cpu")
    save_model(load_model(first.path), first.path, about={"note": "x"}, scores={"elsewhere": 1})
    settings = replace(SHORT, learning_rate=1e-12)
    train(cells, tmp_path / "b.pt", settings=settings, init=first.path, device="cpu")
    before, after = weights(first.path), weights(tmp_path / "b.pt")
    card = load_model(tmp_path / "b.pt").card
    assert load_model(tmp_path / "b.pt").width == 3
    assert all(np.allclose(before[k], after[k], atol=1e-6) for k in before)
    assert set(card.about) == {"recipe"} and card.about["recipe"].endswith("begun with a")
    assert set(card.scores) == {"images held back"}


def test_the_seed_decides(cells: Path, tmp_path: Path) -> None:
    one, two, other = (
        train(cells, tmp_path / f"{n}.pt", settings=replace(TINY, seed=s, epochs=1), device="cpu")
        for n, s in enumerate((1, 1, 2))
    )
    assert same(weights(one.path), weights(two.path))
    assert not same(weights(one.path), weights(other.path))


def as_rgb(image: np.ndarray) -> np.ndarray:
    return np.stack([image, image // 2, 255 - image], axis=-1)


def as_rgba(image: np.ndarray) -> np.ndarray:
    return np.dstack([as_rgb(image), np.full_like(image, 255)])


@pytest.mark.parametrize(
    ("count", "side", "change", "channels", "kind"),
    [
        (1, 72, np.asarray, 1, "percentile"),  # one image
        (2, 20, np.asarray, 1, "percentile"),  # smaller than a tile
        (2, 72, lambda i: i.astype(np.uint16) * 200, 1, "percentile"),
        (2, 72, as_rgb, 3, "range"),
        (2, 72, as_rgba, 3, "range"),
    ],
)
def test_kinds_of_images(
    tmp_path: Path, count: int, side: int, change: Any, channels: int, kind: str
) -> None:
    data = write_cells(tmp_path / "data", count, side)
    for path in (data / "images").iterdir():
        tifffile.imwrite(path.with_suffix(".tif"), change(np.asarray(Image.open(path))))
        path.unlink()
    said: list[str] = []
    options: dict[str, Any] = {"masks": "instances", "progress": said.append}
    done = train(data, tmp_path / "m.pt", settings=SHORT, device="cpu", **options)
    model = load_model(done.path)
    assert model.in_channels == channels
    assert model.card.intensity is not None and model.card.intensity.kind == kind
    assert ("there is one image only" in said[0]) == (count == 1)


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


def test_the_table_of_images_is_not_replaced_by_the_log(cells: Path, tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_text("name,subset\n0,train\n1,val\n")
    for overwrite, error in ((False, OutputExistsError), (True, InputError)):
        with pytest.raises(error, match=r"m\.csv .*choose another name"):
            train(cells, tmp_path / "m.pt", settings=SHORT, val=table, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def test_a_model_is_not_replaced_unasked(cells: Path, tmp_path: Path) -> None:
    train(cells, tmp_path / "m.pt", settings=SHORT, device="cpu")
    with pytest.raises(OutputExistsError, match="--resume"):
        train(cells, tmp_path / "m.pt", settings=SHORT, device="cpu")
    with pytest.raises(ModelError, match="other settings"):
        train(cells, tmp_path / "m.pt", settings=replace(SHORT, seed=1), resume=True, device="cpu")
    with pytest.raises(ModelError, match="other data"):
        train(cells, tmp_path / "m.pt", settings=SHORT, resume=True, val_share=0.5, device="cpu")
    train(cells, tmp_path / "m.pt", settings=SHORT, overwrite=True, device="cpu")


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
