"""Planes: pixels of every layout, on demand."""

from __future__ import annotations

import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.images.open import Plane, image_planes, open_image
from tests.images.made_images import (
    ALL,
    bare_image,
    random_pixels,
    write_image,
)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ["yx", "cyx", "tyx", "zyx", "czyx", "tczyx", "tzyx"])
def test_planes_cover_the_array_over_t_then_z(tmp_path: Path, axes: str, zarr_format: int) -> None:
    shape = tuple({"t": 2, "c": 3, "z": 4, "y": 19, "x": 23}[a] for a in axes)
    pixels = random_pixels(*shape)
    image = open_image(write_image(tmp_path / "a.zarr", pixels, axes, zarr_format=zarr_format))
    for channels in [(0, 1, 2), (1,), (2, 0), (0, 2)] if "c" in axes else [(0,)]:
        planes = image_planes(image, 0, channels)
        outer = [n for a, n in zip(axes, shape, strict=True) if a in "tz"]
        assert [plane.index for plane in planes] == list(np.ndindex(*outer))
        for plane in planes:
            index = iter(plane.index)
            whole = pixels[tuple(next(index) if a in "tz" else ALL for a in axes)]
            expected = whole.reshape(-1, 19, 23)[list(channels)]
            assert (plane.shape, plane.chunks) == (expected.shape, (8, 8))
            assert np.array_equal(plane.read(slice(3, 17), slice(5, 99)), expected[:, 3:17, 5:])
            assert np.array_equal(plane.lazy().compute(), expected)


@pytest.mark.parametrize("chunks", [(1, 1, 1), (1, 2, 3), (2, 2, 4), (5, 3, 9)])
@pytest.mark.parametrize("channels", [(0,), (2,), (2, 0), (0, 1, 2)])
def test_layers_are_the_values_at_a_pixel_in_all_chunks_that_are_touched(
    tmp_path: Path, chunks: tuple[int, int, int], channels: tuple[int, ...]
) -> None:
    sizes = (4, 3, 8)
    path = write_image(tmp_path / "a.zarr", random_pixels(*sizes, 9, 9), "tczyx")
    first = open_image(path).levels[0].path
    shutil.rmtree(path / first)
    zarr.create_array(path / first, shape=(*sizes, 9, 9), chunks=(*chunks, 8, 8), dtype="u1")
    plane = image_planes(open_image(path), 0, channels)[0]
    mine = {tuple(np.floor_divide((0, c, 0), chunks)) for c in channels}
    decoded = [i for i in np.ndindex(sizes) if tuple(np.floor_divide(i, chunks)) in mine]
    assert plane.layers == len(decoded)


def test_planes_check_level_and_channels(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "a.zarr", random_pixels(3, 8, 8), "cyx"))
    with pytest.raises(InputError, match="no level 1"):
        image_planes(image, 1, (0,))
    with pytest.raises(InputError, match="no channel"):
        image_planes(image, 0, (3,))


@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "int16", ">u2", ">i4", "uint32", "int64", "uint64", "f2", ">f4", "f8"],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_pixels_come_in_native_byte_order(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    pixels = random_pixels(12, 9, dtype="uint8").astype(dtype)
    image = open_image(write_image(tmp_path / "a.zarr", pixels, "yx", zarr_format=zarr_format))
    (plane,) = image_planes(image, 0, (0,))
    found = plane.read(ALL, ALL)
    assert found.dtype == plane.dtype == plane.lazy().dtype == np.dtype(dtype).newbyteorder("=")
    assert found.dtype.isnative
    assert np.array_equal(found[0], pixels)


@given(st.data())
def test_a_window_is_cut_like_numpy_does(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "window.zarr"
    pixels = np.arange(20 * 27, dtype="u2").reshape(20, 27)
    if not folder.exists():
        write_image(folder, pixels, "yx", shards=(16, 16))
    (plane,) = image_planes(open_image(folder), 0, (0,))
    bounds = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda b: slice(*b))
    y, x = data.draw(bounds), data.draw(bounds)
    assert np.array_equal(plane.read(y, x)[0], pixels[y, x])


@pytest.mark.parametrize("window", [slice(-3, 4), slice(0, -1), slice(0, 8, 2)])
def test_windows_with_steps_or_negative_numbers_are_no_windows(
    tmp_path: Path, window: slice
) -> None:
    image = open_image(write_image(tmp_path / "a.zarr", random_pixels(8, 8), "yx"))
    with pytest.raises(ValueError, match="window"):
        image_planes(image, 0, (0,))[0].read(window, ALL)


def test_v2_arrays_with_dots_between_chunk_numbers(tmp_path: Path) -> None:
    pixels = random_pixels(20, 20)
    separator = {"name": "v2", "separator": "."}
    a = write_image(tmp_path / "a.zarr", pixels, "yx", zarr_format=2, chunk_key_encoding=separator)
    assert (a / "0/1.2").is_file()
    assert np.array_equal(image_planes(open_image(a), 0, (0,))[0].read(ALL, ALL)[0], pixels)


def test_missing_chunks_are_fill_value(tmp_path: Path) -> None:
    bare_image(tmp_path / "a.zarr", "yx").create_array("0", shape=(9, 9), dtype="u1", fill_value=7)
    (plane,) = image_planes(open_image(tmp_path / "a.zarr"), 0, (0,))
    assert (plane.read(ALL, ALL) == 7).all()


def test_a_chunk_larger_than_the_image(tmp_path: Path) -> None:
    pixels = random_pixels(5, 6)
    image = open_image(write_image(tmp_path / "a.zarr", pixels, "yx", chunks=(128, 128)))
    (plane,) = image_planes(image, 0, (0,))
    assert (image.levels[0].chunks, plane.chunks) == ((128, 128), (5, 6))
    assert np.array_equal(plane.lazy().compute()[0], pixels)


def test_lazy_joins_small_chunks_and_keeps_large_ones(tmp_path: Path) -> None:
    group = bare_image(tmp_path / "a.zarr", "cyx", ("0", "1"))
    group.create_array("0", shape=(2, 3000, 1500), chunks=(1, 300, 2000), dtype="u1", fill_value=1)
    shards = {"chunks": (1, 8, 8), "shards": (1, 1536, 64)}
    group.create_array("1", shape=(2, 3000, 1500), dtype="u1", fill_value=1, **shards)
    image = open_image(tmp_path / "a.zarr")
    assert image_planes(image, 0, (0, 1))[0].lazy().chunks == ((2,), (900, 900, 900, 300), (1500,))
    assert image_planes(image, 1, (0, 1))[0].lazy().chunks == ((2,), (1536, 1464), (1024, 476))


def test_lazy_names_are_the_same_for_the_same_plane_only(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "a.zarr", random_pixels(2, 3, 8, 8), "czyx"))
    planes = [*image_planes(image, 0, (0,)), *image_planes(image, 0, (1,))]
    assert len({plane.lazy().name for plane in planes}) == 6
    again = pickle.loads(pickle.dumps(planes[0]))
    assert again == planes[0]
    assert again.lazy().name == planes[0].lazy().name


def test_planes_are_small_and_read_after_pickling(tmp_path: Path) -> None:
    pixels = random_pixels(8, 8)
    (plane,) = image_planes(open_image(write_image(tmp_path / "a.zarr", pixels, "yx")), 0, (0,))
    plane.read(ALL, ALL)
    sent = pickle.dumps(plane)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).read(ALL, ALL)[0], pixels)


def test_a_rewritten_image_is_opened_anew(tmp_path: Path) -> None:
    for size in (8, 12):
        pixels = random_pixels(size, size)
        image = open_image(write_image(tmp_path / "a.zarr", pixels, "yx"))
        assert np.array_equal(image_planes(image, 0, (0,))[0].read(ALL, ALL)[0], pixels)


def test_planes_are_read_by_many_threads(tmp_path: Path) -> None:
    pixels = random_pixels(64, 64)
    (plane,) = image_planes(open_image(write_image(tmp_path / "a.zarr", pixels, "yx")), 0, (0,))
    together = threading.Barrier(8)

    def read(row: int) -> bool:
        together.wait()
        return np.array_equal(plane.read(slice(row, row + 9), ALL)[0], pixels[row : row + 9])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(0, 64, 8)))


def test_plane_is_what_the_interface_says(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "a.zarr", random_pixels(8, 8), "yx"))
    (plane,) = image_planes(image, 0, (0,))
    assert isinstance(plane, Plane)
    assert plane.index == ()
    assert hash(plane) == hash(replace(plane))
