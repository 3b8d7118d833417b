"""``bigunet export`` on small images, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from commands import edit, refused, run

from tests.exports.made_labels import write_labelled


@pytest.fixture
def image(tmp_path: Path) -> Path:
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((5, 5), int)).astype(np.uint16)
    return write_labelled(tmp_path / "a.zarr", labels)


@pytest.mark.parametrize(
    "name", ["a.geojson", "A.GeoJSON", "a.geojson.gz", "a.ome.tif", "a.ome.tiff"]
)
def test_the_ending_says_what_is_written(image: Path, name: str) -> None:
    out = image.parent / name
    done = run("export", image, out, "--labels", "cells")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(out)
    begin = out.read_bytes()[:2]
    assert begin == {"n": b'{"', "N": b'{"', "z": b"\x1f\x8b"}.get(name[-1], b"II")


def test_what_is_said(image: Path) -> None:
    out = image.parent / "a.geojson"
    done = run("export", image, out, "--labels", "cells", "--json", "-q", "--workers", 1)
    facts = json.loads(done.stdout)
    assert (facts["path"], facts["objects"]) == (str(out), 11)
    assert not done.stderr
    features = json.loads(out.read_text())["features"]
    areas = [shapely.geometry.shape(feature["geometry"]).area for feature in features]
    assert areas == [25] * 11


def test_nothing_is_replaced_unasked(image: Path) -> None:
    out = image.parent / "a.ome.tif"
    out.write_text("mine")
    assert "--overwrite" in refused(image.parent, "export", image, out, "--labels", "cells")
    assert run("export", image, out, "--labels", "cells", "--overwrite", "-q").exit_code == 0
    assert tifffile.imread(out).max() == 11


def test_a_label_elsewhere_is_named_by_its_path(image: Path, tmp_path: Path) -> None:
    elsewhere = (image / "labels" / "cells").rename(tmp_path / "found.zarr")
    done = run("export", image, tmp_path / "a.geojson", "--labels", elsewhere)
    assert done.stdout.startswith("11 objects in")


BAD = {
    "a.shp": "a.shp: the ending says what to write",
    "a.tif": "a.tif: the ending says what to write",
    "nowhere/a.geojson": "there is no folder",
    "a.geojson --labels nuclei": "has no labels 'nuclei': it has cells",
    "a.geojson --scheduler nowhere": "nowhere",
    "a.geojson --workers 0": "--workers",
}


@pytest.mark.parametrize("options", BAD)
def test_bad_options_are_refused_in_one_line(image: Path, options: str) -> None:
    out, *more = options.split()
    line = refused(image.parent, "export", image, image.parent / out, "--labels", "cells", *more)
    assert BAD[options] in line


def test_labels_that_do_not_fit_are_refused(image: Path) -> None:
    write_labelled(image.parent / "b.zarr", np.zeros((3, 3), np.uint8))
    other = image.parent / "b.zarr" / "labels" / "cells"
    for name in ("a.geojson", "a.ome.tif"):
        out = image.parent / name
        line = refused(image.parent, "export", image, out, "--labels", other)
        assert "3 × 3 (yx) pixels, and no level of" in line


def test_labels_of_floats_are_refused(image: Path) -> None:
    edit(
        image / "labels" / "cells" / "0" / "zarr.json",
        lambda content: content.update(data_type="float32", fill_value=0.0),
    )
    out = image.parent / "a.geojson"
    line = refused(image.parent, "export", image, out, "--labels", "cells")
    assert "labels are integers" in line


def test_negative_ids_end_in_one_line(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "a.zarr", np.array([[3, -1]], np.int16))
    for name in ("a.geojson", "a.ome.tif"):
        done = run("export", image, tmp_path / name, "--labels", "cells", "-q")
        (line,) = done.stderr.splitlines()
        assert done.exit_code == 1 and "id -1" in line and "negative" in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
