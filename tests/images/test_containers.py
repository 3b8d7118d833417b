"""What is at a path, and that nothing outside its store is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from bigunet.errors import NotFoundError, RunError
from bigunet.images.open import image_planes, open_image
from tests.images.made_images import (
    ALL,
    random_pixels,
    refusal,
    write_image,
)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.zarr does not exist"):
        open_image(tmp_path / "nothing.zarr")


@pytest.mark.parametrize("address", ["s3://bucket/a.zarr", "https://host/a.zarr", "gs://b/a.zarr"])
def test_remote_addresses_are_refused(address: str) -> None:
    assert "only local paths" in refusal(address)
    assert "only local paths" in refusal(Path(address))


@pytest.mark.parametrize(
    "suffix",
    [".tif", ".TIFF", ".ome.tif", ".svs", ".ndpi", ".mrxs", ".czi", ".lif", ".nd2", ".vsi"],
)
def test_vendor_files_get_the_command(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"my slide{suffix}"
    file.touch()
    assert refusal(file).endswith(f"bioformats2raw '{file}' '{tmp_path}/my slide.zarr'")


def test_other_files_and_folders_are_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "pass the folder of an OME-Zarr" in refusal(tmp_path / "notes.txt")
    assert "no zarr.json and no .zgroup" in refusal(tmp_path)


def test_zarr_without_multiscales(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    assert "without multiscales" in refusal(tmp_path / "a.zarr")


def test_version_05_layout_with_one_image_is_opened(tmp_path: Path) -> None:
    root = tmp_path / "slide.ome.zarr"
    ome = {"version": "0.5", "bioformats2raw.layout": 3}
    zarr.open_group(root, mode="w", attributes={"ome": ome})
    write_image(root / "0", random_pixels(8, 8), "yx")
    image = open_image(root)
    assert (image.path, image.name) == (root / "0", "slide")
    assert open_image(root / "0").name == "slide_0"
    write_image(root / "1", random_pixels(8, 8), "yx")
    assert refusal(root).endswith(f"pass one of {root}/0, {root}/1")


def test_long_lists_of_images_are_cut(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    for i in range(12):
        write_image(tmp_path / "a.zarr" / str(i), random_pixels(4, 4), "yx")
    line = refusal(tmp_path / "a.zarr")
    assert line.endswith("a.zarr/5 and so on")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("a.zarr", "a"),
        ("b.ome.zarr", "b"),
        ("C.OME.ZARR", "C"),
        ("plain", "plain"),
        (".zarr", "image"),
    ],
)
def test_name_is_the_store_without_suffix(tmp_path: Path, folder: str, name: str) -> None:
    write_image(tmp_path / folder, random_pixels(4, 4), "yx")
    assert open_image(tmp_path / folder).name == name


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    image = open_image("../a.zarr")
    assert (image.path, image.name) == (tmp_path / "a.zarr", "a")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("path", ["../other.zarr/0", "0/../../other.zarr/0", "ABSOLUTE"])
def test_level_paths_out_of_the_store(tmp_path: Path, path: str, zarr_format: int) -> None:
    write_image(tmp_path / "other.zarr", random_pixels(4, 4), "yx", zarr_format=zarr_format)
    path = str(tmp_path / "other.zarr/0") if path == "ABSOLUTE" else path
    a = write_image(
        tmp_path / "a.zarr", random_pixels(4, 4), "yx", path=path, zarr_format=zarr_format
    )
    assert "leaves the store" in refusal(a)


def test_a_link_from_a_level_out_of_the_store(tmp_path: Path) -> None:
    secret = write_image(tmp_path / "other.zarr", random_pixels(4, 4), "yx")
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx", path="link")
    (a / "link").symlink_to(secret / "0")
    assert "link that leaves the store" in refusal(a)


@pytest.mark.parametrize("file", ["zarr.json", "0/zarr.json"])
def test_a_link_from_metadata_out_of_the_store(tmp_path: Path, file: str) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx")
    (a / file).rename(tmp_path / "elsewhere.json")
    (a / file).symlink_to(tmp_path / "elsewhere.json")
    assert "link that leaves the store" in refusal(a)


@pytest.mark.parametrize("link", ["0/c", "0/c/0", "0/c/0/1"])
def test_a_link_from_chunks_out_of_the_store(tmp_path: Path, link: str) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(16, 16), "yx")
    (a / link).rename(tmp_path / "elsewhere")
    (a / link).symlink_to(tmp_path / "elsewhere")
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError, match="link that leaves the store"):
        plane.read(ALL, ALL)


def test_links_that_stay_in_the_store_are_followed(tmp_path: Path) -> None:
    pixels = random_pixels(16, 16)
    a = write_image(tmp_path / "a.zarr", pixels, "yx", path="link")
    (a / "link").symlink_to("0")
    (tmp_path / "alias.zarr").symlink_to(a)
    image = open_image(tmp_path / "alias.zarr")
    assert image.name == "alias"
    assert np.array_equal(image_planes(image, 0, (0,))[0].read(ALL, ALL)[0], pixels)


def test_links_in_circles(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx", path="link")
    (a / "link").symlink_to("link")
    assert "level 'link' is missing" in refusal(a)
