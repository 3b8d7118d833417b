"""Going on: the same bytes as an undisturbed run, nothing on record made twice, and no mix-ups."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from slides import files, is_listed, read_label, write_slide
from strategies import random_image, random_model

from bigunet import save_model, segment_image, work
from bigunet.cluster import tasks
from bigunet.errors import (
    BigunetError,
    DeviceMemoryError,
    InputError,
    OutputExistsError,
    RunError,
)
from bigunet.images.labels import label_names, unfinished_run
from bigunet.images.open import open_image
from bigunet.images.output import Output
from bigunet.ledger import Ledger, read_ledger
from bigunet.status import image_status

SIDE, BLOCK = 192, 32
BLOCKS = (SIDE // BLOCK) ** 2
SETTINGS: dict[str, Any] = {"tile": BLOCK, "block": BLOCK, "device": "cpu", "name": "nuclei"}
KINDS: dict[str, dict[str, Any]] = {
    "classes": {"save": ("classes",)},
    "objects": {"save": ("objects", "classes"), "fill_holes": True},
    "split": {"save": ("objects",), "split": "distance", "max_diameter": 20},
    "overlap": {"save": ("classes",), "overlap": "map_overlap"},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide and its two models."""
    folder = tmp_path_factory.mktemp("source")
    pixels = random_image((SIDE, SIDE), np.uint8)
    write_slide(folder / "slide.zarr", pixels, "yx", chunk=64)
    for seed, name in enumerate(("model", "other")):
        save_model(random_model(1, seed=seed), folder / f"{name}.pt", name="nuclei")
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, bytes]]:
    """Return the files of a kind of run that nothing disturbed, made once."""
    made: dict[str, dict[str, bytes]] = {}

    def of(kind: str) -> dict[str, bytes]:
        if kind not in made:
            slide = copied(source, tmp_path_factory.mktemp(kind))
            segment_image(slide, source / "model.pt", **SETTINGS, **KINDS[kind])
            made[kind] = files(slide / "labels")
        return made[kind]

    return of


@pytest.fixture(scope="module")
def halted(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Path], tuple[Path, int]]:
    """Return a copy of a slide whose run failed, made once a kind, and how many blocks are done."""
    made: dict[str, tuple[Path, int]] = {}

    def of(kind: str, folder: Path) -> tuple[Path, int]:
        if kind not in made:
            slide = copied(source, tmp_path_factory.mktemp(f"halted-{kind}"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tasks, "PAUSES", ())
                made[kind] = slide, stopped(slide, source / "model.pt", kind)
        slide, done = made[kind]
        return Path(shutil.copytree(slide, folder / "slide.zarr")), done

    return of


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "PAUSES", ())


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source / "slide.zarr", folder / "slide.zarr"))


def broken_chunk(slide: Path, place: str) -> Callable[[], None]:
    """Damage a chunk of the slide; returns what mends it."""
    chunk = slide / "s0" / "c" / place
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:20])
    return lambda: (chunk.write_bytes(whole), None)[1]


def refusing(write_window: Callable[..., None]) -> Callable[..., None]:
    """Return the same but for rows from 96 on, which cannot be written."""

    def write(output: Output, level: int, index: tuple[int, ...], y: slice, *rest: Any) -> None:
        if y.start >= 96:
            raise RunError("no room")
        write_window(output, level, index, y, *rest)

    return write


def stopped(slide: Path, model: Path, kind: str, place: str = "1/1", **more: Any) -> int:
    """Let a run fail at a broken chunk, mend that, and return how many blocks are on record."""
    mend = broken_chunk(slide, place) if "overlap" not in KINDS[kind] else lambda: None
    with pytest.raises(RunError, match="the same command goes on"):
        segment_image(slide, model, **SETTINGS | KINDS[kind] | more)
    mend()
    record = unfinished_run(open_image(slide), name="nuclei")
    assert record is not None and 0 < len(record.done) < BLOCKS
    assert len(record.done) + len(record.failed) == record.blocks == BLOCKS
    return len(record.done)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_made_and_no_more(
    source: Path,
    tmp_path: Path,
    undisturbed: Callable[[str], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    if kind == "overlap":
        # With map_overlap a broken chunk stops all that follows, so this one is not read but written.
        monkeypatch.setattr(work, "write_window", refusing(work.write_window))
        done = stopped(slide, model, kind)
        monkeypatch.undo()
    else:
        done = stopped(slide, model, kind)
    assert not is_listed(slide, "nuclei")
    made = segment_image(slide, model, **SETTINGS, **KINDS[kind])
    assert made.blocks == {
        "total": BLOCKS,
        "computed": BLOCKS - done,
        "resumed": done,
        "skipped": 0,
        "failed": 0,
    }
    assert files(slide / "labels") == undisturbed(kind)


def test_several_stops_one_after_another(
    source: Path, tmp_path: Path, undisturbed: Callable[[str], dict[str, bytes]]
) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    mend = broken_chunk(slide, "2/2")
    first = stopped(slide, model, "objects")
    with pytest.raises(RunError, match=r"chunk \(2, 2\)"):
        segment_image(slide, model, **SETTINGS, **KINDS["objects"])
    record = unfinished_run(open_image(slide), name="nuclei")
    assert record is not None
    second = len(record.done)
    mend()
    made = segment_image(slide, model, **SETTINGS, **KINDS["objects"])
    assert made.blocks["resumed"] == second > first
    assert files(slide / "labels") == undisturbed("objects")


@settings(max_examples=6)
@given(data=st.data())
def test_a_flipped_byte_is_noticed_and_made_again(
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
    undisturbed: Callable[[str], dict[str, bytes]],
    halted: Callable[[str, Path], tuple[Path, int]],
    data: st.DataObject,
) -> None:
    kind = data.draw(st.sampled_from(["classes", "objects"]))
    folder, model = tmp_path_factory.mktemp("flipped"), source / "model.pt"
    slide, done = halted(kind, folder)
    stored = sorted(
        path
        for path in (slide / "labels").rglob("*")
        if path.suffix == ".npz" or (path.is_file() and "c" in path.parts[-3:-1])
    )
    victim = data.draw(st.sampled_from(stored))
    content = bytearray(victim.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    victim.write_bytes(content)
    made = segment_image(slide, model, **SETTINGS, **KINDS[kind])
    # Some bytes of a zip, and of Zstandard's headers, mean nothing: then pixels are as written.
    assert made.blocks["resumed"] in (done, done - 1)
    whole = copied(source, folder / "whole")
    shutil.rmtree(whole / "labels", ignore_errors=True)
    for name, content in undisturbed(kind).items():
        path = whole / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in label_names("nuclei", KINDS[kind]["save"]).values():
        np.testing.assert_array_equal(read_label(slide, name), read_label(whole, name))


@pytest.mark.parametrize("damage", [b"", b"no shard", None])
def test_a_damaged_shard_is_noticed_and_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    monkeypatch.setattr("bigunet.cutting._LARGEST_CHUNK", 16)
    pixels = random_image((SIDE, SIDE - 40), np.uint8)
    slide, whole = (
        write_slide(tmp_path / name, pixels, "yx", chunk=32, shard=64)
        for name in ("slide.zarr", "whole.zarr")
    )
    model, asked = source / "model.pt", SETTINGS | {"save": ("classes",), "tile": 16}
    segment_image(whole, model, **asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "write_window", refusing(work.write_window))
        with pytest.raises(RunError, match="the same command goes on"):
            segment_image(slide, model, **asked)
    record = unfinished_run(open_image(slide), name="nuclei")
    assert record is not None
    # At the edge of the plane, where a shard is not full.
    shard = slide / "labels" / "nuclei" / "0" / "c" / "1" / "4"
    shard.write_bytes(shard.read_bytes()[:-1] if damage is None else damage)
    made = segment_image(slide, model, **asked)
    assert made.blocks["resumed"] == len(record.done) - 1
    assert files(slide / "labels") == files(whole / "labels")


@pytest.mark.parametrize(
    ("model", "changed", "said"),
    [
        ("model.pt", {"tile": 16}, r"tile was \[32, 32\] and is \[16, 16\]"),
        ("model.pt", {"block": 64}, r"block was \[32, 32\] and is \[64, 64\]"),
        ("model.pt", {"augment": "d4"}, "augment was 'none' and is 'd4'"),
        ("model.pt", {"precision": "bfloat16"}, "precision was 'float32' and is 'bfloat16'"),
        ("model.pt", {"region": ((0, 96), (0, 192))}, "region was None and is"),
        ("model.pt", {"min_area": 9}, "objects min_area was 0 and is 9"),
        ("other.pt", {}, "model digest was '[0-9a-f]+' and is '[0-9a-f]+'"),
    ],
)
def test_other_settings_are_refused_and_named(
    source: Path,
    tmp_path: Path,
    halted: Callable[[str, Path], tuple[Path, int]],
    model: str,
    changed: dict[str, Any],
    said: str,
) -> None:
    slide, done = halted("objects", tmp_path)
    before = files(slide)
    asked = SETTINGS | KINDS["objects"] | changed
    with pytest.raises(InputError, match=said) as caught:
        segment_image(slide, source / model, **asked)
    assert f"{done} of {BLOCKS} blocks" in str(caught.value)
    assert "--overwrite" in str(caught.value) and "\n" not in str(caught.value)
    assert files(slide) == before
    made = segment_image(slide, source / model, **asked, overwrite=True)
    assert made.blocks["resumed"] == 0 and is_listed(slide, "nuclei")


def test_a_run_of_a_version_that_recorded_less_is_refused_in_a_line(
    source: Path, tmp_path: Path
) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    done = stopped(slide, model, "classes")
    (path,) = slide.rglob("*.run")
    record = read_ledger(path)
    assert record is not None
    known = {key: value for key, value in record.settings.items() if key != "runtime"}
    Ledger(path, replace(record, settings=known)).close()
    with pytest.raises(InputError, match=rf"{done} of {BLOCKS} blocks.*runtime was .*overwrite"):
        segment_image(slide, model, **SETTINGS, **KINDS["classes"])


def test_pixels_that_changed_are_refused(source: Path, tmp_path: Path) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    stopped(slide, model, "classes")
    array = zarr.open_array(slide / "s0", mode="r+")
    # In the halo of a block that is done, and in no pixel of its own.
    array[33, 3] = 255 - np.asarray(array[33, 3])
    before = files(slide)
    with pytest.raises(InputError, match=r"has changed since .*block rows 0:32, columns 0:32"):
        segment_image(slide, model, **SETTINGS, **KINDS["classes"])
    assert files(slide) == before
    made = segment_image(slide, model, **SETTINGS, **KINDS["classes"], overwrite=True)
    assert made.blocks["resumed"] == 0


def test_what_was_left_open_is_as_it_was(
    source: Path, tmp_path: Path, undisturbed: Callable[[str], dict[str, bytes]]
) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    done = stopped(slide, model, "classes")
    made = segment_image(slide, model, name="nuclei", **KINDS["classes"], workers=1)
    assert made.blocks["resumed"] == done
    assert files(slide / "labels") == undisturbed("classes")


def test_overwrite_begins_anew_but_goes_on_with_a_replacement(source: Path, tmp_path: Path) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    stopped(slide, model, "classes")
    asked = SETTINGS | KINDS["classes"]
    assert segment_image(slide, model, **asked, overwrite=True).blocks["resumed"] == 0
    with pytest.raises(OutputExistsError):
        segment_image(slide, model, **asked)
    old = files(slide / "labels" / "nuclei")
    done = stopped(slide, source / "other.pt", "classes", overwrite=True)
    assert files(slide / "labels" / "nuclei") == old
    with pytest.raises(OutputExistsError):
        segment_image(slide, source / "other.pt", **asked)
    made = segment_image(slide, source / "other.pt", **asked, overwrite=True)
    assert made.blocks["resumed"] == done
    assert files(slide / "labels" / "nuclei") != old


def test_nothing_on_record_is_nothing_to_lose(source: Path, tmp_path: Path) -> None:
    slide = copied(source, tmp_path)
    mends = [broken_chunk(slide, f"{y}/{x}") for y in range(3) for x in range(3)]
    with pytest.raises(RunError):
        segment_image(slide, source / "model.pt", **SETTINGS)
    for mend in mends:
        mend()
    made = segment_image(slide, source / "other.pt", **SETTINGS | {"tile": 64, "block": 64})
    assert made.blocks["resumed"] == 0


def test_an_output_of_its_own_goes_on_too(source: Path, tmp_path: Path) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    asked = SETTINGS | {"save": ("probabilities", "objects")}
    segment_image(slide, model, **asked, output=tmp_path / "whole.zarr")
    mend = broken_chunk(slide, "1/1")
    with pytest.raises(RunError):
        segment_image(slide, model, **asked, output=tmp_path / "out.zarr")
    mend()
    (left,) = image_status(tmp_path / "out.zarr").labels
    assert left.blocks is not None and left.blocks["done"] > 0
    made = segment_image(slide, model, **asked, output=tmp_path / "out.zarr")
    assert made.blocks["resumed"] == left.blocks["done"]
    assert files(tmp_path / "out.zarr") == files(tmp_path / "whole.zarr")


def test_status(source: Path, tmp_path: Path) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    empty = run("status", slide)
    assert empty.exit_code == 0 and "no results of bigunet" in empty.stdout
    done = stopped(slide, model, "objects")
    said = run("status", slide).stdout
    assert f"nuclei, nuclei-classes: unfinished, model nuclei: {done} of {BLOCKS} blocks" in said
    assert "block rows" in said and "cannot read chunk (1, 1)" in said
    (found,) = json.loads(run("status", slide, "--json").stdout)["results"]
    failed = BLOCKS - done
    assert found["blocks"] == {"total": BLOCKS, "done": done, "skipped": 0, "failed": failed}
    assert len(found["failures"]) == failed and found["state"] == "unfinished"
    segment_image(slide, model, **SETTINGS, **KINDS["objects"])
    said = run("status", slide).stdout
    assert said.splitlines() == [
        "nuclei: complete, model nuclei",
        "nuclei-classes: complete, model nuclei",
    ]
    missing = run("status", tmp_path / "none.zarr")
    assert missing.exit_code == 2 and missing.stderr.startswith("Error: ")


def test_errors_of_a_run_that_goes_on_are_still_errors(source: Path, tmp_path: Path) -> None:
    slide, model = copied(source, tmp_path), source / "model.pt"
    stopped(slide, model, "classes")
    mend = broken_chunk(slide, "0/0")
    # Blocks on record are read again: that their pixels cannot be read is said, not believed.
    with pytest.raises(BigunetError, match=r"cannot read chunk \(0, 0\)"):
        segment_image(slide, model, **SETTINGS, **KINDS["classes"])
    mend()
    assert segment_image(slide, model, **SETTINGS, **KINDS["classes"]).blocks["resumed"] > 0


def test_a_full_device_stops_the_run_at_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, tried = copied(source, tmp_path), []

    def full(*_: Any, **__: Any) -> None:
        tried.append(1)
        raise DeviceMemoryError("a tile of 32 x 32 px does not fit; pass --tile 16")

    monkeypatch.setattr(work, "predict_block", full)
    with pytest.raises(RunError, match=r"--tile 16 \(block rows .*not listed"):
        segment_image(slide, source / "model.pt", **SETTINGS, scheduler="sync")
    assert len(tried) == 1
