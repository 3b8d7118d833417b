"""Opening images: every real one, and every hostile level."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bigunet.images.open import image_planes, open_image
from tests.images.made_images import (
    ALL,
    bare_image,
    describe,
    random_pixels,
    refusal,
    write_image,
)

OPENED = {
    # path: version, axes, shape, dtype, levels, pixel size
    "v01_bf2raw_c3_int8.zarr": ("0.1", "tczyx", (1, 3, 1, 167, 439), "int8", 2, None),
    "v01_tczyx.zarr": ("0.1", "tczyx", (1, 2, 1, 16, 16), "uint8", 1, None),
    "v04_bf2raw_two_series.zarr/0": ("0.4", "tczyx", (1, 1, 1, 512, 512), "uint8", 2, None),
    "v04_bf2raw_two_series.zarr/1": ("0.4", "tczyx", (1, 1, 1, 512, 512), "uint8", 2, None),
    "v04_cardio_mip_labels.zarr": ("0.4", "czyx", (3, 1, 1080, 1280), "uint16", 3, 0.65),
    "v04_coins_labels.ome.zarr": ("0.4", "yx", (1624, 2272), "uint8", 4, None),
    "v04_cyx.ome.zarr": ("0.4", "cyx", (3, 64, 64), "uint8", 2, None),
    "v04_czyx.ome.zarr": ("0.4", "czyx", (3, 16, 64, 64), "uint8", 2, None),
    "v04_hcs_plate_2wells.zarr/A/1/0": ("0.4", "tczyx", (1, 1, 1, 512, 512), "uint8", 2, 1.0),
    "v04_hcs_plate_no_chunks.zarr/A/1/0": ("0.4", "yx", (1000, 1000), "float64", 1, 1.0),
    "v04_large_zyx_sparse.zarr": ("0.4", "zyx", (500, 1000, 1000), "uint8", 3, None),
    "v04_no_chunks.zarr": ("0.4", "yx", (1000, 1000), "float64", 1, 1.0),
    "v04_nuclei_plk1_control.ome.zarr": ("0.4", "tczyx", (1, 1, 1, 682, 682), "uint8", 3, 0.16605),
    "v04_spatialdata_blobs.zarr/images/blobs_image": (
        "0.4",
        "cyx",
        (3, 64, 64),
        "float64",
        1,
        None,
    ),
    "v04_tczyx.ome.zarr": ("0.4", "tczyx", (4, 3, 16, 64, 64), "uint8", 2, None),
    "v04_yx.ome.zarr": ("0.4", "yx", (64, 64), "uint8", 2, None),
    "v04_yx_float64_labels_empty.zarr": ("0.4", "yx", (200, 200), "float64", 1, 1.0),
    "v04_zyx.ome.zarr": ("0.4", "zyx", (16, 64, 64), "uint8", 2, None),
    "v05_astronaut_rgb_labels.ome.zarr": ("0.5", "cyx", (3, 1024, 1024), "uint8", 5, None),
    "v05_cyx.ome.zarr": ("0.5", "cyx", (3, 64, 64), "uint8", 2, None),
    "v05_nested_level_paths.zarr": ("0.5", "yx", (10, 10), "uint16", 3, 0.01095),
    "v05_single_level.ome.zarr": ("0.5", "yx", (16, 16), "uint8", 1, None),
    "v05_tczyx.ome.zarr": ("0.5", "tczyx", (4, 3, 16, 64, 64), "uint8", 2, None),
    "v05_tyx.ome.zarr": ("0.5", "tyx", (4, 64, 64), "uint8", 2, None),
    "v05_tzyx.ome.zarr": ("0.5", "tzyx", (4, 16, 64, 64), "uint8", 2, None),
    "v05_yx.ome.zarr": ("0.5", "yx", (64, 64), "uint8", 2, None),
}


REFUSED = {
    # path: what the line says
    "bare_array_sharded_v3.zarr": ["plain Zarr array", "pass the image's group"],
    "invalid_level_array_missing.zarr": ["level '0' is missing"],
    "invalid_level_rank_mismatch.zarr": ["level '1' has 2 axes and the image 3 (zyx)"],
    "v04_bf2raw_two_series.zarr": ["two_series.zarr/0, ", "two_series.zarr/1"],
    "v04_hcs_plate_2wells.zarr": ["2wells.zarr/A/1/0, ", "2wells.zarr/B/1/0"],
    "v04_hcs_plate_2wells.zarr/A/1": ["2wells.zarr/A/1/0"],
    "v04_hcs_plate_no_chunks.zarr": ["/A/1/0, ", "/A/2/0, ", "/B/1/0, ", "/B/2/0"],
    "v04_spatialdata_blobs.zarr": ["images/blobs_image, ", "images/blobs_multiscale_image"],
    "v05_nested_level_paths.zip": ["unzip it"],
    "v06dev_zyx.zarr": ["'0.6.dev1' is not read"],
}


@pytest.fixture(scope="session")
def real_images(shared_data: Path) -> Path:
    return shared_data / "ome_zarr"


def test_every_real_image_has_an_expected_outcome(real_images: Path) -> None:
    named = {path.split("/")[0] for path in [*OPENED, *REFUSED]}
    assert {entry.name for entry in real_images.iterdir()} == named


@pytest.mark.parametrize("path", OPENED)
def test_real_image_is_opened(real_images: Path, path: str) -> None:
    image = open_image(real_images / path)
    facts = (image.version, image.axis_names, image.levels[0].shape, image.levels[0].dtype)
    version, axes, shape, dtype, levels, pixel_size = OPENED[path]
    assert (*facts, len(image.levels)) == (version, axes, shape, dtype, levels)
    assert image.pixel_size(0) == (pixel_size and pytest.approx(pixel_size, rel=1e-3))


@pytest.mark.parametrize("path", OPENED)
def test_real_image_is_read_like_zarr_reads_it(real_images: Path, path: str) -> None:
    image = open_image(real_images / path)
    last = len(image.levels) - 1
    plane = image_planes(image, last, range(len(image.channels)))[-1]
    assert np.array_equal(plane.lazy().compute(), plane.read(ALL, ALL))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a list of filters is empty
        whole = zarr.open_array(image.path / image.levels[last].path, mode="r")[...]
    by_axis = whole[tuple(-1 if axis in "tz" else ALL for axis in image.axis_names)]
    assert np.array_equal(plane.read(ALL, ALL), by_axis.reshape(plane.shape))


@pytest.mark.parametrize("path", REFUSED)
def test_real_image_is_refused_in_one_line(real_images: Path, path: str) -> None:
    line = refusal(real_images / path)
    assert all(part in line for part in REFUSED[path]), line


@pytest.mark.parametrize("file", ["CMU-1-Small-Region.svs", "he_tma_core.ome.tif"])
def test_real_slide_gets_the_line_that_converts_it(shared_data: Path, file: str) -> None:
    line = refusal(shared_data / "slides" / file)
    assert f"bioformats2raw {shared_data}/slides/{file} {shared_data}/slides/" in line
    assert line.endswith(f"{file.split('.')[0]}.zarr")


def test_labels_are_listed(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx")
    assert open_image(tmp_path / "a.zarr").labels == ()
    ome = {"version": "0.5", "labels": ["cells"]}
    zarr.open_group(tmp_path / "a.zarr/labels", mode="w", attributes={"ome": ome})
    assert open_image(tmp_path / "a.zarr").labels == ("cells",)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("yx", (2**40, 2**40)),
        ("zyx", (2**40, 8, 8)),
        ("cyx", (2**40, 8, 8)),
        ("tzyx", (2**11, 2**11, 8, 8)),
    ],
)
def test_giant_shapes_are_refused(tmp_path: Path, axes: str, shape: tuple[int, ...]) -> None:
    group = bare_image(tmp_path / "a.zarr", axes)
    group.create_array("0", shape=shape, chunks=(1,) * (len(shape) - 2) + (8, 8), dtype="u1")
    assert "more than" in refusal(tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "dtype", ["complex64", "bool", "U3", "M8[s]", [("a", "u1"), ("b", "u2")]], ids=str
)
@pytest.mark.filterwarnings("ignore")
def test_pixels_that_are_no_numbers(tmp_path: Path, dtype: Any, zarr_format: int) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx", zarr_format=zarr_format)
    zarr.open_group(a, mode="r+").create_array(
        "0", shape=(4, 4), dtype=np.dtype(dtype), overwrite=True
    )
    assert "only integers and floats" in refusal(a)


def test_an_axis_without_pixels(tmp_path: Path) -> None:
    bare_image(tmp_path / "a.zarr", "yx").create_array("0", shape=(0, 4), chunks=(4, 4), dtype="u1")
    assert "an axis without pixels: 0 × 4" in refusal(tmp_path / "a.zarr")


def test_levels_must_agree_on_channels(tmp_path: Path) -> None:
    group = bare_image(tmp_path / "a.zarr", "cyx", ("0", "1"))
    group.create_array("0", shape=(3, 8, 8), dtype="u1")
    group.create_array("1", shape=(2, 4, 4), dtype="u1")
    assert "different numbers of channels: [2, 3]" in refusal(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "change",
    [
        {"shape": "x"},
        {"codecs": [{"name": "made_up"}]},
        {"data_type": "made_up"},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 0]}}},
        {"shape": [-4, 4]},
        {"codecs": None},
    ],
)
def test_broken_array_metadata(tmp_path: Path, change: dict[str, Any]) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx")
    file = a / "0/zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert "level '0'" in refusal(a)


def test_what_zarr_would_mend_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As zarr 3.4 does, which reads chunks without pixels as chunks of one."""
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx")
    mended = zarr.open_array

    def with_a_warning(*args: Any, **options: Any) -> Any:
        said = "Array 'a': The stored chunk shape [0, 0] is invalid: why. It is read as [1, 1], …"
        warnings.warn(said, UserWarning, stacklevel=2)
        return mended(*args, **options)

    monkeypatch.setattr(zarr, "open_array", with_a_warning)
    line = refusal(a)
    assert "level '0' is broken: Array 'a': The stored chunk shape [0, 0] is invalid: why" in line
    assert "read as" not in line


def test_a_level_path_too_long_for_a_file_system(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx", path="a" * 5000)
    assert "cannot be read" in refusal(a)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_scale_is_not_made_up_where_any_is_given(tmp_path: Path, zarr_format: int) -> None:
    metadata = {**describe("yx", "0", "1")}
    del metadata["datasets"][1]["coordinateTransformations"]
    a = write_image(
        tmp_path / "a.zarr", random_pixels(8, 8), "yx", metadata=metadata, zarr_format=zarr_format
    )
    zarr.open_group(a, mode="r+").create_array("1", shape=(4, 4), dtype="u2")
    assert [level.scale for level in open_image(a).levels] == [(0.5, 0.5), (1.0, 1.0)]
    del metadata["datasets"][0]["coordinateTransformations"]
    write_image(a, random_pixels(8, 8), "yx", metadata=metadata, zarr_format=zarr_format)
    zarr.open_group(a, mode="r+").create_array("1", shape=(4, 4), dtype="u2")
    assert [level.scale for level in open_image(a).levels] == [(1.0, 1.0), (2.0, 2.0)]
