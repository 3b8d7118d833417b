"""The benchmark of outlines runs in a tiny size; a large one is read back by shapely."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from benchmarks import bench_export
from bigunet.exports.run import export_labels


def test_outlines_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = bench_export.write_discs(tmp_path / "a.zarr", 1, 1)
    bench_export.measure_one(slide, "sync")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["objects"] == 1024
    assert found["bytes"] == (tmp_path / "out.geojson").stat().st_size
    assert found["seconds"] > 0 and found["peak"] > 50e6


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 2), pytest.param(10, 10, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_all_of_many_objects_are_valid(tmp_path: Path, rows: int, columns: int) -> None:
    slide = bench_export.write_discs(tmp_path / "a.zarr", rows, columns)
    result = export_labels(slide, "discs", tmp_path / "a.geojson", scheduler="sync")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert len(features) == result.objects == rows * columns * 1024
    assert len({feature["id"] for feature in features}) == len(features)
    geometries = np.array([shapely.geometry.shape(f["geometry"]) for f in features])
    assert shapely.is_valid(geometries).all()
    areas = [feature["properties"]["measurements"]["Area px^2"] for feature in features]
    np.testing.assert_array_equal(shapely.area(geometries), areas)
