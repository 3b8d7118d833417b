"""With a mask: inside as without it, outside background, whatever the blocks."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from slides import files, identity_model, is_listed, read_label, write_slide
from strategies import random_image, random_model

from bigunet import measure_objects, save_model, segment_image
from bigunet.cluster import tasks
from bigunet.errors import InputError, NotFoundError, RunError
from bigunet.instances.gap import close_gap
from bigunet.ledger import read_ledger
from bigunet.verification import verify_image

SIDE = 160


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PAUSES", ())


def add_label(slide: Path, name: str, pixels: np.ndarray) -> None:
    """Write a label of one level more than needed, as somebody else would."""
    labels = zarr.open_group(slide, mode="a").require_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": [name]}
    group = labels.create_group(name)
    datasets = []
    for level in range(2):
        data = np.ascontiguousarray(pixels[:: 2**level, :: 2**level])
        group.create_array(f"{level}", data=data, chunks=(40, 40))
        scale = [{"type": "scale", "scale": [0.5 * 2**level] * 2}]
        datasets.append({"path": f"{level}", "coordinateTransformations": scale})
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    multiscale = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], "image-label": {}}


def disc(shape: tuple[int, int] = (SIDE, SIDE), radius: int = 45) -> np.ndarray:
    """Return a mask that cuts blocks, leaves blocks out, and has a hole."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    away = (y - 60) ** 2 + (x - 70) ** 2
    return ((away <= radius**2) & (away > 8**2)).astype(np.uint8)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = write_slide(tmp_path / "s.zarr", random_image((SIDE, SIDE), np.uint8), "yx", chunk=40)
    add_label(path, "roi", disc())
    return path


@pytest.mark.parametrize("overlap", ["direct", "map_overlap"])
@pytest.mark.parametrize("block", [32, 64, 160])
def test_inside_as_without_and_outside_nothing(slide: Path, block: int, overlap: str) -> None:
    model, inside = random_model(2), disc().astype(bool)
    common: dict[str, Any] = {"tile": 32, "block": block, "device": "cpu", "overlap": overlap}
    segment_image(slide, model, name="all", save=("classes",), **common)
    made = segment_image(slide, model, name="some", save=("classes",), mask="roi", **common)
    expected = np.where(inside, read_label(slide, "all"), 0)
    np.testing.assert_array_equal(read_label(slide, "some"), expected)
    touched = np.add.reduceat(np.add.reduceat(inside, range(0, SIDE, block), 0),
                              range(0, SIDE, block), 1) > 0  # fmt: skip
    assert made.blocks["skipped"] == (~touched).sum()
    assert made.blocks["computed"] == touched.sum()
    stored = {path.parent.name + "/" + path.name
              for path in (slide / "labels/some/0/c").glob("*/*")}  # fmt: skip
    assert made.blocks["total"] == touched.size and stored
    assert verify_image(slide, "some", model, windows=6).ok


def test_probabilities_outside_are_none(slide: Path, tmp_path: Path) -> None:
    model, inside = random_model(2), disc().astype(bool)
    found = {}
    for mask in ("none", "roi"):
        options: dict[str, Any] = {"save": ("probabilities",), "tile": 32, "block": 32}
        out = tmp_path / f"{mask}.zarr"
        segment_image(slide, model, output=out, mask=mask, **options)
        found[mask] = np.asarray(zarr.open_array(out / "0", mode="r")[:])
    np.testing.assert_array_equal(found["roi"], np.where(inside, found["none"], 0))


def brute_force(classes: np.ndarray, inside: np.ndarray, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and which of them are cut, from the whole image at once."""
    ids, count = ndimage.label(np.where(inside, classes, 0))
    ids = np.where(inside, close_gap(ids, gap), 0)
    # A hole is background that meets one object only, and neither border nor outside.
    background, holes = ndimage.label(ids == 0)
    beside_outside = ndimage.binary_dilation(~inside)
    for hole in range(1, holes + 1):
        pixels = background == hole
        ring = ndimage.binary_dilation(pixels) & ~pixels
        around = set(ids[ring].tolist())
        edge = np.zeros_like(pixels)
        edge[[0, -1], :] = edge[:, [0, -1]] = True
        if len(around) == 1 and not (pixels & (edge | beside_outside)).any():
            ids[pixels] = around.pop()
    cut = np.zeros(count + 1, bool)
    cut[np.unique(ids[beside_outside & (ids > 0)])] = True
    return ids, cut


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    density=st.floats(0.2, 0.8),
    block=st.sampled_from([16, 32, 64]),
    gap=st.sampled_from([0, 2]),
)
def test_objects_are_those_of_the_masked_image(
    tmp_path_factory: pytest.TempPathFactory, seed: int, density: float, block: int, gap: int
) -> None:
    rng = np.random.default_rng(seed)
    side = 64
    smooth = ndimage.gaussian_filter(rng.random((side, side)), 1.5)
    classes = (smooth < np.quantile(smooth, density)).astype(np.uint8)
    area = ndimage.gaussian_filter(rng.random((side, side)), 6)
    inside = area < np.quantile(area, 0.6)
    slide = write_slide(tmp_path_factory.mktemp("masked") / "s.zarr", classes, "yx")
    add_label(slide, "roi", inside.astype(np.uint8) * 3)
    model = identity_model(2)
    model.card = replace(model.card, gap=gap)
    segment_image(slide, model, name="o", save=("objects",), fill_holes=True, mask="roi",
                  tile=16, block=block, device="cpu")  # fmt: skip
    ids, cut = brute_force(classes, inside, gap)
    np.testing.assert_array_equal(read_label(slide, "o"), ids)
    flags = np.asarray(zarr.open_array(slide / "labels" / "o" / "cut", mode="r")[:])
    np.testing.assert_array_equal(flags.astype(bool), cut)
    table = measure_objects(slide, "o", slide.parent / "o.csv")
    with Path(table.path).open(newline="") as file:
        rows = {int(row["id"]): row["cut"] for row in csv.DictReader(file)}
    assert rows == {i: str(int(cut[i])) for i in range(1, cut.size)}


@pytest.mark.parametrize("save", [("classes",), ("objects",)])
def test_a_masked_run_goes_on(slide: Path, tmp_path: Path, save: tuple[str, ...]) -> None:
    model = tmp_path / "m.pt"
    save_model(random_model(1), model, name="m")
    options: dict[str, Any] = {"tile": 16, "block": 16, "save": save, "mask": "roi", "name": "m"}
    whole = Path(shutil.copytree(slide, tmp_path / "whole.zarr"))
    segment_image(whole, model, **options)
    chunk = slide / "s0" / "c" / "1" / "1"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:9])
    with pytest.raises(RunError, match="goes on"):
        segment_image(slide, model, **options)
    chunk.write_bytes(good)
    (ledger,) = (slide / "labels" / ".bigunet-m").glob("*.run")
    record = read_ledger(ledger)
    assert record is not None and record.done and record.skipped
    made = segment_image(slide, model, **options)
    assert made.blocks["resumed"] == len(record.done)
    assert made.blocks["skipped"] == len(record.skipped)
    assert files(slide / "labels" / "m") == files(whole / "labels" / "m")


def test_another_mask_is_another_run(slide: Path, tmp_path: Path) -> None:
    model = random_model(1)
    options: dict[str, Any] = {"tile": 16, "block": 16, "save": ("classes",), "name": "m"}
    chunk = slide / "s0" / "c" / "1" / "1"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:9])
    with pytest.raises(RunError):
        segment_image(slide, model, mask="roi", **options)
    chunk.write_bytes(good)
    with pytest.raises(InputError, match="mask was 'roi' and is None"):
        segment_image(slide, model, **options)
    array = zarr.open_array(slide / "labels" / "roi" / "0", mode="r+")
    array[56:64, 20:30] = 0
    with pytest.raises(InputError, match="has changed since"):
        segment_image(slide, model, mask="roi", **options)


@pytest.fixture
def tissue_slide(tmp_path: Path) -> Path:
    """Return a slide whose left part holds something, with a model beside it."""
    pixels = np.full((512, 768), 8, np.uint8)
    pixels[100:400, 100:350] += random_image((300, 250), np.uint8) // 2
    save_model(random_model(2), tmp_path / "m.pt", name="m")
    return write_slide(tmp_path / "t.zarr", pixels, "yx", chunk=128, levels=3)


def test_tissue_is_found_and_kept(tissue_slide: Path, tmp_path: Path) -> None:
    line = ["segment", tissue_slide, "--model", tmp_path / "m.pt", "--save", "classes",
            "--tile", "64", "--block", "64", "--json"]  # fmt: skip
    done = run(*line, "--mask", "auto")
    assert done.exit_code == 0, done.stderr
    blocks = json.loads(done.stdout)["blocks"]
    assert blocks["skipped"] > 20 and blocks["computed"] + blocks["skipped"] == blocks["total"]
    assert "mask tissue: " in done.stderr and "% of the slide" in done.stderr
    assert is_listed(tissue_slide, "tissue") and is_listed(tissue_slide, "m")
    again = run(*line, "--mask", "tissue", "--name", "again")
    assert again.exit_code == 0, again.stderr
    np.testing.assert_array_equal(read_label(tissue_slide, "again"), read_label(tissue_slide, "m"))
    plan = run(*line, "--mask", "auto", "--name", "third", "--dry-run")
    assert plan.exit_code == 0 and "tissue" in str(json.loads(plan.stdout)["mask"])


def test_what_is_no_mask_is_refused(slide: Path, tissue_slide: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="roi"):
        segment_image(slide, random_model(2), mask="nothing")
    add_label(tissue_slide, "empty", np.zeros((512, 768), np.uint8))
    before = files(tissue_slide)
    with pytest.raises(InputError, match=r"no pixel of the mask empty"):
        segment_image(tissue_slide, random_model(2), mask="empty", save=("classes",))
    assert files(tissue_slide) == before
    with pytest.raises(InputError, match="cannot be the mask and the result"):
        segment_image(slide, random_model(2), name="tissue", mask="auto")
    flat = write_slide(tmp_path / "flat.zarr", np.zeros((200, 200), np.uint8), "yx")
    with pytest.raises(InputError, match="no tissue was found"):
        segment_image(flat, random_model(2), mask="auto", save=("classes",))
