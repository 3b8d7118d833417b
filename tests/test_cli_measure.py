"""``bigunet measure`` on a small sample."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from commands import refused, run
from pyarrow import parquet
from test_packaging import run_without

from benchmarks.threshold_model import write_threshold_model


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measure") / "slide.zarr"
    assert run("sample", path, "--size", "150", "-q").exit_code == 0
    return path


def test_a_table_beside_the_words(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("measure", slide, "--labels", "truth")
    assert done.exit_code == 0, done.output
    first, last = done.stdout.splitlines()
    table = parquet.read_table("truth.parquet")
    assert first.startswith(f"{table.num_rows} objects in ")
    assert last == str(tmp_path / "truth.parquet")
    assert {"area_um2", "perimeter", "intensity_std-DAPI"} <= set(table.column_names)


def test_options_choose_columns_and_format(slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    options = ["--properties", "solidity, intensity_max", "--channels", "0", "--units", "px"]
    done = run("measure", slide, "--labels", "truth", "--output", out, *options, "--json", "-q")
    facts = json.loads(done.stdout)
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == facts["objects"] > 3 and facts["path"] == str(out)
    assert (
        list(rows[0])
        == facts["columns"]
        == [
            *("id", "area", "centroid_y", "centroid_x"),
            *("bbox_top", "bbox_left", "bbox_bottom", "bbox_right"),
            *("solidity", "intensity_max-DAPI"),
        ]
    )
    assert not done.stderr


def test_refusals_are_one_line(slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    given = ["measure", slide, "--output", out, "--labels"]
    assert "has no labels 'nuclei': it has truth" in refused(tmp_path, *given, "nuclei")
    assert "is unknown" in refused(tmp_path, *given, "truth", "--properties", "rondness")
    assert "is not a list of names" in refused(tmp_path, *given, "truth", "--properties", "a,,b")
    out.write_text("mine")
    assert "or --overwrite" in refused(tmp_path, *given, "truth")
    done = run(*given, "truth", "--overwrite", "--scheduler", "sync", "-q")
    assert done.exit_code == 0 and out.read_text().startswith("id,area,area_um2,")


def test_objects_that_segment_wrote_have_a_class_and_its_probability(
    slide: Path, tmp_path: Path
) -> None:
    write_threshold_model(tmp_path / "model.pt")
    result, out = tmp_path / "result.zarr", tmp_path / "a.csv"
    save = ["--save", "objects,probabilities", "--output", result, "--name", "cells"]
    done = run("segment", slide, "--model", tmp_path / "model.pt", *save, "-q")
    assert done.exit_code == 0, done.output
    assert run("measure", result, "--labels", "cells", "--output", out, "-q").exit_code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [int(row["id"]) for row in rows] == list(range(1, len(rows) + 1))
    assert {row["class_name"] for row in rows} == {"nucleus"}
    # A pixel is of the class that is more probable than the other.
    assert all(0.49 < float(row["probability"]) <= 1 for row in rows)
    assert not [name for name in rows[0] if name.startswith("intensity")]


@pytest.mark.parametrize(
    ("package", "way_out"),
    [("pyarrow", "give --output a name that ends in .csv"), ("skimage", "bigunet[measure]")],
)
def test_a_missing_package_is_one_line(slide: Path, package: str, way_out: str) -> None:
    code = (
        f"from bigunet.cli.main import main\nmain(['measure', {str(slide)!r}, '--labels', 'truth'])"
    )
    done = run_without({package}, code)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and way_out in line, line
