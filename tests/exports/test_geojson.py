"""GeoJSON of objects, read back with json and shapely and compared with the whole label."""

from __future__ import annotations

import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bigunet.cluster import open_executor
from bigunet.errors import RunError
from bigunet.exports.geojson import feature_maker, write_collection
from bigunet.exports.run import export_labels
from bigunet.images.open import image_planes, open_image, open_labels
from bigunet.walk import walk_objects
from tests.exports.made_labels import write_labelled

Json = dict[str, Any]


def exported(image: Path, **options: Any) -> list[Json]:
    """Export a label with blocks of any size; the features as they are read back."""
    out = image.parent / "out.geojson"
    labels = open_labels(open_image(image), "cells")
    maker = feature_maker(open_image(image), labels)
    with open_executor("threads", 2) as executor:
        features = walk_objects(image_planes(labels, 0, (0,)), maker, executor, **options)
        write_collection(out, features, zipped=False)
    content = json.loads(out.read_text())
    assert content["type"] == "FeatureCollection"
    found: list[Json] = content["features"]
    return found


def drawn(features: list[Json], shape: tuple[int, int]) -> np.ndarray:
    """Paint the features, which must be valid, into an empty label."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.zeros(shape, dtype=np.int64)
    for feature in features:
        geometry = shapely.geometry.shape(feature["geometry"])
        assert geometry.is_valid
        inside = shapely.contains_xy(geometry, x, y)
        assert geometry.area == inside.sum()
        assert feature["properties"]["measurements"]["Area px^2"] == inside.sum()
        assert not labels[inside].any()
        labels[inside] = int(feature["properties"]["name"])
    return labels


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    values=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)),
    kinds=st.integers(1, 9),
    block=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    largest_box=st.sampled_from([1, 9, 40, 10**6]),
)
def test_features_are_the_label(
    tmp_path_factory: pytest.TempPathFactory,
    values: np.ndarray,
    kinds: int,
    block: tuple[int, int],
    largest_box: int,
) -> None:
    labels = (values % (kinds + 1)).astype(np.uint32) * 1000
    image = write_labelled(tmp_path_factory.mktemp("a") / "a.zarr", labels, chunk=4)
    whole = exported(image)
    np.testing.assert_array_equal(drawn(whole, labels.shape), labels)
    # Objects above the largest box come in pieces, and are the same.
    assert exported(image, block=block, largest_box=largest_box) == whole


def test_what_qupath_reads(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint16)
    labels[1:3, 2:6] = 7
    (feature,) = exported(write_labelled(tmp_path / "a.zarr", labels))
    assert uuid.UUID(feature.pop("id")).version == 5
    assert feature == {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[2, 1], [6, 1], [6, 3], [2, 3], [2, 1]]],
        },
        "properties": {
            "objectType": "detection",
            "name": "7",
            "measurements": {"Area px^2": 8, "Area µm^2": 2.0},
        },
    }


def test_parts_of_one_id_are_a_multipolygon_with_holes(tmp_path: Path) -> None:
    labels = np.zeros((9, 30), np.uint16)
    labels[1:6, 1:6] = 3
    labels[3, 3] = 0
    labels[8, 29] = 3
    (feature,) = exported(write_labelled(tmp_path / "a.zarr", labels, chunk=4))
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert [len(part) for part in feature["geometry"]["coordinates"]] == [2, 1]
    np.testing.assert_array_equal(drawn([feature], labels.shape), labels)


@pytest.mark.parametrize(("shape", "factor"), [((32, 48), (4, 4)), ((31, 46), (4, 4))])
def test_coordinates_are_those_of_level_0(
    tmp_path: Path, shape: tuple[int, int], factor: tuple[int, int]
) -> None:
    labels = np.zeros((8, 12), np.uint16)
    labels[2:4, 5:8] = 1
    (feature,) = exported(write_labelled(tmp_path / "a.zarr", labels, level=2, shape=shape))
    geometry = shapely.geometry.shape(feature["geometry"])
    assert geometry.bounds == (5 * 4, 2 * 4, 8 * 4, 4 * 4)
    assert feature["properties"]["measurements"] == {"Area px^2": 96, "Area µm^2": 24.0}


def test_planes_are_named_as_qupath_does(tmp_path: Path) -> None:
    labels = np.zeros((2, 3, 4, 5), np.uint8)
    labels[:, :, 1:3, 1:4] = np.arange(1, 7).reshape(2, 3, 1, 1)
    features = exported(write_labelled(tmp_path / "a.zarr", labels, "tzyx"))
    planes = [feature["geometry"].get("plane") for feature in features]
    assert planes == [
        None,
        *({"c": -1, "z": z, "t": t} for t, z in [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
    ]
    assert len({feature["id"] for feature in features}) == 6


def test_without_a_unit_areas_are_in_pixels_only(tmp_path: Path) -> None:
    labels = np.ones((2, 2), np.uint8)
    (feature,) = exported(write_labelled(tmp_path / "a.zarr", labels, unit=None))
    assert feature["properties"]["measurements"] == {"Area px^2": 4}


def test_classes_have_names_and_colours(tmp_path: Path) -> None:
    labels = np.array([[1, 0, 2, 0, 9]], np.uint16)
    image = write_labelled(tmp_path / "a.zarr", labels)
    numbers = np.array([0, 2, 1], np.uint8)
    array = zarr.open_group(image / "labels" / "cells").create_array("classes", data=numbers)
    array.attrs["class_names"] = ["background", "nucleus", "border"]
    array.attrs["class_colors"] = ["000000", "e69f00", "56b4e9"]
    found = [feature["properties"].get("classification") for feature in exported(image)]
    assert found == [
        {"name": "border", "color": [86, 180, 233]},
        {"name": "nucleus", "color": [230, 159, 0]},
        None,
    ]


def test_a_class_map_has_the_names_of_its_values(tmp_path: Path) -> None:
    stated = {
        "colors": [{"label-value": 1, "rgba": [1, 2, 3, 255]}],
        "properties": [{"label-value": 1, "class": "nucleus"}],
    }
    labels = np.array([[1, 0, 1]], np.uint8)
    image = write_labelled(tmp_path / "a.zarr", labels, **{"image-label": stated})
    (feature,) = exported(image)
    assert feature["properties"]["classification"] == {"name": "nucleus", "color": [1, 2, 3]}


def test_ids_up_to_64_bits(tmp_path: Path) -> None:
    labels = np.array([[2**64 - 1, 0, 2**53 + 1]], np.uint64)
    features = exported(write_labelled(tmp_path / "a.zarr", labels))
    names = [feature["properties"]["name"] for feature in features]
    assert names == ["18446744073709551615", "9007199254740993"]


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_bytes_do_not_depend_on_who_works(tmp_path: Path, scheduler: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 40, (12, 9)), np.ones((5, 6), int)).astype(np.uint32)
    plain = write_labelled(tmp_path / "a" / "a.zarr", labels, chunk=8)
    other = write_labelled(tmp_path / "b" / "a.zarr", labels, chunk=32, zarr_format=2)
    first, second = tmp_path / "first.geojson", tmp_path / "second.geojson.gz"
    export_labels(plain, "cells", first, scheduler="sync")
    export_labels(other, "cells", second, scheduler=scheduler, workers=2)
    assert gzip.decompress(second.read_bytes()) == first.read_bytes()
    again = tmp_path / "again.geojson.gz"
    export_labels(plain, "cells", again, workers=1)
    assert again.read_bytes() == second.read_bytes()


def test_an_empty_label_is_an_empty_collection(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "a.zarr", np.zeros((5, 5), np.uint8))
    result = export_labels(image, "cells", tmp_path / "a.geojson")
    assert result.objects == 0
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content == {"type": "FeatureCollection", "features": []}


def test_what_fails_at_work_leaves_what_was_there(tmp_path: Path) -> None:
    labels = np.array([[1, -5]], np.int32)
    image = write_labelled(tmp_path / "a.zarr", labels)
    out = tmp_path / "out.geojson"
    out.write_text("before")
    with pytest.raises(RunError, match=r"id -5 at row 0, column 1 is negative"):
        export_labels(image, "cells", out, overwrite=True)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "out.geojson"]
