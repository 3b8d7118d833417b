"""Benchmarks of speed in tiny sizes, and the arithmetic that their figures rest on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_model, whole_image_scores
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    bench_gpu,
    bench_precision,
    bench_profile,
    bench_scaling,
    bench_segment,
    measure,
    ways,
)
from benchmarks.bench_profile import Interval, Stopwatch
from benchmarks.flops import forward_flops
from benchmarks.inputs import make_network, write_repeated_slide
from benchmarks.timed import forward_seconds, timed_passes
from bigunet import UNet, segment_image
from bigunet.errors import BigunetError
from bigunet.geometry import input_size, legal_output
from bigunet.images.open import open_image
from bigunet.images.sample import write_sample

ROOT = Path(__file__).resolve().parents[1]

Main = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small passes gain nothing from threads of torch, and lose much on a busy machine."""
    from bigunet import sites

    monkeypatch.setattr(sites, "available_cores", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Run a benchmark's command in this process, and return the lines it prints.

    What it would run in processes of their own runs here, too.
    """

    def run(module: ModuleType, *arguments: object) -> list[str]:
        before = capsys.readouterr().out.splitlines()
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        module.main()
        return before + capsys.readouterr().out.splitlines()

    def in_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
        try:
            lines = run(sys.modules[module], *arguments)
        except BigunetError as error:
            raise RuntimeError(f"{module} failed:\n{error}") from error
        found: dict[str, Any] = json.loads(lines[-1])
        sys.stdout.write("".join(f"{line}\n" for line in lines[:-1]))
        return found

    for module in (bench_segment, bench_scaling):
        monkeypatch.setattr(module, "in_process", in_process)
    return run


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let results be saved in a folder of the test's."""
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    return tmp_path / "benchmarks" / "results"


@settings(max_examples=20)
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(1, 3),
)
def test_operations_are_those_that_torch_counts(
    width: int, depth: int, channels: int, classes: int, shape: tuple[int, int], batch: int
) -> None:
    size = tuple(input_size(legal_output(side, depth), depth) for side in shape)
    with torch.device("meta"):
        model = UNet(channels, classes, width=width, depth=depth).eval()
        image = torch.empty(batch, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(image)
    assert forward_flops(model, (size[0], size[1]), batch) == counter.get_total_flops()


def test_forward_passes_are_timed_in_whatever_process(slide: Path, tmp_path: Path) -> None:
    with timed_passes(tmp_path / "passes") as log:
        done = segment_image(slide, make_network(2, 2), tile=128, name="timed", device="cpu")
        assert 0 < forward_seconds(log) < done.seconds
    assert len(log.read_text().splitlines()) == done.plan.tiles == 9


# --- bench_segment ---


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("slides") / "slide.zarr", 300, 0)


def job(slide: Path, output: Path, **options: Any) -> ways.Job:
    limits = ((250.0, 5000.0),)
    return ways.Job(slide=slide, model=make_network(2, 2), output=output, limits=limits, **options)


@pytest.mark.parametrize("way", [way for way in ways.WAYS if not way.startswith("floor")])
def test_every_way_gives_the_classes_of_the_whole_slide(
    slide: Path, tmp_path: Path, way: str
) -> None:
    if way in ways.missing():
        pytest.skip(ways.missing()[way])
    spent = ways.WAYS[way](job(slide, tmp_path / "found.zarr"))
    ways.run_reference(job(slide, tmp_path / "reference.zarr"))
    found = ways.differing(tmp_path / "found.zarr", tmp_path / "reference.zarr")
    assert spent.seconds > 0 and found["pixels"] == 300**2
    share = np.mean(np.asarray(zarr.open_array(tmp_path / "reference.zarr" / "0", mode="r")))
    assert 0.01 < share < 0.99
    if way == "ours-bfloat16":
        assert 0 < found["differing"] < 0.02 * 300**2
    else:
        assert found["differing"] == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_floors_are_measured_and_projected(slide: Path, tmp_path: Path, precision: str) -> None:
    given = job(slide, tmp_path / "none.zarr", tile=64, runtime="eager")
    spent = ways.WAYS[f"floor-{precision}"](given)
    assert spent.seconds > 0
    assert 0.1 < ways.project_floor(given, precision) / spent.seconds < 10
    assert not (tmp_path / "none.zarr").exists()


@pytest.mark.parametrize(("depth", "side"), [(1, 8), (2, 32), (3, 16)])
def test_windows_of_one_size_give_the_scores_of_the_whole_image(depth: int, side: int) -> None:
    """The law that peers rest on: cut on their grid, with their halo, nothing is seen of it."""
    model = random_model(depth).eval()
    image = np.random.default_rng(0).random((1, 2 * side + 3, side), dtype=np.float32)
    network = ways.SameSize(model, side)
    around = network.halo
    pads = [(0, 0), *((around, around - size % side + side) for size in image.shape[1:])]
    padded = torch.from_numpy(np.pad(image, pads, mode="symmetric"))
    scores = np.zeros((2, *padded.shape[1:]), np.float32)
    for y in range(0, image.shape[1], side):
        for x in range(0, image.shape[2], side):
            window = padded[None, :, y : y + side + 2 * around, x : x + side + 2 * around]
            with torch.inference_mode():
                given = network(window)[0].numpy()
            assert given.shape[1:] == window.shape[2:]
            inside = given[:, around : around + side, around : around + side]
            scores[:, y : y + side, x : x + side] = inside
    expected = whole_image_scores(image, model)
    found = scores[:, : image.shape[1], : image.shape[2]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ways_are_compared(run_main: Main, slide: Path, results: Path) -> None:
    sizes = ("--size", 300, "--width", 2, "--depth", 2, "--repeats", 1, "--crop", 128)
    chosen = ("--ways", "floor-float32", "ours", "recipe", "monai")
    floor = ("--floor-tiles", 64, 128, "--floor-runtimes", "openvino", "eager")
    run_main(bench_segment, *sizes, *chosen, *floor, "--slide", slide, "--save", "x")
    saved = json.loads((results / "x.json").read_text())
    floor_found = saved["floors"]["float32"]
    tried = [(one["runtime"], one["tile"]) for one in floor_found["tried"]]
    assert tried == [(runtime, tile) for runtime in ("openvino", "eager") for tile in (64, 128)]
    assert (floor_found["runtime"], floor_found["tile"]) in tried
    measured = set(saved["ways"])
    assert measured | saved["left_out"].keys() >= {"floor-float32", "ours", "recipe", "monai"}
    ours = saved["ways"]["ours"]
    assert ours["differing"] == 0 and ours["pixels"] == 128**2
    assert len(ours["times_floor_without_startup_each"]) == 1
    assert ours["runtime"] == "eager", "by the rule of this suite"
    assert saved["ways"]["floor-float32"]["times_floor_each"] == [1]


def test_ratios_are_taken_run_by_run() -> None:
    def runs(*seconds: float) -> list[dict[str, Any]]:
        return [{"seconds": s, "cpu": 2 * s, "peak": 5e6} for s in seconds]

    every = {
        "floor-float32": runs(4, 8, 16),
        "ours": runs(6, 10, 18),
        "small-ours": runs(2, 2, 2),
        "recipe": runs(12, 5, 36),
    }
    found = bench_segment.figures("ours", every, 1024)
    assert found["times_floor_each"] == [1.5, 1.25, 1.125] and found["times_floor"] == 1.25
    assert found["times_recipe_each"] == [0.5, 2, 0.5]
    # A quarter of the pixels is a quarter of the floor: 1, 2 and 4 s, so that starting takes the rest.
    assert found["startup_seconds"] == 0
    assert found["times_floor_without_startup_each"] == [1.25, 1.25, 1.25]
    assert "times_monai" not in found


# --- bench_scaling ---


def test_a_repeated_slide_is_a_slide(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = write_repeated_slide(tmp_path / "slide.zarr", 150, pixels)
    (level,) = open_image(path).levels
    assert level.shape == (150, 150)
    stored = zarr.open_array(path / "0", mode="r")[:]
    np.testing.assert_array_equal(stored, np.tile(pixels, (3, 3))[:150, :150])


def test_sizes_are_measured(run_main: Main) -> None:
    options = ["--width", "1", "--depth", "1", "--block", "64", "--overlap", "direct"]
    runs = bench_scaling.measure_all([64, 192], options, 2)
    assert {size: [one["blocks"] for one in found] for size, found in runs.items()} == {
        64: [1, 1],
        192: [9, 9],
    }
    assert all(one["seconds"] > 0 and one["peak"] > 50e6 for one in runs[192])


@given(st.floats(0.1, 100), st.floats(0.2, 3), st.sets(st.integers(1, 10**9), min_size=2))
def test_the_slope_of_a_power_law_is_its_power(a: float, power: float, xs: set[int]) -> None:
    found = bench_scaling.slope([(x, a * x**power) for x in xs])
    assert found == pytest.approx(power, abs=0.01)


def test_startup_is_taken_off_before_the_slope() -> None:
    def runs(seconds: float, peak: float) -> list[dict[str, Any]]:
        facts = {"blocks": 1, "block": [1, 1], "tile": [1, 1], "runtime": "eager"}
        return [{"seconds": seconds, "peak": peak, "projected": 2 * peak, **facts}]

    sizes = {2048: runs(7, 1e8), 512: runs(3, 9e7), 1024: runs(4, 1e8), 4096: runs(19, 1.5e8)}
    found = bench_scaling.summary(sizes)
    assert found["startup_seconds"] == 3 and found["slope"] == 1 and found["growth"] == 1.5
    assert [row["size"] for row in found["sizes"]] == [1024, 2048, 4096]


# --- bench_precision ---


def test_precisions_are_compared(run_main: Main, results: Path, shared_data: Path) -> None:
    sizes = ("--size", 256, "--images", 2, "--data", shared_data / "dsb2018")
    chosen = ("--runtimes", "eager", "openvino", "--precisions", "float32", "bfloat16")
    run_main(bench_precision, *sizes, *chosen, "--save", "x")
    saved = json.loads((results / "x.json").read_text())
    assert len(saved["sets"]) == 2
    for rows in saved["sets"].values():
        same, less = rows["eager float32"], rows["eager bfloat16"]
        assert same["differing"] == 0 and same["objects"] > 0
        assert same["f1_at_0.9"] == same["count_ratio"] == 1
        assert 0 < less["differing"] < 0.01 * less["pixels"] and less["f1_at_0.9"] > 0.8
        other = rows["openvino float32"]
        assert other["differing"] <= less["differing"] and other["f1_at_0.9"] == 1


# --- bench_gpu ---


_WITHOUT_THE_REST = """
import runpy, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

here, owners = {*sys.argv.pop(1).split()}, packages_distributions()

class Here(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = {owner.lower() for owner in owners.get(name.partition(".")[0], ())}
        return super().find_spec(name, path, target) if not known or known & here else None

sys.meta_path[sys.meta_path.index(PathFinder)] = Here
runpy.run_module("benchmarks.bench_gpu", run_name="__main__", alter_sys=True)
"""


def on_a_bare_machine() -> str:
    """Return what README.md says is there, or travels as wheels; and what torch brings along."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    section = text.partition("A machine without package registries")[2].partition("\n| ")[0]
    (there,) = re.findall(r"torch with (.*?)\.", section)
    named = there.lower().replace(" and ", ", ").split(", ")
    wheels = re.findall(r"(\S+)==", section)
    assert {"numpy", "toolz"} <= {*named} and {"zarr", "dask"} <= {*wheels}
    if f"zarr=={zarr.__version__} " not in section:
        pytest.skip(f"the wheels that travel are not those of zarr {zarr.__version__}")
    brought = ["torch", "typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "filelock"]
    older = ["importlib_metadata", "zipp", "lazy-importer"]  # of Dask on Python 3.11
    return " ".join(["bigunet", "setuptools", "markupsafe", *named, *wheels, *brought, *older])


def test_a_gpu_is_measured_from_end_to_end_with_what_travels(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    options = ("--device", "cpu", "--tiny", "--output", str(path))
    command = [sys.executable, "-c", _WITHOUT_THE_REST, on_a_bare_machine(), *options]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    saved = json.loads(path.read_text())
    assert saved["complete"] and saved["conditions"]["device"]
    failed = [row for part in bench_gpu.PARTS for row in saved[part] if "failed" in row]
    assert not failed
    assert [row["tile"] for row in saved["network"]] == [16, 32, 16, 32]
    for row in saved["network"]:
        peak = next(p for p in saved["peak"] if p["precision"] == row["precision"])
        assert row["share_of_peak"] == pytest.approx(row["tflops"] / peak["tflops"])
    assert [row["size"] for row in saved["pipeline"]] == [64, 256]
    assert saved["pipeline"][1]["stages_end"].keys() >= {"plan", "segment", "commit"}
    by_precision = {row["precision"]: row for row in saved["exactness"]}
    assert by_precision["float32"]["differing"] == 0


def test_what_stops_a_measurement_loses_nothing(tmp_path: Path) -> None:
    record = bench_gpu.Record(tmp_path / "gpu.json")

    def fail() -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory\nand more")

    record.begin("network", 60)
    record.measure({"tile": 1}, lambda: {"seconds": 2})
    record.measure({"tile": 2}, fail)
    record.begin("pipeline", 0)
    time.sleep(0.001)
    record.measure({"size": 1}, lambda: pytest.fail("there was no time left for this"))
    saved = json.loads((tmp_path / "gpu.json").read_text())
    assert saved["network"] == [
        {"tile": 1, "seconds": 2},
        {"tile": 2, "failed": "OutOfMemoryError: CUDA out of memory"},
    ]
    assert saved["pipeline"] == [{"size": 1, "skipped": "no time left"}]
    assert not saved["complete"]


# --- bench_profile ---


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10)), max_size=12))
def test_covered_time_is_counted_once(spans: list[tuple[int, int]]) -> None:
    intervals = [Interval("x", start, start + size, 0, 0) for start, size in spans]
    seconds = {second for start, size in spans for second in range(start, start + size)}
    assert bench_profile.covered(intervals) == len(seconds)


def test_a_stage_is_not_charged_for_those_inside() -> None:
    watch = Stopwatch()
    inner = watch.wrap("inner", lambda: time.sleep(0.05))

    def work() -> str:
        inner()
        inner()
        return "done"

    began = time.perf_counter()
    assert watch.wrap("outer", work)() == "done"
    ended = time.perf_counter()
    rows = {row["stage"]: row for row in bench_profile.stage_figures(watch.intervals, began, ended)}
    assert rows["inner"]["calls"] == 2 and rows["inner"]["seconds"] >= 0.1
    assert sum(row["seconds"] for row in rows.values()) == pytest.approx(ended - began)
    assert rows["inner"]["cpu_seconds"] < rows["inner"]["seconds"]


@pytest.mark.parametrize("overlap", ["direct", "map_overlap"])
def test_the_time_of_a_run_is_laid_open(run_main: Main, results: Path, overlap: str) -> None:
    hooked = [resolve_name(name) for names in bench_profile.HOOKS.values() for name in names]
    sizes = ("--size", 600, "--width", 2, "--depth", 2, "--tile", 128, "--block", 256)
    run_main(bench_profile, *sizes, "--overlap", overlap, "--save", "x")
    saved = json.loads((results / "x.json").read_text())
    assert saved["plan"]["overlap"] == overlap
    stages = {row["stage"]: row for row in saved["stages"]}
    assert stages["network"]["calls"] == saved["network"]["passes"] == 25
    assert {"decode", "encode", "argmax", "digest", "write files"} <= stages.keys()
    network = saved["network"]
    idle = sum(network[f"seconds_{when}"] for when in ("before", "between", "after"))
    assert network["share"] * saved["seconds"] + idle == pytest.approx(saved["seconds"])
    assert 0 < network["share"] < 1
    after = [resolve_name(name) for names in bench_profile.HOOKS.values() for name in names]
    assert after == hooked
