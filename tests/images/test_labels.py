"""Labels and probabilities are valid, and readers find them with all that is known."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Multiscales, Reader

from bigunet.images.open import open_image
from tests.images.stores import (
    PROVENANCE,
    consolidate,
    consolidated_view,
    fill,
    metadata,
    plan,
    run,
    write_image,
)

LAYOUTS = [(v, a) for v in ("0.4", "0.5") for a in ("yx", "cyx", "zyx", "tczyx")]


def read_nodes(path: Path) -> dict[str, Any]:
    """What ome-zarr-py's reader finds, by path; it complains in its log only."""
    location = parse_url(path)
    assert location is not None
    return {node.zarr.path: node for node in Reader(location)()}


def models_class(path: Path) -> str:
    return type(ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))).__name__


# Readers


@pytest.mark.parametrize(("version", "axes"), LAYOUTS)
@pytest.mark.parametrize("levels", [1, 3])
def test_labels_are_valid_and_found(tmp_path, version, axes, levels, caplog):
    image = write_image(tmp_path / "in.zarr", axes, version, levels)
    destination = run(image)
    label = image / "labels" / "nuclei"
    assert destination.path == label
    assert models_class(image) == "Image"
    assert models_class(image / "labels") == "Labels"
    assert models_class(label) == "ImageLabel"
    with caplog.at_level(logging.WARNING):
        nodes = read_nodes(image)
    assert not [r for r in caplog.records if "no parent" in r.message]
    node = nodes[str(label)]
    assert node.load(Label) is not None
    assert [a["name"] for a in node.metadata["axes"]] == [a for a in axes if a != "c"]
    source = open_image(image)
    shapes = [
        tuple(n for n, a in zip(s.shape, axes, strict=True) if a != "c") for s in source.levels
    ]
    assert [d.shape for d in node.data] == shapes
    assert (node.data[0].max().compute(), node.data[0].dtype) == (1, np.uint8)
    assert not (image / "labels" / ".bigunet-nuclei").exists()
    assert open_image(image).labels == ("nuclei",)
    assert open_image(label).axis_names == axes.replace("c", "")


@pytest.mark.parametrize(("version", "axes"), LAYOUTS)
@pytest.mark.parametrize("save", [("probabilities",), ("classes", "probabilities")])
def test_probabilities_are_an_image_of_their_own(tmp_path, version, axes, save):
    image = write_image(tmp_path / "in.zarr", axes, version)
    out = tmp_path / "deep" / "out.zarr"
    assert run(image, 200, output=out, save=save).path == out
    assert models_class(out) == "Image"
    with_c = ("t" if "t" in axes else "") + "c" + axes.replace("t", "").replace("c", "")
    opened = open_image(out)
    assert opened.axis_names == with_c
    assert opened.version == version
    assert [c.name for c in opened.channels] == ["background", "nucleus", "border"]
    assert opened.levels[0].shape[with_c.index("c")] == 3
    nodes = read_nodes(out)
    node = nodes[str(out)]
    assert node.load(Multiscales) is not None
    assert node.metadata["contrast_limits"] == [[0, 255]] * 3
    assert int(node.data[1].max().compute()) == 100
    inner = out / "labels" / "nuclei"
    assert (str(inner) in nodes) == ("classes" in save)
    if "classes" in save:
        assert models_class(inner) == "ImageLabel"
        assert metadata(inner)["image-label"]["source"] == {"image": "../../"}
    assert not (out / ".bigunet").exists()
    assert not (image / "labels").exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_classes_alone_are_the_root_of_an_output(tmp_path, version):
    image = write_image(tmp_path / "in.zarr", "cyx", version)
    out = tmp_path / "out.zarr"
    run(image, output=out)
    assert models_class(out) == "ImageLabel"
    assert metadata(out)["image-label"]["source"] == {"image": "../in.zarr/"}
    assert set(read_nodes(out)) == {str(out), str(image)}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_metadata_say_all_that_is_known(tmp_path, version):
    image = write_image(tmp_path / "in.zarr", "cyx", version, translation=(0, 10, 20))
    destination = plan(image, level=1)
    destination.create()
    fill(destination)
    destination.commit(PROVENANCE, ["background", "cell"], ["#102030", (1, 2, 3)])
    found = metadata(image / "labels" / "nuclei")
    assert found["bigunet"] == PROVENANCE
    assert found["image-label"] == {
        "version": version,
        "colors": [
            {"label-value": 0, "rgba": [0, 0, 0, 0]},
            {"label-value": 1, "rgba": [1, 2, 3, 255]},
        ],
        "properties": [
            {"label-value": 0, "class": "background"},
            {"label-value": 1, "class": "cell"},
        ],
        "source": {"image": "../../"},
    }
    multiscale = found["multiscales"][0]
    assert multiscale["name"] == "nuclei"
    assert multiscale.get("version") == (None if version == "0.5" else "0.4")
    micrometer = {"type": "space", "unit": "micrometer"}
    assert multiscale["axes"] == [{"name": "y"} | micrometer, {"name": "x"} | micrometer]
    shift = {"type": "translation", "translation": [10.0, 20.0]}
    assert [d["coordinateTransformations"] for d in multiscale["datasets"]] == [
        [{"type": "scale", "scale": [scale, scale]}, shift] for scale in (1.0, 2.0, 4.0)
    ]
    arrays = [zarr.open_array(image / "labels" / "nuclei" / str(k), mode="r") for k in range(3)]
    assert [a.shape for a in arrays] == [(25, 19), (13, 10), (7, 5)]
    assert [a.chunks for a in arrays] == [(16, 8), (13, 8), (7, 5)]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_arrays_have_checksums(tmp_path, version):
    image = write_image(tmp_path / "in.zarr", "yx", version)
    run(image)
    folder = image / "labels" / "nuclei" / "0"
    if version == "0.4":
        content = json.loads((folder / ".zarray").read_text())
        assert content["compressor"] == {"id": "zstd", "level": 3, "checksum": True}
        assert content["dimension_separator"] == "/"
    else:
        content = json.loads((folder / "zarr.json").read_text())
        assert content["codecs"][-1]["configuration"]["checksum"] is True
        assert content["dimension_names"] == ["y", "x"]
    chunk = folder / ("0/0" if version == "0.4" else "c/0/0")
    raw = bytearray(chunk.read_bytes())
    raw[-1] ^= 1
    chunk.write_bytes(raw)
    with pytest.raises((ValueError, RuntimeError)):
        zarr.open_array(folder, mode="r")[:]


def test_older_versions_get_a_label_of_0_4(tmp_path):
    image = write_image(tmp_path / "in.zarr", "tczyx", "0.3")
    group = zarr.open_group(image)
    multiscale = group.attrs["multiscales"][0] | {"version": "0.1"}
    del multiscale["axes"]
    group.attrs["multiscales"] = [multiscale]
    assert open_image(image).version == "0.1"
    run(image)
    assert models_class(image / "labels" / "nuclei") == "ImageLabel"
    assert models_class(image / "labels") == "Labels"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_other_labels_stay_listed(tmp_path, version):
    image = write_image(tmp_path / "in.zarr", "yx", version)
    run(image, name="a")
    labels = image / "labels"
    if version == "0.5":  # as ome-zarr-py writes it
        group = zarr.open_group(labels)
        group.attrs["ome"] = {"labels": ["a"], "extra": 1}
    else:
        zarr.open_group(labels).attrs["extra"] = 1
    run(image, name="b")
    assert metadata(labels)["labels"] == ["a", "b"]
    assert metadata(labels)["extra"] == 1
    assert models_class(labels) == "Labels"
    assert {n.zarr.basename() for n in read_nodes(image).values()} >= {"a", "b"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_metadata_are_what_zarr_would_write(tmp_path, version):
    plate = tmp_path / "plate.zarr"
    zarr.create_group(plate, zarr_format=3 if version == "0.5" else 2).attrs["plate"] = {"a": 1}
    zarr.open_group(plate).create_group("A")
    image = write_image(plate / "A" / "1", "cyx", version, consolidated=True)
    consolidate(plate)
    run(image)
    for value, overwrite in ((1, False), (2, True)):
        if overwrite:
            run(image, value, overwrite=True, chunk=(32, 32))
        for group in (plate, image):
            found = consolidated_view(group)
            consolidate(group)
            assert found == consolidated_view(group)
            assert any(key.endswith("labels/nuclei/0") for key in found)
        assert zarr.open_group(plate)["A/1/labels/nuclei/0"][0, 1] == value
