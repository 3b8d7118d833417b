"""What was found is kept as a label that has its very pixels, complete or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr

from bigunet.errors import BigunetError, InputError, OutputError, OutputExistsError, RunError
from bigunet.images.open import open_image
from bigunet.masking import plan as module
from bigunet.masking.plan import FoundMask, MaskPlan, find_mask, plan_mask, store_mask
from tests.images.stores import metadata
from tests.masking.made_masks import nuclei, tissue_slide, whole
from tests.slides import files, is_listed, read_label, write_slide


def planned(path: Path, wanted: str = "auto", level: int = 0, **options: Any) -> MaskPlan:
    plan = plan_mask(open_image(path), level, wanted, **options)
    assert plan is not None
    return plan


def stored(path: Path, level: int = 0) -> FoundMask:
    found = find_mask(planned(path, level=level))
    store_mask(found)
    return found


def test_none_is_no_mask(tmp_path: Path) -> None:
    assert plan_mask(open_image(tissue_slide(tmp_path / "a.zarr", 100)), 0, "none") is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_label_has_the_pixels_of_the_run_that_found_it(tmp_path, version, level) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 301, version=version, levels=3)
    run = stored(path, level)
    assert pickle.loads(pickle.dumps(run.mask)) == run.mask
    for wanted in ("tissue", "auto", str(path / "labels" / "tissue")):
        later = find_mask(planned(path, wanted, level))
        assert np.array_equal(whole(later.mask), whole(run.mask))
        assert later.share == run.share == whole(run.mask).mean()
    assert 0.1 < run.share < 0.9


def test_the_label_is_valid_and_says_how_it_was_made(tmp_path: Path) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 300)
    run = stored(path)
    folder = path / "labels" / "tissue"
    label = ome_zarr_models.open_ome_zarr(zarr.open_group(folder, mode="r"))
    assert type(label).__name__ == "ImageLabel"
    found = metadata(folder)
    assert found is not None
    assert [p["class"] for p in found["image-label"]["properties"]] == ["background", "tissue"]
    assert found["bigunet"]["mask"] == {"recipe": 1, "level": 0}
    assert open_image(path).labels == ("tissue",)
    assert np.array_equal(read_label(path, "tissue"), whole(run.mask))
    assert read_label(path, "tissue", 1).shape == (150, 150)
    assert not (path / "labels" / ".bigunet-tissue").exists()


def test_every_plane_has_the_label(tmp_path: Path) -> None:
    slide = np.stack([nuclei(200), np.full((200, 200), 200, np.uint16)])[None]
    path = write_slide(tmp_path / "a.zarr", slide, "czyx", pixel_size=4.0)
    run = stored(path)
    label = read_label(path, "tissue")
    later = find_mask(planned(path, "tissue")).mask
    for at in range(2):
        for found in (label[at] != 0, whole(later, at)):
            assert np.array_equal(found, whole(run.mask, at))


def test_a_label_that_was_found_before_is_not_made_again(tmp_path, monkeypatch) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 200)
    stored(path)
    before = files(path)
    monkeypatch.setattr(module, "find_cells", None)
    plan = planned(path)
    assert plan.text == "label tissue, found before"
    assert plan.destination is None
    store_mask(find_mask(plan))
    assert files(path) == before


@pytest.mark.parametrize("listed", [True, False])
def test_somebody_elses_label_is_never_replaced(tmp_path: Path, listed: bool) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 200)
    stored(path)
    file = path / "labels" / "tissue" / "zarr.json"
    file.write_text(file.read_text().replace('"recipe"', '"brush"'))
    if not listed:
        labels = path / "labels" / "zarr.json"
        labels.write_text(labels.read_text().replace('"tissue"', ""))
    before = files(path)
    with pytest.raises(OutputExistsError) as refused:
        planned(path)
    line = str(refused.value)
    assert "labels/tissue" in line
    assert "rename it" in line
    assert "\n" not in line
    assert files(path) == before
    if listed:
        assert find_mask(planned(path, "tissue")).share > 0


def test_without_a_place_nothing_is_written(tmp_path: Path) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 200)
    before = files(path)
    found = find_mask(planned(path, store=False))
    store_mask(found)
    assert files(path) == before
    assert found.text.startswith("mask tissue: ")
    assert np.array_equal(whole(found.mask), whole(stored(path).mask))


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 100)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written"):
        planned(path)
    assert planned(path, store=False).destination is None


@pytest.mark.parametrize("step", ["_write_pixels", "reduce_window"])
def test_killed_while_it_is_written_it_leaves_nothing_half(tmp_path, monkeypatch, step) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 300, levels=3)
    done = []
    real = getattr(module, step)

    def killed(*args: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(real(*args))

    monkeypatch.setattr(module, step, killed)
    monkeypatch.setattr(module, "CHUNK", 100)
    with pytest.raises(KeyboardInterrupt):
        stored(path)
    assert not is_listed(path, "tissue")
    assert open_image(path).labels == ()
    monkeypatch.setattr(module, step, real)
    run = stored(path)
    assert np.array_equal(read_label(path, "tissue"), whole(run.mask))


def test_a_place_that_was_taken_over_is_an_error(tmp_path: Path) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 200)
    found = find_mask(planned(path))
    stored(path)
    with pytest.raises(BigunetError, match="changed since the plan"):
        store_mask(found)
    assert is_listed(path, "tissue")


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", np.full((1, 90, 90), 9, np.uint16), "cyx")
    with pytest.raises(InputError, match=r"no tissue was found: .* --mask none"):
        find_mask(planned(path))
    group = zarr.open_group(path / "labels", mode="a", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "labels": ["empty"]}
    write_slide(path / "labels" / "empty", np.zeros((90, 90), np.uint8), "yx")
    with pytest.raises(InputError, match="no pixel of the mask empty is inside"):
        find_mask(planned(path, "empty"))


def test_a_slide_that_cannot_be_read_says_where(tmp_path: Path) -> None:
    path = tissue_slide(tmp_path / "a.zarr", 200)
    (path / "s0" / "c" / "0" / "1" / "1").write_bytes(b"rubbish")
    with pytest.raises(RunError, match="cannot read chunk"):
        find_mask(planned(path))
