"""What cannot work: one line on stderr, exit code 2, and not a byte changed."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from commands import edit, refused, run, tree
from slides import is_listed, write_slide
from strategies import random_image, random_model

from bigunet import save_model
from bigunet.models.unet import UNet


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = random_image((2, 96, 80), np.uint8)
    return write_slide(tmp_path / "slide.zarr", pixels, "cyx", chunk=32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(random_model(1, channels=2), tmp_path / "unet.pt")
    return tmp_path / "unet.pt"


# Images


def edit_level(slide: Path, **facts: Any) -> None:
    edit(slide / "s0" / "zarr.json", lambda content: content.update(facts))


def edit_path(slide: Path, path: Any) -> None:
    def change(content: Any) -> None:
        content["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = path

    edit(slide / "zarr.json", change)


def rewrite(slide: Path, pixels: np.ndarray) -> None:
    zarr.create_array(slide / "s0", data=pixels, overwrite=True)


def no_multiscales(slide: Path) -> None:
    edit(slide / "zarr.json", lambda content: content["attributes"].clear())


def link_level(slide: Path) -> None:
    (slide / "s0").rename(slide.parent / "elsewhere")
    (slide / "s0").symlink_to(slide.parent / "elsewhere")


def leave_store(slide: Path) -> None:
    shutil.copytree(slide / "s0", slide.parent / "elsewhere")
    edit_path(slide, "../elsewhere")


def large_chunk(slide: Path) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 2**20, 2**20]}}
    edit_level(slide, shape=[2, 2**20, 2**20], chunk_grid=grid)


BROKEN_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "does not exist"),
    "no Zarr": (lambda s: [f.unlink() for f in s.rglob("zarr.json")], "is not a Zarr"),
    "no multiscales": (no_multiscales, "without multiscales"),
    "no JSON": (lambda s: (s / "zarr.json").write_text('{"zarr_format": 3'), "JSON"),
    "empty metadata": (lambda s: (s / "zarr.json").write_text(""), "JSON"),
    "metadata are a list": (lambda s: (s / "zarr.json").write_text("[]"), "JSON"),
    "level gone": (lambda s: shutil.rmtree(s / "s0"), "level 's0' is missing"),
    "level is broken": (lambda s: edit_level(s, codecs=[{"name": "x"}]), "level 's0' is broken"),
    "complex": (lambda s: rewrite(s, np.zeros((2, 96, 80), complex)), "complex128"),
    "boolean": (lambda s: rewrite(s, np.zeros((2, 96, 80), bool)), "bool"),
    "no pixels": (lambda s: edit_level(s, shape=[2, 0, 80]), "2 × 0 × 80"),
    "no channels": (lambda s: edit_level(s, shape=[0, 96, 80]), "0 × 96 × 80"),
    "negative shape": (lambda s: edit_level(s, shape=[2, -96, 80]), "level 's0'"),
    "other axes": (lambda s: rewrite(s, np.zeros((96, 80), np.uint8)), "has 2 axes"),
    "absurd shape": (lambda s: edit_level(s, shape=[2, 2**40, 2**40]), "chunks in a plane"),
    "level path ..": (leave_store, "leaves the store"),
    "level path /": (lambda s: edit_path(s, "/etc"), "leaves the store"),
    "level path C:": (lambda s: edit_path(s, r"C:\data"), "leaves the store"),
    "level path number": (lambda s: edit_path(s, 7), "no path but 7"),
    "level is a link": (link_level, "leaves the store"),
    "large chunk": (large_chunk, "decodes to 1,099.51 GB"),
}


@pytest.mark.parametrize("kind", BROKEN_IMAGES)
@pytest.mark.parametrize("command", ["segment", "dry run"])
def test_images(tmp_path: Path, slide: Path, model: Path, kind: str, command: str) -> None:
    breaks, says = BROKEN_IMAGES[kind]
    breaks(slide)
    dry = ["--dry-run"] if command == "dry run" else []
    line = refused(tmp_path, "segment", slide, "--model", model, *dry)
    assert says in line and "slide.zarr" in line


def test_a_file_and_an_address_are_no_images(tmp_path: Path, model: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for given, says in (
        (tmp_path / "notes.txt", "pass the folder"),
        ("https://example.org/slide.zarr", "copy it first"),
        ("", "Error"),
    ):
        assert says in refused(tmp_path, "segment", given, "--model", model)


def test_a_chunk_that_is_a_link_out_of_the_store_is_not_read(slide: Path, model: Path) -> None:
    """Only reading finds it, so this began and could not finish."""
    chunk = slide / "s0" / "c" / "0" / "1" / "1"
    chunk.rename(slide.parent / "elsewhere")
    chunk.symlink_to(slide.parent / "elsewhere")
    done = run("segment", slide, "--model", model)
    assert done.exit_code == 1 and not done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and "leaves the store" in last and "(0, 1, 1)" in last
    assert not is_listed(slide, "unet")


# Models


class Trap:
    """Creates a file where it is unpickled."""

    def __init__(self, bait: Path) -> None:
        self.bait = bait

    def __reduce__(self) -> Any:
        return Path.touch, (self.bait,)


def torch_bytes(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


BROKEN_MODELS: dict[str, Callable[[bytes, Path], bytes]] = {
    "empty": lambda whole, bait: b"",
    "truncated early": lambda whole, bait: whole[:100],
    "truncated": lambda whole, bait: whole[: len(whole) // 2],
    "truncated late": lambda whole, bait: whole[:-1],
    "text": lambda whole, bait: b"weights of a network",
    "pickled": lambda whole, bait: pickle.dumps(Trap(bait)),
    "pickled by torch": lambda whole, bait: torch_bytes({"format": Trap(bait)}),
    "pickled by old torch": lambda whole, bait: torch_bytes(
        Trap(bait), _use_new_zipfile_serialization=False
    ),
    "whole module": lambda whole, bait: torch_bytes(UNet(1, 2, width=1, depth=1)),
    "foreign weights": lambda whole, bait: torch_bytes(torch.nn.Conv2d(1, 1, 3).state_dict()),
}


@pytest.mark.parametrize("kind", BROKEN_MODELS)
def test_models(tmp_path: Path, slide: Path, model: Path, kind: str) -> None:
    bait = tmp_path / "was unpickled"
    broken = tmp_path / "broken.pt"
    broken.write_bytes(BROKEN_MODELS[kind](model.read_bytes(), bait))
    assert "broken.pt" in refused(tmp_path, "segment", slide, "--model", broken)
    assert "broken.pt" in refused(tmp_path, "info", broken)
    assert not bait.exists()


def test_a_model_that_is_not_there_or_a_folder(tmp_path: Path, slide: Path) -> None:
    assert "no.pt" in refused(tmp_path, "segment", slide, "--model", tmp_path / "no.pt")
    assert "nobody" in refused(tmp_path, "segment", slide, "--model", "nobody")
    assert str(tmp_path) in refused(tmp_path, "segment", slide, "--model", tmp_path)


def test_wrong_number_of_channels(tmp_path: Path, slide: Path) -> None:
    for channels in (1, 3):
        other = tmp_path / f"{channels}.pt"
        save_model(random_model(1, channels), other)
        line = refused(tmp_path, "segment", slide, "--model", other)
        assert f"takes {channels} channel" in line and "2 channels" in line
        assert "0 'channel 0', 1 'channel 1'" in line


# Options

BAD_OPTIONS = {
    "--level 2": "levels 0 to 1",
    "--level -1": "--level",
    "--channels 0,5": "'channel 1'",
    "--channels 0,GFP": "'channel 1'",
    "--channels 0": "1 channel chosen",
    "--channels -1,0": "negative",
    "--block -64": "--block",
    "--block 0": "--block",
    "--tile -1": "--tile",
    "--tile 1e3": "--tile",
    "--region -5:10,0:10": "negative",
    "--region 0:97,0:10": "rows 0:96",
    "--region 10:5,0:10": "--region",
    "--region 5:5,0:10": "--region",
    "--memory-limit -1GB": "--memory-limit",
    "--memory-limit 0": "--memory-limit",
    "--memory-limit 1MB": "1.0 MB are allowed",
    "--memory-limit nan": "--memory-limit",
    "--workers -1": "--workers",
    "--pixel-size -0.5": "--pixel-size",
    "--pixel-size nan": "pixel",
    "--intensity 9,1": "--intensity",
    "--intensity nan,1": "--intensity",
    "--intensity 0,1 --intensity 0,1 --intensity 0,1": "3 intensity limits for 2 channels",
    "--name ../evil": "'../evil'",
    "--name .": "'.'",
    "--name zarr.json": "zarr.json",
    "--save outlines": "--save",
    "--min-area 20": "min_area is for objects: add them, --save objects",
    "--save objects --min-area -3": "min_area '-3' is no size",
    "--save objects --min-area 20um": "min_area '20um' is no size",
    "--save objects --min-area 20um2 --max-area 10um2": "no object is left",
    "--save objects --split distance": "max_diameter",
    "--save objects --max-diameter 30": "give both or neither",
    "--save objects --split distance --max-diameter 0": "max_diameter 0",
    "--save probabilities": "--output",
    "--device tpu": "--device",
    "--precision float8": "--precision",
    "--augment d8": "--augment",
    "--scheduler nowhere": "nowhere",
    "--scheduler tcp://127.0.0.1:1": "no Dask scheduler answers",
    "--overlap both": "--overlap",
    "--nonsense": "--nonsense",
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_options(
    tmp_path: Path, slide: Path, model: Path, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigunet.cluster.connect.CONNECT_SECONDS", 1)
    line = refused(tmp_path, "segment", slide, "--model", model, *options.split())
    assert BAD_OPTIONS[options] in line


@pytest.mark.parametrize(
    "line",
    ["segment", "segment a.zarr", "sample new.zarr --size -8", "verify a --windows -1", "nonsense"],
)
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--help" in refused(tmp_path, *line.split())


# Several images


def test_the_good_ones_go_on_and_the_bad_are_listed_at_the_end(tmp_path: Path, model: Path) -> None:
    pixels = random_image((2, 96, 80), np.uint8)
    first, last = (write_slide(tmp_path / name, pixels, "cyx") for name in ("a.zarr", "z.zarr"))
    broken = write_slide(tmp_path / "b.zarr", pixels.astype(complex), "cyx")
    missing = tmp_path / "missing.zarr"
    before = tree(broken)
    images = missing, first, broken, last
    done = run("segment", *images, "--model", model, "-q")
    assert done.exit_code == 1
    *_, title, one, two = done.stderr.splitlines()
    assert title == "2 of 4 images failed:"
    assert one.startswith(f"  {missing}: ") and "does not exist" in one
    assert two.startswith(f"  {broken}: ") and "complex128" in two
    assert "Traceback" not in done.stderr
    assert is_listed(first, "unet") and is_listed(last, "unet")
    assert tree(broken) == before and not missing.exists()
    for path in (first, last):
        assert str(path / "labels" / "unet") in done.stdout
