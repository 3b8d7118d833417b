"""One reader of pictures for training and evaluation; what each refuses is tested there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from bigunet.errors import DependencyError, InputError
from bigunet.images.files import read_samples

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)


@given(pixels=arrays.arrays(np.uint8, SHAPES), suffix=st.sampled_from([".png", ".tif"]))
def test_samples_are_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("files") / f"a{suffix}"
    plain = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    if suffix == ".png":
        Image.fromarray(plain).save(path)
    else:
        tifffile.imwrite(path, plain, photometric="minisblack" if plain.ndim == 2 else "rgb")
    for mask in (False, True):
        found = read_samples(path, mask=mask)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_bit_is_told_apart_from_numbers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(GREY % 2 == 1).save(path)
    found = read_samples(path, mask=True)
    assert found.dtype == bool
    np.testing.assert_array_equal(found[..., 0], GREY % 2 == 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.int32, np.float32])
def test_plain_masks_in_tiff_need_no_tifffile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY.astype(dtype), byteorder=">" if ">" in str(dtype) else "<")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    found = read_samples(path, mask=True)
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found[..., 0], GREY)
    with pytest.raises(DependencyError, match="TIFF needs the package tifffile"):
        read_samples(path)


@pytest.mark.parametrize(
    ("pixels", "photometric"),
    [(np.stack([GREY] * 5), "minisblack"), (GREY, "miniswhite")],
    ids=["stack", "inverted"],
)
def test_what_pillow_would_change_needs_tifffile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray, photometric: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric=photometric)
    with pytest.raises(InputError, match=r"a.tif (is a stack|stores white as 0)"):
        read_samples(path, mask=True)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DependencyError, match="TIFF needs the package tifffile"):
        read_samples(path, mask=True)


def test_what_is_no_picture_is_named_without_tifffile_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"no picture")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match=r"a.tif cannot be read: ."):
        read_samples(path, mask=True)
