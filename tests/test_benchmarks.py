"""Benchmarks run in tiny sizes, so that they do not rot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_memory, bench_segment, measure


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    found: dict[str, float] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize("way", bench_segment.WAYS)
def test_every_way_to_segment_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    from bigunet.images.sample import write_sample

    slide = write_sample(tmp_path / "slide.zarr", 300, 0)
    bench_segment.measure_one(way, slide, width=2, depth=2)
    found = last_line(capsys)
    assert found["seconds"] > 0 and found["peak"] > 50e6


def test_a_repeated_slide_is_a_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = bench_memory.write_repeated_slide(tmp_path / "slide.zarr", 2100)
    bench_memory.measure_one(slide, block=1024)
    found = last_line(capsys)
    assert found["blocks"] == 4 and found["projected"] > 100e6


def test_results_say_what_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    path = measure.save_results("x", {"figure": 1})
    saved = json.loads(path.read_text())
    assert saved["figure"] == 1
    assert {"command", "commit", "date", "cpu", "cores", "device", "torch"} <= set(
        saved["conditions"]
    )
