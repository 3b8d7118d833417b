"""The benchmark of the machinery in a tiny size, and what it simulates."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from slides import read_label

from benchmarks import bench_cluster
from benchmarks.simulated import BlankPlane, simulation, write_blank_slide
from bigunet import UNet
from bigunet.images.open import open_image
from bigunet.pipeline import plan_image
from bigunet.work import write_window


def test_the_machinery_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = write_blank_slide(tmp_path / "slide.zarr", 4096, 1024)
    bench_cluster.measure_plan(slide, 1024)
    bench_cluster.measure_run(slide, 1024, "threads", 2)
    plan, run = map(json.loads, capsys.readouterr().out.splitlines())
    assert (plan["blocks"], plan["tiles"]) == (16, 64)
    assert run["blocks"]["computed"] == 16 and run["cpu_milliseconds_per_block"] > 0
    assert open_image(slide / "labels" / "x").levels[0].shape == (4096, 4096)
    assert not read_label(slide, "x").any()


def test_only_what_is_simulated_has_blank_planes(tmp_path: Path) -> None:
    slide = write_blank_slide(tmp_path / "slide.zarr", 300, 128)
    with simulation():
        plane = plan_image(slide, UNet(1, 2, width=1, depth=1)).planes[0]
        from bigunet.work import write_window as nothing
    assert nothing is not write_window
    assert not isinstance(plan_image(slide, UNet(1, 2, width=1, depth=1)).planes[0], BlankPlane)
    blank = pickle.loads(pickle.dumps(plane)).read(slice(0, 200), slice(290, 310))
    assert isinstance(plane, BlankPlane) and blank.shape == (1, 200, 10)
    assert set(blank.strides) == {0} and blank.dtype == np.uint8 and not blank.any()


def test_bare_passes_of_two_processes_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    bench_cluster.measure_bare(2, tile=64, passes=1)
    assert json.loads(capsys.readouterr().out)["seconds"] > 0
