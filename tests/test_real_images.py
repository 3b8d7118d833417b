"""Every real image that is here is segmented, or refused with a line that says what to do."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import torch
import zarr
from click.testing import CliRunner
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Reader
from slides import files, is_listed
from strategies import assert_same_classes, random_model, whole_image_scores

from bigunet import save_model, segment_image
from bigunet.cli.main import main
from bigunet.errors import InputError
from bigunet.images.open import Image, image_planes, open_image
from bigunet.models.unet import UNet


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """The image is segmented; a model of fewer channels is refused with the list of them."""

    axes: str
    channels: int = 1
    levels: int
    at: str = ""
    """Path from the store to the image, where the store is opened as its one image."""
    kept: tuple[str, ...] = ()
    """Labels of others that stay as they are."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The file is refused; the line says this."""

    says: str


@dataclass(frozen=True, kw_only=True)
class Holds:
    """The file holds several images: refused with their paths, of which one is then segmented."""

    paths: tuple[str, ...]
    image: Segmented


# ome-zarr-py's reader follows a label to its image, which may have old writers' habits.
pytestmark = pytest.mark.filterwarnings("ignore:Found an empty list of filters")

OUTCOMES: dict[str, Segmented | Refused | Holds] = {
    "bare_array_sharded_v3.zarr": Refused(says="plain Zarr array and not an OME-Zarr image"),
    "invalid_level_array_missing.zarr": Refused(says="level '0' is missing"),
    "invalid_level_rank_mismatch.zarr": Refused(says="level '1' has 2 axes and the image 3"),
    "v01_bf2raw_c3_int8.zarr": Segmented(axes="tczyx", channels=3, levels=2, at="0"),
    "v01_tczyx.zarr": Segmented(axes="tczyx", channels=2, levels=1),
    "v04_bf2raw_two_series.zarr": Holds(paths=("0", "1"), image=Segmented(axes="tczyx", levels=2)),
    "v04_cardio_mip_labels.zarr": Segmented(axes="czyx", channels=3, levels=3, kept=("nuclei",)),
    "v04_coins_labels.ome.zarr": Segmented(axes="yx", levels=4, kept=("coins",)),
    "v04_cyx.ome.zarr": Segmented(axes="cyx", channels=3, levels=2),
    "v04_czyx.ome.zarr": Segmented(axes="czyx", channels=3, levels=2),
    "v04_hcs_plate_2wells.zarr": Holds(
        paths=("A/1/0", "B/1/0"), image=Segmented(axes="tczyx", levels=2)
    ),
    "v04_hcs_plate_no_chunks.zarr": Holds(
        paths=("A/1/0", "A/2/0", "B/1/0", "B/2/0"), image=Segmented(axes="yx", levels=1)
    ),
    "v04_large_zyx_sparse.zarr": Segmented(axes="zyx", levels=3),
    "v04_no_chunks.zarr": Segmented(axes="yx", levels=1),
    "v04_nuclei_plk1_control.ome.zarr": Segmented(axes="tczyx", levels=3),
    "v04_spatialdata_blobs.zarr": Holds(
        paths=("images/blobs_image", "images/blobs_multiscale_image"),
        image=Segmented(axes="cyx", channels=3, levels=3),
    ),
    "v04_tczyx.ome.zarr": Segmented(axes="tczyx", channels=3, levels=2),
    "v04_yx.ome.zarr": Segmented(axes="yx", levels=2),
    "v04_yx_float64_labels_empty.zarr": Segmented(axes="yx", levels=1),
    "v04_zyx.ome.zarr": Segmented(axes="zyx", levels=2),
    "v05_astronaut_rgb_labels.ome.zarr": Segmented(
        axes="cyx", channels=3, levels=5, kept=("circles",)
    ),
    "v05_cyx.ome.zarr": Segmented(axes="cyx", channels=3, levels=2),
    "v05_nested_level_paths.zarr": Segmented(axes="yx", levels=3),
    "v05_nested_level_paths.zip": Refused(says="zipped Zarr, which is not read: unzip it"),
    "v05_single_level.ome.zarr": Segmented(axes="yx", levels=1),
    "v05_tczyx.ome.zarr": Segmented(axes="tczyx", channels=3, levels=2),
    "v05_tyx.ome.zarr": Segmented(axes="tyx", levels=2),
    "v05_tzyx.ome.zarr": Segmented(axes="tzyx", levels=2),
    "v05_yx.ome.zarr": Segmented(axes="yx", levels=2),
    "v06dev_zyx.zarr": Refused(says="'0.6.dev1' is not read, 0.1 to 0.5 are"),
}
# 500 planes of a megapixel would take minutes; level 2 has 250 of 250 × 250.
OPTIONS: dict[str, dict[str, Any]] = {"v04_large_zyx_sparse.zarr": {"level": 2}}
SLIDES = {
    "CMU-1-Small-Region.svs",
    "fluorescence_2ch.tif",
    "he_tma_core.ome.tif",
    "multi-channel.ome.tif",
    "si07ba_s01_052.tif",
    "si07ba_s01_053.tif",
    "si07ba_s01_054.tif",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "unet.pt"
    save_model(random_model(1), path)
    return path


def names(kind: type) -> list[str]:
    return [name for name, outcome in OUTCOMES.items() if isinstance(outcome, kind)]


def copied(source: Path, folder: Path) -> Path:
    """Copy a store, or a file, that is kept read-only."""
    if source.is_file():
        return Path(shutil.copyfile(source, folder / source.name))
    copy = Path(shutil.copytree(source, folder / source.name, copy_function=shutil.copyfile))
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def refusal(path: Path, model: Path) -> str:
    """Return the one line that the command says before it has written anything."""
    before = files(path) if path.is_dir() else {}
    done = CliRunner().invoke(main, ["segment", str(path), "--model", str(model)])
    assert done.exit_code == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and str(path) in line
    assert (files(path) if path.is_dir() else {}) == before
    return line


def assert_segmented(path: Path, expected: Segmented, model: Path, **options: Any) -> None:
    image = open_image(path)
    assert image.path == path / expected.at
    assert (image.axis_names, len(image.levels)) == (expected.axes, expected.levels)
    if expected.channels > 1:
        line = refusal(path, model)
        assert "--channels" in line
        for channel in image.channels:
            assert f"{channel.index} {channel.name!r}" in line
    before = files(path)
    level = options.get("level", 0)
    network = balanced_model(image, level)
    result = segment_image(path, network, device="cpu", **options)
    label = image.path / "labels" / "unet"
    assert result.outputs == {"classes": label}
    assert_pixels(label, image, network, level)
    assert_readable(label, image, expected)
    assert placement(open_image(label), 0) == placement(image, level)
    assert_rest_unchanged(before, path, label)


def some_planes(image: Image, level: int) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Read the middle plane, the first and the last, each once."""
    planes = image_planes(image, level, tuple(range(len(image.channels))))
    chosen = dict.fromkeys((len(planes) // 2, 0, len(planes) - 1))
    return [(planes[i].index, planes[i].read(slice(None), slice(None))) for i in chosen]


def balanced_model(image: Image, level: int) -> UNet:
    """Return a network that finds both classes in the middle plane, unless that is constant."""
    (_, pixels), *_ = some_planes(image, level)
    for seed in range(9):
        network = random_model(1, len(image.channels), seed=seed)
        scores = whole_image_scores(pixels, network)
        lead = scores[0] - scores[1]
        if np.ptp(lead) > 0:
            break
    with torch.no_grad():
        network.head.bias[1] += (float(lead.min()) + float(lead.max())) / 2
    return network


def assert_pixels(label: Path, image: Image, network: UNet, level: int) -> None:
    """Compare some planes, whole, with one forward pass."""
    stored = zarr.open_array(label / "0", mode="r")
    planes = some_planes(image, level)
    for index, pixels in planes:
        assert_same_classes(np.asarray(stored[index]), whole_image_scores(pixels, network))
    index, pixels = planes[0]
    assert set(np.unique(stored[index])) == {0, 1} or np.ptp(pixels) == 0


def assert_readable(label: Path, image: Image, expected: Segmented) -> None:
    for folder, kind in ((label, "ImageLabel"), (label.parent, "Labels")):
        group = zarr.open_group(folder, mode="r")
        assert type(ome_zarr_models.open_ome_zarr(group)).__name__ == kind
    location = parse_url(label)
    assert location is not None
    node = next(n for n in Reader(location)() if n.zarr.path == str(label))
    assert node.load(Label) is not None
    assert "".join(a["name"] for a in node.metadata["axes"]) == expected.axes.replace("c", "")
    assert len(node.data) == expected.levels
    assert node.data[0].dtype == np.uint8
    np.testing.assert_array_equal(node.data[-1], zarr.open_array(label / str(len(node.data) - 1)))
    opened = open_image(label)
    assert opened.version == ("0.5" if image.version == "0.5" else "0.4")
    assert open_image(image.path).labels == (*expected.kept, "unet")
    assert not list(label.parent.glob(".bigunet*"))


def placement(image: Image, level: int) -> dict[str, tuple[float, float, str | None]]:
    """Return scale, translation and unit of each axis but c."""
    facts = image.levels[level]
    rows = zip(image.axes, facts.scale, facts.translation, strict=True)
    return {axis.name: (a, b, axis.unit) for axis, a, b in rows if axis.name != "c"}


def assert_rest_unchanged(before: dict[str, bytes], path: Path, label: Path) -> None:
    """Nothing but the label, the list of labels and consolidated metadata may change."""
    ours, after = label.relative_to(path), files(path)
    assert set(before) <= set(after)
    for name in after:
        file = Path(name)
        if file.is_relative_to(ours) or file.parent == ours.parent:
            continue
        one, two = before[name], after[name]
        if file.name == "zarr.json":
            one, two = (json.dumps(without_consolidated(data)).encode() for data in (one, two))
        assert one == two, name


def without_consolidated(data: bytes) -> Any:
    content = json.loads(data)
    content.pop("consolidated_metadata", None)
    return content


def test_every_file_has_a_stated_outcome(shared_data: Path) -> None:
    assert {path.name for path in (shared_data / "ome_zarr").iterdir()} == set(OUTCOMES)
    assert {path.name for path in (shared_data / "slides").iterdir()} == SLIDES


@pytest.mark.parametrize("name", names(Segmented))
def test_segmented(shared_data: Path, tmp_path: Path, model: Path, name: str) -> None:
    expected = OUTCOMES[name]
    assert isinstance(expected, Segmented)
    path = copied(shared_data / "ome_zarr" / name, tmp_path)
    assert_segmented(path, expected, model, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", names(Refused))
def test_refused(shared_data: Path, tmp_path: Path, model: Path, name: str) -> None:
    expected = OUTCOMES[name]
    assert isinstance(expected, Refused)
    assert expected.says in refusal(copied(shared_data / "ome_zarr" / name, tmp_path), model)


@pytest.mark.parametrize("name", names(Holds))
def test_paths_are_named_and_can_be_passed(
    shared_data: Path, tmp_path: Path, model: Path, name: str
) -> None:
    expected = OUTCOMES[name]
    assert isinstance(expected, Holds)
    path = copied(shared_data / "ome_zarr" / name, tmp_path)
    line = refusal(path, model)
    named = line.split("pass one of ")[1].split(", ")
    assert named == [str(path / inner) for inner in expected.paths]
    assert_segmented(Path(named[-1]), expected.image, model)


@pytest.mark.parametrize("name", sorted(SLIDES))
def test_other_formats_are_refused_with_the_command_that_converts_them(
    shared_data: Path, model: Path, name: str
) -> None:
    line = refusal(shared_data / "slides" / name, model)
    assert re.search(rf"convert it with: bioformats2raw \S*{name} \S*\.zarr$", line)


@pytest.mark.parametrize("channel", ["DAPI", 0])
def test_one_named_channel(shared_data: Path, tmp_path: Path, channel: str | int) -> None:
    path = copied(shared_data / "ome_zarr" / "v04_cardio_mip_labels.zarr", tmp_path)
    network = balanced_model(replace(open_image(path), channels=open_image(path).channels[:1]), 0)
    segment_image(path, network, channels=[channel], device="cpu", region=((96, 608), (0, 512)))
    assert is_listed(path, "unet")
    image = open_image(path)
    (plane,) = image_planes(image, 0, (0,))
    scores = whole_image_scores(plane.read(slice(None), slice(None)), network)
    stored = np.asarray(zarr.open_array(path / "labels/unet/0", mode="r")[0])
    assert_same_classes(stored[96:608, :512], scores[:, 96:608, :512])
    assert not stored[:96].any() and not stored[608:].any() and not stored[:, 512:].any()
    with pytest.raises(InputError, match="0 'DAPI', 1 'nanog', 2 'Lamin B1'"):
        segment_image(path, network, channels=["GFP"], name="other")
