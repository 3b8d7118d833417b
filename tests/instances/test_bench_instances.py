"""The benchmark of objects runs, in a tiny size, and finds the same in every way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_instances


@pytest.mark.parametrize("way", bench_instances.WAYS)
def test_every_way_to_label_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    if way not in bench_instances.installed():
        pytest.skip(f"{way} is not installed")
    folder = bench_instances.write_mask(tmp_path, 300, 128)
    bench_instances.measure_one("scipy", folder)
    bench_instances.measure_one(way, folder)
    whole, found = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert found["objects"] == whole["objects"] > 1
    assert found["seconds"] > 0 and found["peak"] > 50e6
    assert way != "ours" or bench_instances.same_ids(folder)


def test_other_ids_are_noticed(tmp_path: Path) -> None:
    import zarr

    folder = bench_instances.write_mask(tmp_path, 300, 128)
    for way in ("scipy", "ours"):
        bench_instances.measure_one(way, folder)
    zarr.open_array(folder / "ours", mode="r+")[299, 299] = 77
    assert not bench_instances.same_ids(folder)
