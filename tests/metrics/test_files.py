"""Masks in files, read with the values that they hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from bigunet.errors import InputError
from bigunet.metrics.files import list_files, read_file

MASK = np.arange(12, dtype=np.uint8).reshape(3, 4)


def write(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="minisblack")
    return path


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.png", MASK),
        ("a.png", MASK.astype(np.uint16) * 999),
        ("a.png", MASK > 3),
        ("a.tif", MASK),
        ("a.tiff", MASK.astype(np.uint32) * 99999),
        ("a.tif", MASK.astype(np.float32) / 12),
        ("a.tif", MASK[None]),
    ],
)
def test_values_are_those_of_the_file(tmp_path: Path, name: str, array: np.ndarray) -> None:
    found = read_file(write(tmp_path / name, array))
    np.testing.assert_array_equal(found, array.reshape(3, 4))
    assert found.dtype == (np.uint8 if array.dtype == bool else array.dtype)


def test_palettes_give_their_indices(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 3))
    picture.putpalette([255 - k // 3 for k in range(768)])
    picture.putdata(MASK.ravel().tolist())
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_file(tmp_path / "a.png"), MASK)


def test_grey_in_three_channels_and_alpha_is_one_value(tmp_path: Path) -> None:
    alpha = np.dstack([MASK, MASK, MASK, np.full_like(MASK, 255)])
    np.testing.assert_array_equal(read_file(write(tmp_path / "a.png", alpha)), MASK)
    colors = np.dstack([MASK, MASK + 1, MASK])
    with pytest.raises(InputError, match=r"a.png has 3 × 4 × 3 values; a mask is one plane"):
        read_file(write(tmp_path / "a.png", colors))


def test_tiff_without_tifffile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", MASK)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    np.testing.assert_array_equal(read_file(path), MASK)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_what_is_broken_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(InputError, match=rf"{name} cannot be read: "):
        read_file(tmp_path / name)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no masks"):
        list_files(tmp_path)
    for name in ("b.png", "a.png"):
        write(tmp_path / name, MASK)
    (tmp_path / "notes.txt").write_text("")
    assert list(list_files(tmp_path)) == ["a", "b"]
    write(tmp_path / "a.tif", MASK)
    with pytest.raises(InputError, match=r"a.png and .*a.tif have one name"):
        list_files(tmp_path)
