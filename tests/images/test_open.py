"""Opening images: every real one, every hostile one, and pixels that fail loudly."""

from __future__ import annotations

import json
import math
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import BigunetError, InputError, MemoryLimitError, NotFoundError, RunError
from bigunet.images.open import (
    Axis,
    Channel,
    Image,
    Level,
    Plane,
    check_chunk_memory,
    choose_channels,
    choose_level,
    image_planes,
    open_image,
)

ALL = slice(None)
RNG = np.random.default_rng(0)


def describe(axes: str, *paths: str, unit: str | None = "micrometer") -> dict[str, Any]:
    """Multiscales metadata of 0.4 and 0.5, every level half of the one before."""
    spatial = {"type": "space"} | ({"unit": unit} if unit else {})
    types = {"t": {"type": "time"}, "c": {"type": "channel"}}
    scales = [[1.0 if a in "tcz" else 0.5 * 2.0**i for a in axes] for i in range(len(paths))]
    return {
        "axes": [{"name": a, **types.get(a, spatial)} for a in axes],
        "datasets": [
            {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for path, scale in zip(paths, scales, strict=True)
        ],
    }


def write_image(
    folder: Path,
    pixels: npt.NDArray[Any],
    axes: str,
    *,
    zarr_format: int = 3,
    names: tuple[str, ...] = (),
    path: str = "0",
    metadata: Any = None,
    **storage: Any,
) -> Path:
    """Write an image of one level; `metadata` replaces its multiscales entry."""
    entry = describe(axes, path) if metadata is None else metadata
    ome: dict[str, Any] = {"multiscales": [entry]}
    if names:
        ome["omero"] = {"channels": [{"label": name} for name in names]}
    if zarr_format == 3:
        ome = {"ome": {"version": "0.5", **ome}}
    else:
        entry["version"] = "0.4"
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format, attributes=ome)
    storage.setdefault("chunks", tuple(min(8, n) for n in pixels.shape))
    array = group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, **storage)
    array[...] = pixels
    return folder


def random_pixels(*shape: int, dtype: str = "uint16") -> npt.NDArray[Any]:
    return RNG.integers(0, 2**15 if dtype == "uint16" else 100, shape).astype(dtype)


def refusal(path: Path | str) -> str:
    with pytest.raises(BigunetError) as refused:
        open_image(path)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.exit_code == 2
    return line


# Real images

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


# What is at a path


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


def test_labels_are_listed(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx")
    assert open_image(tmp_path / "a.zarr").labels == ()
    ome = {"version": "0.5", "labels": ["cells"]}
    zarr.open_group(tmp_path / "a.zarr/labels", mode="w", attributes={"ome": ome})
    assert open_image(tmp_path / "a.zarr").labels == ("cells",)


# Hostile stores


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


def bare_image(folder: Path, axes: str, paths: tuple[str, ...] = ("0",)) -> zarr.Group:
    ome = {"ome": {"version": "0.5", "multiscales": [describe(axes, *paths)]}}
    return zarr.open_group(folder, mode="w", attributes=ome)


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


def test_giant_chunks_are_refused_with_both_figures(tmp_path: Path) -> None:
    group = bare_image(tmp_path / "a.zarr", "cyx", ("0", "1"))
    # 16 pixels that decode to 1 GiB, and a shard of 32 GiB
    group.create_array("0", shape=(1, 4, 4), chunks=(1, 2**15, 2**15), dtype="u1")
    group.create_array(
        "1", shape=(1, 2**17, 2**17), chunks=(1, 512, 512), shards=(1, 2**17, 2**17), dtype="u2"
    )
    image = open_image(tmp_path / "a.zarr")
    check_chunk_memory(image, 0, 2**30)
    with pytest.raises(MemoryLimitError, match=r"chunk of 1 × 32768 × 32768 uint8.*1\.00 GiB.*512"):
        check_chunk_memory(image, 0, 2**29)
    with pytest.raises(MemoryLimitError, match=r"shard of 1 × 131072 .*32\.00 GiB.* 1\.00 GiB"):
        check_chunk_memory(image, 1, 2**30)


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


def test_a_level_path_too_long_for_a_file_system(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(4, 4), "yx", path="a" * 5000)
    assert "cannot be read" in refusal(a)


# Levels


def made_up(
    sizes: list[float], unit: str | None = "micrometer", names: tuple[str, ...] = ()
) -> Image:
    space = [Axis(name=n, type="space", unit=unit) for n in "yx"]
    levels = [
        Level(
            path=str(i),
            shape=(64, 64),
            dtype="uint8",
            chunks=(64, 64),
            shards=None,
            scale=(size, size),
            translation=(0.0, 0.0),
        )
        for i, size in enumerate(sizes)
    ]
    return Image(
        path=Path("a.zarr"),
        version="0.5",
        zarr_format=3,
        axes=tuple(space),
        levels=tuple(levels),
        channels=tuple(Channel(index=i, name=n) for i, n in enumerate(names or ("channel 0",))),
        name="a",
        labels=(),
    )


def test_pixel_size_is_in_micrometres() -> None:
    assert made_up([0.25]).pixel_size(0) == 0.25
    assert made_up([250.0], "nanometer").pixel_size(0) == 0.25
    assert made_up([0.25], None).pixel_size(0) is None
    level = replace(made_up([1.0]).levels[0], scale=(4.0, 9.0))
    assert replace(made_up([1.0]), levels=(level,)).pixel_size(0) == pytest.approx(6)


def test_level_by_number() -> None:
    image = made_up([1, 2, 4])
    assert choose_level(image, None, None) == (0, None)
    assert choose_level(image, 2, None) == (2, None)
    for level in (-1, 3):
        with pytest.raises(InputError, match=f"no level {level}: .* has levels 0 to 2"):
            choose_level(image, level, None)
    with pytest.raises(InputError, match="has level 0 only"):
        choose_level(made_up([1]), 1, None)


def test_level_by_pixel_size_is_said() -> None:
    image = made_up([0.25, 0.5, 1.0])
    assert choose_level(image, None, 0.45) == (
        1,
        "level 1 has pixels of 0.5 µm, wanted are 0.45 µm",
    )
    level, line = choose_level(image, None, 4.0)
    assert level == 2
    assert line == "warning: level 2 has pixels of 1 µm, wanted are 4 µm: off by 4×"


def test_a_number_wins_over_the_pixel_size_which_warns() -> None:
    level, line = choose_level(made_up([0.25, 0.5, 1.0]), 0, 1.0)
    assert level == 0
    assert str(line).startswith("warning: level 0 has pixels of 0.25 µm")


def test_no_unit_warns() -> None:
    level, line = choose_level(made_up([1, 2], None), None, 0.5)
    assert level == 0
    assert str(line).startswith("warning: a.zarr gives no unit")


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan, math.inf])
def test_absurd_pixel_sizes(size: float) -> None:
    with pytest.raises(InputError, match="no pixel size"):
        choose_level(made_up([1]), None, size)


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    st.floats(1e-3, 1e3),
)
def test_the_chosen_level_is_the_nearest_in_ratio(sizes: list[float], wanted: float) -> None:
    """Law: no other level is off by a smaller factor, and a warning means more than 1.5×."""
    level, line = choose_level(made_up(sizes), None, wanted)
    off = [max(size / wanted, wanted / size) for size in sizes]
    assert off[level] == pytest.approx(min(off), rel=1e-9)
    if abs(min(off) - 1.5) > 1e-9:
        assert str(line).startswith("warning:") == (min(off) > 1.5)


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


# Channels


STAINS = made_up([1], names=("DAPI", "nanog", "DAPI", "1"))


def test_one_channel_model_never_takes_channel_0_in_silence() -> None:
    with pytest.raises(InputError) as refused:
        choose_channels(STAINS, None, 1)
    assert str(refused.value) == (
        "a.zarr: the model takes 1 channel and the image has 4 channels: choose with --channels "
        "from 0 'DAPI', 1 'nanog', 2 'DAPI', 3 '1'"
    )


def test_all_channels_are_taken_where_the_number_fits() -> None:
    assert choose_channels(STAINS, None, 4) == (0, 1, 2, 3)
    assert choose_channels(made_up([1]), None, 1) == (0,)


def test_channels_by_index_digits_and_name() -> None:
    assert choose_channels(STAINS, [3, "0", "nanog"], 3) == (3, 0, 1)
    assert choose_channels(STAINS, "nanog", 1) == (1,)
    assert choose_channels(STAINS, 2, 1) == (2,)
    # The index wins over the name of channel 3, so that every channel can be named.
    assert choose_channels(STAINS, ["1"], 1) == (1,)
    # The same channel may be given more than once: grey to a model of three channels.
    assert choose_channels(STAINS, [0, 0, 0], 3) == (0, 0, 0)


@pytest.mark.parametrize("wanted", [4, -1, "4", "GFP", "", "²"])
def test_unknown_channels_list_what_there_is(wanted: int | str) -> None:
    with pytest.raises(InputError, match="is no channel: choose from 0 'DAPI', 1 'nanog'"):
        choose_channels(STAINS, [wanted], 1)


def test_an_ambiguous_name_is_refused() -> None:
    with pytest.raises(InputError, match="'DAPI' is the name of several channels"):
        choose_channels(STAINS, ["DAPI"], 1)


@pytest.mark.parametrize("wanted", [[], [0, 1]])
def test_wrong_number_of_channels(wanted: list[int]) -> None:
    with pytest.raises(InputError, match=r"the model takes 1 channel and \d channels chosen"):
        choose_channels(STAINS, wanted, 1)


def test_long_channel_lists_are_cut() -> None:
    with pytest.raises(InputError, match="19 'n19' and so on to 99"):
        choose_channels(made_up([1], names=tuple(f"n{i}" for i in range(100))), None, 1)


# Pixels


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


# Broken chunks


def break_chunk(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


CODECS = {
    "none": None,
    "zstd": zarr.codecs.ZstdCodec(),
    "blosc": zarr.codecs.BloscCodec(),
    "gzip": zarr.codecs.GzipCodec(),
}


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_chunk_is_named(tmp_path: Path, codec: str, keep: float) -> None:
    """Blosc is the trap: numcodecs decodes a truncated container to garbage in silence."""
    pixels = random_pixels(2, 2, 24, 24)
    a = write_image(
        tmp_path / "a.zarr", pixels, "czyx", chunks=(1, 1, 8, 8), compressors=CODECS[codec]
    )
    break_chunk(a / "0/c/1/1/0/2", keep)
    first, second = image_planes(open_image(a), 0, (0, 1))
    assert np.array_equal(first.read(ALL, ALL), pixels[:, 0])
    assert np.array_equal(second.read(slice(8, 24), ALL), pixels[:, 1, 8:])
    for read in (lambda: second.read(ALL, ALL), second.lazy().compute):
        with pytest.raises(RunError) as failed:
            read()
        assert f"{a}/0, plane z=1: cannot read chunk (1, 1, 0, 2): " in str(failed.value)
        assert "\n" not in str(failed.value)
        assert failed.value.exit_code == 1


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_chunk_of_version_04_is_named(tmp_path: Path, keep: float) -> None:
    a = write_image(
        tmp_path / "a.zarr",
        random_pixels(24, 24),
        "yx",
        zarr_format=2,
        compressors=numcodecs.Blosc(cname="lz4"),
    )
    break_chunk(a / "0/1.2", keep)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError, match=r"a\.zarr/0: cannot read chunk \(1, 2\): "):
        plane.read(ALL, ALL)


@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_shard_is_named(tmp_path: Path, codec: str) -> None:
    a = write_image(
        tmp_path / "a.zarr", random_pixels(40, 40), "yx", shards=(16, 16), compressors=CODECS[codec]
    )
    break_chunk(a / "0/c/1/0", 0.7)
    (plane,) = image_planes(open_image(a), 0, (0,))
    for window in (ALL, slice(20, 23)):
        with pytest.raises(RunError, match=r"a\.zarr/0: cannot read chunk \(1, 0\): "):
            plane.read(window, ALL)


def test_a_flipped_byte_is_noticed_where_there_is_a_checksum(tmp_path: Path) -> None:
    a = write_image(
        tmp_path / "a.zarr",
        random_pixels(16, 16),
        "yx",
        compressors=[zarr.codecs.ZstdCodec(checksum=True)],
    )
    file = a / "0/c/0/1"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError, match=r"chunk \(0, 1\)"):
        plane.read(ALL, ALL)


def test_a_blosc_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    a = write_image(
        tmp_path / "a.zarr", random_pixels(16, 16), "yx", compressors=zarr.codecs.BloscCodec()
    )
    file = a / "0/c/0/1"
    content = bytearray(file.read_bytes())
    content[4:8] = (2**31 - 1).to_bytes(4, "little")
    file.write_bytes(content)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError, match="decodes to 2147483647 bytes"):
        plane.read(ALL, ALL)


def test_many_broken_chunks_are_not_all_listed(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(40, 40), "yx")
    for file in (a / "0/c").rglob("*"):
        if file.is_file():
            break_chunk(file, 0.3)
    (plane,) = image_planes(open_image(a), 0, (0,))
    with pytest.raises(RunError) as failed:
        plane.read(ALL, ALL)
    assert all(f"(0, {i}): " in str(failed.value) for i in range(3))
    assert str(failed.value).endswith(" and more")


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    a = write_image(tmp_path / "a.zarr", random_pixels(8, 8), "yx")
    (plane,) = image_planes(open_image(a), 0, (0,))
    a.rename(tmp_path / "b.zarr")
    with pytest.raises(RunError, match=r"a\.zarr/0: cannot be read: .*No such file"):
        plane.read(ALL, ALL)


def test_plane_is_what_the_interface_says(tmp_path: Path) -> None:
    image = open_image(write_image(tmp_path / "a.zarr", random_pixels(8, 8), "yx"))
    (plane,) = image_planes(image, 0, (0,))
    assert isinstance(plane, Plane)
    assert plane.index == ()
    assert hash(plane) == hash(replace(plane))
