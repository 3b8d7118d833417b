"""Label OME-TIFF, read back with tifffile."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from bigunet.errors import DependencyError, RunError
from bigunet.exports import tiff
from bigunet.exports.run import export_labels
from tests.exports.made_labels import write_labelled

NAMESPACE = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def noise(shape: tuple[int, ...], dtype: str, most: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, most, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize(
    ("axes", "shape", "chunk"),
    [
        ("yx", (70, 133), 64),
        ("yx", (70, 133), 37),
        ("zyx", (2, 70, 133), 64),
        ("tzyx", (2, 3, 9, 14), 9),
    ],
)
def test_every_level_of_every_plane_is_the_labels(
    tmp_path: Path, axes: str, shape: tuple[int, ...], chunk: int
) -> None:
    labels = noise(shape, "uint32", 2**32 - 1)
    image = write_labelled(tmp_path / "a.zarr", labels, axes, chunk=chunk, label_levels=3)
    done = []
    out = tmp_path / "a.ome.tif"
    export_labels(image, "cells", out, progress=lambda *pixels: done.append(pixels))
    with tifffile.TiffFile(out) as file:
        (series,) = file.series
        assert (series.axes, series.dtype) == (axes.upper(), labels.dtype)
        for k, level in enumerate(series.levels):
            np.testing.assert_array_equal(level.asarray(), labels[..., :: 2**k, :: 2**k])
        assert len(series.levels) == 3
        page = file.pages.first
        assert page.is_tiled and page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.tilewidth == (64 if chunk == 64 else 512)
    assert done[-1][0] == done[-1][1] and len({total for _, total in done}) == 1


def test_ome_xml_has_name_and_physical_sizes(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "a.zarr", noise((20, 30), "uint16", 9), unit="nanometer")
    export_labels(image, "cells", tmp_path / "a.ome.tiff")
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as file:
        assert file.is_ome
        root = ElementTree.fromstring(file.ome_metadata)
    pixels = root.find(f"{NAMESPACE}Image/{NAMESPACE}Pixels")
    assert root.find(f"{NAMESPACE}Image").attrib["Name"] == "cells"
    wanted = {
        "Type": "uint16",
        "SizeX": "30",
        "SizeY": "20",
        "SizeC": "1",
        "PhysicalSizeX": "0.0005",
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": "0.0005",
    }
    assert wanted.items() <= pixels.attrib.items()


def test_without_a_unit_there_is_no_physical_size(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "a.zarr", noise((20, 30), "uint8", 9), unit=None)
    export_labels(image, "cells", tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome and "PhysicalSize" not in file.ome_metadata


def test_the_same_label_gives_the_same_bytes(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "a.zarr", noise((90, 80), "uint16", 999))
    for name in ("a.ome.tif", "b.ome.tif"):
        export_labels(image, "cells", tmp_path / name)
    assert (tmp_path / "a.ome.tif").read_bytes() == (tmp_path / "b.ome.tif").read_bytes()


def test_large_files_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_labelled(tmp_path / "a.zarr", noise((90, 80), "uint16", 999))
    for most, is_big in ((90 * 80 * 2, True), (90 * 80 * 2 + 1, False)):
        monkeypatch.setattr(tiff, "CLASSIC", most)
        export_labels(image, "cells", tmp_path / "a.ome.tif", overwrite=True)
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            assert file.is_bigtiff == is_big


@pytest.mark.parametrize(
    ("dtype", "stored"), [("int8", "uint8"), ("int16", "uint16"), ("int64", "uint32")]
)
def test_other_integers_are_stored_without_loss(tmp_path: Path, dtype: str, stored: str) -> None:
    labels = noise((20, 30), dtype, 100)
    image = write_labelled(tmp_path / "a.zarr", labels)
    export_labels(image, "cells", tmp_path / "a.ome.tif")
    found = tifffile.imread(tmp_path / "a.ome.tif")
    assert found.dtype == stored
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("dtype", "number", "line"),
    [("uint64", 2**32, "id 4294967296 is larger than 4294967295"), ("int32", -3, "id -3 is neg")],
)
def test_ids_that_a_tiff_cannot_hold_are_refused(
    tmp_path: Path, dtype: str, number: int, line: str
) -> None:
    image = write_labelled(tmp_path / "a.zarr", np.array([[0, number]], dtype))
    with pytest.raises(RunError, match=line):
        export_labels(image, "cells", tmp_path / "a.ome.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_without_tifffile_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_labelled(tmp_path / "a.zarr", noise((4, 4), "uint8", 9))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DependencyError, match=r'pip install "bigunet\[tiff\]"'):
        export_labels(image, "cells", tmp_path / "a.ome.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
