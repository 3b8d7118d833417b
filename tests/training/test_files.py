"""Pictures come in as they are, or are refused by name; nothing is lost in silence."""

from __future__ import annotations

import builtins
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from bigunet.errors import DependencyError, InputError
from bigunet.training.files import read_image, read_mask
from tests.training.made_data import GREY, write

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def with_alpha(pixels, alpha):
    last = np.broadcast_to(np.asarray(alpha, pixels.dtype), pixels.shape[:2])[..., None]
    return np.concatenate([np.atleast_3d(pixels), last], axis=2)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_of_8_and_16_bits(tmp_path, suffix, dtype):
    pixels = GREY.astype(dtype) * np.iinfo(dtype).max // 48
    path = write(tmp_path / f"a{suffix}", pixels)
    found = read_image(path)
    assert found.dtype == dtype and found.flags.c_contiguous
    np.testing.assert_array_equal(found, pixels[None])
    np.testing.assert_array_equal(read_mask(path), pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_rgb_has_three_channels(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", RGB)
    np.testing.assert_array_equal(read_image(path), RGB.transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, ">u2", ">f4"])
def test_tiff_of_other_types_in_native_byte_order(tmp_path, dtype):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY.astype(dtype), byteorder=">" if ">" in str(dtype) else "<")
    found = read_image(path)
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found[0], GREY)
    np.testing.assert_array_equal(read_mask(path), GREY)


@pytest.mark.parametrize("metadata", [{"axes": "CYX"}, {"axes": "CYX", "mode": "composite"}])
def test_channels_of_tiff(tmp_path, metadata):
    stack = np.stack([GREY, GREY + 1])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej="mode" in metadata, metadata=metadata)
    np.testing.assert_array_equal(read_image(path), stack)


def test_planar_rgb_of_tiff(tmp_path):
    path = tmp_path / "a.tif"
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(path), planes)


def test_a_stack_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.stack([GREY] * 5), photometric="minisblack")
    with pytest.raises(InputError, match=r"a.tif is a stack \(. 5, Y 6, X 8\): store each plane"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_alpha_is_dropped_only_where_it_says_nothing(tmp_path, suffix, pixels):
    kind = "minisblack" if pixels.ndim == 2 else "rgb"
    options = {} if suffix == ".png" else {"photometric": kind, "extrasamples": ["unassalpha"]}
    options |= {"planarconfig": "contig"} if options else {}
    same = write(tmp_path / f"same{suffix}", with_alpha(pixels, 200), **options)
    found = read_image(same)
    np.testing.assert_array_equal(found, np.moveaxis(np.atleast_3d(pixels), -1, 0))
    varies = write(tmp_path / f"varies{suffix}", with_alpha(pixels, GREY), **options)
    with pytest.raises(InputError, match=r"varies.* has transparency that varies from 0 to 47"):
        read_image(varies)


def test_a_fourth_channel_that_is_not_said_to_be_alpha_is_a_channel(tmp_path):
    pixels = with_alpha(RGB, 7)
    path = write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    assert read_image(path).shape == (4, 6, 8)


def test_a_palette_is_colour_in_images_and_numbers_in_masks(tmp_path):
    picture = Pillow.fromarray(GREY % 3).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    path = tmp_path / "a.png"
    picture.save(path)
    np.testing.assert_array_equal(read_mask(path), GREY % 3)
    np.testing.assert_array_equal(read_image(path)[2], GREY % 3 * 30 + 30)


def png(bits: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        length, sum_ = len(data), zlib.crc32(kind + data)
        return struct.pack(">I", length) + kind + data + struct.pack(">I", sum_)

    header = struct.pack(">IIBBBBB", 4, 1, bits, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" + rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "row"), [(4, b"\x01\x23"), (2, b"\x1b")])
def test_numbers_of_few_bits_are_what_they_are(tmp_path, bits, row):
    path = tmp_path / "a.png"
    path.write_bytes(png(bits, 0, row))
    np.testing.assert_array_equal(read_mask(path), [[0, 1, 2, 3]])


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_black_and_white_is_0_and_255(tmp_path, name):
    options = {"photometric": "minisblack"} if name == "a.tif" else {}
    path = write(tmp_path / name, GREY % 2 == 1, **options)
    np.testing.assert_array_equal(read_mask(path), GREY % 2 * 255)


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_png_of_16_bit_colour_is_refused(tmp_path, colour):
    path = tmp_path / "a.png"
    path.write_bytes(png(16, colour, bytes(4 * 2 * {2: 3, 4: 2, 6: 4}[colour])))
    with pytest.raises(InputError, match="only 8 bits can be read: store it as TIFF"):
        read_image(path)


def test_masks_may_be_grey_stored_as_rgb_but_not_colours(tmp_path):
    grey = write(tmp_path / "grey.png", np.stack([GREY] * 3, axis=2))
    np.testing.assert_array_equal(read_mask(grey), GREY)
    with pytest.raises(InputError, match="has colours: a mask holds one number per pixel"):
        read_mask(write(tmp_path / "colours.png", RGB))


@pytest.mark.parametrize(("value", "says"), [(0.5, "not whole"), (np.nan, "not whole")])
def test_masks_hold_whole_numbers(tmp_path, value, says):
    path = write(tmp_path / "a.tif", np.full((3, 4), value, np.float32))
    with pytest.raises(InputError, match=says):
        read_mask(path)


def test_masks_of_large_floats_are_not_exact(tmp_path):
    with pytest.raises(InputError, match="not exact"):
        read_mask(write(tmp_path / "a.tif", np.full((3, 4), 1e20)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(tmp_path, value):
    path = write(tmp_path / "a.tif", np.full((3, 4), value, np.float32))
    with pytest.raises(InputError, match="not finite"):
        read_image(path)


def test_complex_pixels_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((3, 4), np.complex64))
    for read in (read_image, read_mask):
        with pytest.raises(InputError, match="type complex64"):
            read(path)


def test_inverted_grey_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", GREY, photometric="miniswhite")
    with pytest.raises(InputError, match="stores white as 0"):
        read_mask(path)


def test_a_palette_in_tiff_is_numbers_only(tmp_path):
    colors = np.zeros((3, 256), np.uint16)
    path = write(tmp_path / "a.tif", GREY, photometric="palette", colormap=colors)
    np.testing.assert_array_equal(read_mask(path), GREY)
    with pytest.raises(InputError, match="has a palette"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"II*\0"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} cannot be read: ."):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_file_that_was_cut_off_is_named(tmp_path, name):
    path = write(tmp_path / name, np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=f"{name} cannot be read: ."):
        read_image(path)


def test_a_missing_package_is_named_with_the_way_out(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", GREY)
    import_ = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tifffile":
            raise ImportError(name)
        return import_(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyError, match=r'pip install "bigunet\[train\]"'):
        read_image(path)


def test_a_missing_codec_is_named_with_the_way_out(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", GREY)

    def needs_codec(*args, **kwargs):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", needs_codec)
    with pytest.raises(DependencyError, match=r"a.tif .* pip install imagecodecs"):
        read_image(path)
