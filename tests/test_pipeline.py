"""The whole route on real files: what is stored is what one pass over the image gives."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
import torch
import zarr
from slides import constant_speed_model, files, is_listed, read_label, write_slide
from strategies import (
    assert_same_classes,
    random_image,
    random_model,
    whole_image_scores,
)

from bigunet import UNet, save_model, segment, segment_image
from bigunet.errors import BigunetError, InputError, MemoryLimitError, RunError
from bigunet.images import planes as image_planes
from bigunet.images.decoded import DecodedChunks
from bigunet.images.intensity import IntensityRule, measure_limits, normalise
from bigunet.models.card import ModelCard
from bigunet.models.devices import library_bytes
from bigunet.pipeline import Progress, plan_image

QUICK: dict[str, Any] = {"tile": 32, "block": 64, "device": "cpu"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [("yx", (150, 211)), ("cyx", (2, 97, 130)), ("zyx", (3, 70, 90)), ("tczyx", (2, 2, 2, 65, 80))],
)
def test_a_label_is_what_one_pass_over_each_plane_gives(
    tmp_path: Path, axes: str, shape: tuple[int, ...], version: str
) -> None:
    pixels = random_image(shape, np.uint16)
    channels = shape[axes.index("c")] if "c" in axes else 1
    model = random_model(2, channels, classes=3)
    slide = write_slide(tmp_path / "slide.zarr", pixels, axes, version=version)
    result = segment_image(slide, model, **QUICK)
    assert result.outputs == {"classes": slide / "labels" / "unet"}
    planes = pixels if "c" in axes else np.expand_dims(pixels, axes.index("y"))
    stored = read_label(slide, "unet")
    assert stored.shape == tuple(n for n, a in zip(shape, axes, strict=True) if a != "c")
    flat = stored.reshape(-1, *stored.shape[-2:])
    expected_planes = np.moveaxis(planes, axes.index("c"), -3) if "c" in axes else planes
    for found, plane in zip(flat, expected_planes.reshape(-1, channels, *shape[-2:]), strict=True):
        assert_same_classes(found, whole_image_scores(plane, model))
    np.testing.assert_array_equal(read_label(slide, "unet", 1), stored[..., ::2, ::2])


@pytest.mark.parametrize("save", ["classes", "objects", "probabilities"])
def test_the_label_of_a_sharded_image_is_sharded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: str
) -> None:
    monkeypatch.setattr("bigunet.cutting._LARGEST_CHUNK", 32)
    pixels, model, found = random_image((150, 211), np.uint8), random_model(2), {}
    for shard in (None, 48):
        slide = write_slide(tmp_path / f"{shard}.zarr", pixels, "yx", chunk=24, shard=shard)
        output = tmp_path / f"{shard}-out.zarr" if save == "probabilities" else None
        place = segment_image(slide, model, save=[save], output=output, **QUICK).outputs[save]
        found[shard] = [zarr.open_array(place / str(level), mode="r") for level in (0, 1)]
    for plain, sharded in zip(found[None], found[48], strict=True):
        assert plain.chunks == sharded.chunks and plain.chunks[-2:] == (32, 32)
        assert plain.shards is None and sharded.shards is not None
        assert sharded.shards[-2:] == (64, 64)
        np.testing.assert_array_equal(plain[:], sharded[:])
    stored = [path for path in (place / "0" / "c").rglob("*") if path.is_file()]
    assert len(stored) == 3 * 4 * (2 if save == "probabilities" else 1)


def test_the_command_and_the_lazy_api_give_the_same(tmp_path: Path) -> None:
    pixels = random_image((180, 170), np.uint8)
    model = random_model(2)
    model.card = ModelCard(intensity=IntensityRule(kind="percentile", low=1, high=99.8))
    slide = write_slide(tmp_path / "slide.zarr", pixels, "yx")
    segment_image(slide, model, **QUICK)
    lazy = segment(pixels, model, **QUICK)
    np.testing.assert_array_equal(read_label(slide, "unet"), lazy.compute())
    limits = measure_limits(pixels[None], model.card.intensity).compute()
    expected = whole_image_scores(normalise(pixels[None], limits), model)
    assert_same_classes(read_label(slide, "unet"), expected)


def test_averages_are_those_of_the_lazy_api_and_are_recorded(tmp_path: Path) -> None:
    pixels = random_image((90, 130), np.uint8)
    model = random_model(2, classes=3)
    slide = write_slide(tmp_path / "slide.zarr", pixels, "yx")
    plain, averaged = (segment(pixels, model, augment=a, **QUICK).compute() for a in ("none", "d4"))
    assert (plain != averaged).any()
    for overlap in ("direct", "map_overlap"):
        options = {"augment": "d4", "overlap": overlap, "name": overlap} | QUICK
        done = segment_image(slide, model, **options)
        np.testing.assert_array_equal(read_label(slide, overlap), averaged)
        label = zarr.open_group(slide / "labels" / overlap, mode="r")
        assert dict(label.attrs)["bigunet"]["augment"] == "d4"
        assert any("mean of 8 passes" in line for line in done.plan.lines())
        assert done.plan.as_dict()["augment"] == "d4"


def test_the_projected_time_is_that_of_all_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((100, 100), np.uint8), "yx")
    passes = []

    def slow(_: UNet, image: torch.Tensor) -> torch.Tensor:
        passes.append(image.shape)
        time.sleep(0.01)
        return torch.zeros(1, 2, image.shape[-2] - 16, image.shape[-1] - 16)

    monkeypatch.setattr(UNet, "forward", slow)
    plan = plan_image(slide, random_model(1), timed=True, augment="d4", **QUICK)
    assert len(passes) == 2 * 8, "one tile to warm up, one with the clock"
    assert plan.seconds is not None and plan.seconds >= plan.tiles * 8 * 0.01


def test_rgb_with_fixed_limits(tmp_path: Path) -> None:
    pixels = random_image((3, 100, 90), np.uint8)
    model = random_model(2, channels=3)
    model.card = ModelCard(intensity=IntensityRule(kind="range", low=0, high=255))
    slide = write_slide(tmp_path / "slide.zarr", pixels, "cyx")
    for overlap in ("direct", "map_overlap"):
        done = segment_image(slide, model, overlap=overlap, overwrite=True, **QUICK)
        assert done.plan.limits == ((0.0, 255.0),) * 3
        expected = whole_image_scores(normalise(pixels, done.plan.limits), model)
        assert_same_classes(read_label(slide, "unet"), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "map_overlap"},
        {"overlap": "direct", "block": 128},
        {"overlap": "map_overlap", "block": 96, "workers": 3},
        {"scheduler": "sync"},
        {"workers": 1},
        {"block": 32, "workers": 4},
    ],
)
def test_the_answer_does_not_depend_on_how_the_slide_is_cut(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    pixels = random_image((2, 203, 330), np.uint16)
    model = random_model(2, channels=2)
    first = write_slide(tmp_path / "a.zarr", pixels, "cyx", chunk=64)
    other = write_slide(tmp_path / "b.zarr", pixels, "cyx", chunk=51)
    segment_image(first, model, tile=32, block=64, overlap="direct")
    segment_image(other, model, **({"tile": 32, "block": 64} | options))
    for level in (0, 1):
        one, two = read_label(first, "unet", level), read_label(other, "unet", level)
        np.testing.assert_array_equal(one, two)


def test_processes_on_loopback_give_the_same_bits_with_the_same_threads(tmp_path: Path) -> None:
    pixels = random_image((200, 260), np.uint8)
    model = random_model(2)
    slide = write_slide(tmp_path / "slide.zarr", pixels, "yx")
    listening: set[str] = set()

    def watch(_: Progress) -> None:
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    listening.add(connection.laddr.ip)

    def run(name: str, workers: int) -> None:
        segment_image(
            slide, model, name=name, scheduler="processes", workers=workers, progress=watch, **QUICK
        )

    cores = torch.get_num_threads()
    run("one", cores)
    run("more", cores + 1)
    np.testing.assert_array_equal(read_label(slide, "one"), read_label(slide, "more"))
    assert listening == {"127.0.0.1"}


def test_the_embedded_scheduler_listens_nowhere(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((100, 100), np.uint8), "yx")
    code = f"""
        import psutil, bigunet, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from slides import constant_speed_model
        bigunet.segment_image({str(slide)!r}, constant_speed_model(),
            progress=lambda _: print(len(psutil.Process().net_connections())))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"0"}


def test_a_region_is_that_window_of_the_full_run(tmp_path: Path) -> None:
    pixels = random_image((190, 260), np.uint16)
    model = random_model(2)
    model.card = ModelCard(intensity=IntensityRule(kind="percentile", low=1, high=99.8))
    slide = write_slide(tmp_path / "slide.zarr", pixels, "yx")
    whole = segment_image(slide, model, name="whole", **QUICK)
    for number, region in enumerate(
        [((33, 150), (70, 75)), ((0, 1), (0, 260)), ((64, 128), (64, 96))]
    ):
        for overlap in ("direct", "map_overlap"):
            name = f"part{number}{overlap}"
            part = segment_image(slide, model, name=name, region=region, overlap=overlap, **QUICK)
            assert part.plan.limits == whole.plan.limits
            found, expected = read_label(slide, name), np.zeros((190, 260), np.uint8)
            window = tuple(slice(*r) for r in region)
            expected[window] = read_label(slide, "whole")[window]
            np.testing.assert_array_equal(found, expected)


def test_classes_and_probabilities_in_one_pass(tmp_path: Path) -> None:
    pixels = random_image((120, 90), np.uint8)
    model = random_model(2, classes=3)
    slide = write_slide(tmp_path / "slide.zarr", pixels, "yx")
    out = tmp_path / "out.zarr"
    for overlap in ("direct", "map_overlap"):
        result = segment_image(
            slide,
            model,
            save=("classes", "probabilities"),
            output=out,
            overwrite=True,
            overlap=overlap,
            **QUICK,
        )
        scores = torch.from_numpy(whole_image_scores(pixels[None], model))
        expected = scores.softmax(0).mul(255).round().numpy()
        stored = np.asarray(zarr.open_array(out / "0", mode="r")[:])
        assert np.abs(stored - expected).max() <= 1
        assert_same_classes(read_label(out, "unet"), scores.numpy())
        assert result.outputs == {"classes": out / "labels" / "unet", "probabilities": out}
    assert not (slide / "labels").exists()


def test_every_stage_is_told_and_pixels_add_up(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((3, 100, 90), np.uint8), "zyx")
    told: list[Progress] = []
    result = segment_image(slide, constant_speed_model(), progress=told.append, **QUICK)
    stages = [t.stage for t in told]
    assert stages == sorted(stages, key=["plan", "segment", "pyramid", "commit"].index)
    last = [t for t in told if t.stage == "segment"][-1]
    assert (
        (last.done, last.pixels)
        == (last.total, 3 * 100 * 90)
        == (result.plan.blocks, result.plan.pixels)
    )
    said = [t.message for t in told if t.message]
    assert (
        said[0].startswith("cpu, eager, float32")
        and "level 0" in said[0]
        and "intensity" in said[0]
    )


def test_a_chunk_that_breaks_the_measure_of_intensities_is_named(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((256, 256), np.uint8), "yx")
    break_chunk(slide)
    model = random_model(2)
    model.card = ModelCard(intensity=IntensityRule(kind="percentile", low=1, high=99.8))
    with pytest.raises(RunError, match=r"chunk \(1, 1\).*; nothing was written"):
        segment_image(slide, model, **QUICK)
    assert not (slide / "labels").exists()


def break_chunk(slide: Path) -> None:
    """Cut a chunk of the finest level short."""
    chunk = slide / "s0" / "c" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-7])


@pytest.mark.parametrize("overlap", ["direct", "map_overlap"])
def test_a_broken_chunk_is_named_and_nothing_is_listed(tmp_path: Path, overlap: str) -> None:
    pixels = random_image((256, 256), np.uint8)
    slide = write_slide(tmp_path / "slide.zarr", pixels, "yx")
    whole = (slide / "s0" / "c" / "1" / "1").read_bytes()
    break_chunk(slide)
    with pytest.raises(RunError, match=r"1.*not listed, .*the same command goes on") as caught:
        segment_image(slide, random_model(2), overlap=overlap, **QUICK)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    assert not is_listed(slide, "unet")
    (slide / "s0" / "c" / "1" / "1").write_bytes(whole)
    segment_image(slide, random_model(2), overlap=overlap, **QUICK)
    assert is_listed(slide, "unet") and not list((slide / "labels").glob(".bigunet*"))


def test_the_other_blocks_go_on_when_one_fails(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((256, 256), np.uint8), "yx")
    break_chunk(slide)
    told: list[Progress] = []
    with pytest.raises(RunError, match=r"9 of 16 failed: .*chunk \(1, 1\).* and 8 more\);"):
        segment_image(slide, random_model(2), overlap="direct", progress=told.append, **QUICK)
    assert max(t.done for t in told if t.stage == "segment") == 16


def test_a_killed_run_leaves_no_label_and_is_replaced_unasked(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((512, 512), np.uint8), "yx")
    model = save_model_file(tmp_path)
    command = [sys.executable, "-c", "from bigunet.cli.main import main; main()", "segment"]
    command += [str(slide), "--model", model]
    command += ["--tile", "16", "--block", "64", "--name", "n"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((slide / "labels").glob("n/0/c/*/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_listed(slide, "n") and (slide / "labels" / "n").exists()
    segment_image(slide, model, name="n", tile=16, block=64)
    assert is_listed(slide, "n") and not list((slide / "labels").glob(".*"))


def save_model_file(folder: Path) -> str:
    path = folder / "m.pt"
    save_model(random_model(2), path)
    return str(path)


def test_a_complete_label_is_kept_until_told_otherwise(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((100, 100), np.uint8), "yx")
    segment_image(slide, random_model(2), **QUICK)
    before = files(slide)
    with pytest.raises(BigunetError, match="overwrite") as caught:
        segment_image(slide, random_model(2, seed=5), **QUICK)
    assert caught.value.exit_code == 2 and files(slide) == before
    segment_image(slide, random_model(2, seed=5), overwrite=True, **QUICK)
    assert files(slide) != before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"level": 7}, InputError, "level"),
        (
            {"region": ((0, 300), (0, 5))},
            InputError,
            r"region 0:300,0:5 does not lie in rows 0:100",
        ),
        ({"block": -1}, InputError, "block is -1"),
        ({"save": ("outlines",)}, InputError, "outlines"),
        ({"save": ("probabilities",)}, InputError, "--output"),
        ({"scheduler": "nowhere"}, InputError, "scheduler 'nowhere' is unknown"),
        ({"workers": 0}, InputError, "workers is 0"),
        ({"overlap": "some"}, InputError, "overlap 'some' is unknown"),
        ({"memory_limit": 10_000_000}, MemoryLimitError, r"need .* GB but 10.0 MB are allowed"),
        ({"memory_limit": -1}, InputError, "memory limit is -1"),
        ({"intensity": [(0, 1), (0, 2)]}, InputError, "2 intensity limits for 1 channels"),
        ({"channels": [3]}, InputError, "channel"),
        ({"name": "a/b"}, InputError, "a/b"),
        ({"device": "cuda:9x"}, InputError, "device"),
        ({"scheduler": "tcp://127.0.0.1:9"}, InputError, "no Dask scheduler answers"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[BigunetError],
    message: str,
) -> None:
    monkeypatch.setattr("bigunet.cluster.connect.CONNECT_SECONDS", 1)
    slide = write_slide(tmp_path / "slide.zarr", random_image((100, 100), np.uint8), "yx")
    before = files(slide)
    with pytest.raises(error, match=message) as caught:
        segment_image(slide, random_model(2), **options)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert files(slide) == before


TIGHT = 760_000_000 + library_bytes()
"""Enough for this process, and not for tiles of 512 px of a network of width 48."""


def test_too_little_memory_names_a_tile_that_fits(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", np.zeros((1000, 1000), np.uint8), "yx", chunk=256)
    model = random_model(2)
    model = type(model)(1, 2, width=48, depth=2)
    with pytest.raises(MemoryLimitError, match=r"--tile (\d+) --block") as caught:
        plan_image(slide, model, memory_limit=TIGHT, tile=512)
    tile = int(str(caught.value).split("--tile ")[1].split()[0])
    plan = plan_image(slide, model, memory_limit=TIGHT, tile=tile, block=tile, overlap="direct")
    assert plan.memory.projected <= plan.memory.allowed


def test_where_nobody_asked_for_a_tile_one_that_fits_is_taken(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", np.zeros((1000, 1000), np.uint8), "yx", chunk=256)
    model = UNet(1, 2, width=48, depth=2)
    plan = plan_image(slide, model, memory_limit=TIGHT)
    assert plan.memory.projected <= plan.memory.allowed
    assert f"tiles of {max(plan.tiling.tile)} px, not the usual ones, for memory" in plan.notes
    same = plan_image(slide, model, memory_limit=TIGHT, overlap="direct")
    assert same.tiling == plan.tiling
    with pytest.raises(MemoryLimitError, match="--tile"):
        plan_image(slide, model, memory_limit=TIGHT, overlap="map_overlap")


def test_fewer_blocks_at_a_time_where_memory_is_short_and_it_is_said(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", np.zeros((3000, 3000), np.uint8), "yx", chunk=512)
    roomy = plan_image(slide, random_model(2), workers=64, overlap="direct")
    limit = roomy.memory.projected - 100_000_000
    plan = plan_image(slide, random_model(2), workers=64, overlap="direct", memory_limit=limit)
    assert 1 <= plan.workers < 64 and plan.memory.projected <= limit
    assert any("of 64 blocks at a time" in note for note in plan.notes)


def test_the_plan_says_all_and_writes_nothing(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((500, 300), np.uint16), "yx")
    model = random_model(3)
    model.card = ModelCard(intensity=IntensityRule(kind="percentile", low=1, high=99.8))
    before = files(slide)
    plan = plan_image(slide, model, timed=True, block=100, tile=60)
    assert files(slide) == before
    text = "\n".join(plan.lines())
    for word in ("device", "level", "blocks", "tiles", "margin 44", "memory", "bytes", "time", "…"):
        assert word in text
    assert plan.seconds is not None and plan.seconds > 0
    said = plan.as_dict()
    assert said["tile"] == [64, 64] and said["block"] == [128, 128] and said["limits"]
    assert said["bytes_written"] == 500 * 300
    assert any(note.startswith("block 100 became 128") for note in plan.notes)


@pytest.mark.parametrize(
    ("save", "runtime"),
    [
        ("classes", "eager"),
        pytest.param("objects", "eager", marks=pytest.mark.slow),
        ("classes", "openvino"),
    ],
)
def test_measured_memory_is_at_most_projected(tmp_path: Path, save: str, runtime: str) -> None:
    """On a real run, in a process of its own; a third of slack is already too much."""
    slide = write_slide(
        tmp_path / "slide.zarr", random_image((2048, 2048), np.uint8), "yx", chunk=512
    )
    code = f"""
        import bigunet
        from benchmarks.measure import peak_memory
        model = bigunet.UNet(1, 2, width=32, depth=2)
        result = bigunet.segment_image(
            {str(slide)!r}, model, device="cpu", runtime={runtime!r}, save=({save!r},),
            fill_holes={save == "objects"},
        )
        print(peak_memory(), result.plan.memory.projected)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    measured, projected = map(int, done.stdout.split())
    assert measured <= projected <= 2.5 * measured


def test_dask_settings_of_the_caller_do_not_matter(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.zarr", random_image((150, 150), np.uint8), "yx")
    segment_image(slide, random_model(2), name="plain", **QUICK)
    with dask.config.set(scheduler="sync", num_workers=1):
        segment_image(slide, random_model(2), name="other", **QUICK)
    np.testing.assert_array_equal(read_label(slide, "plain"), read_label(slide, "other"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_decodes_no_more_than_its_plan_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """There is room for the chunks of a row of blocks, but not for those of the plane."""
    slide = write_slide(tmp_path / "s.zarr", np.zeros((640, 640), np.uint8), "yx", chunk=32)
    room, decoded, fetch, lock = 300 * 32**2, 0, image_planes._fetch, threading.Lock()
    monkeypatch.setattr("bigunet.cutting.KEPT_BYTES", room)
    monkeypatch.setattr(DecodedChunks.__init__, "__defaults__", (room,))

    def counted(plane: Any, y: slice, x: slice) -> Any:
        nonlocal decoded
        with lock:
            decoded += (y.stop - y.start) * (x.stop - x.start)
        return fetch(plane, y, x)

    monkeypatch.setattr(image_planes, "_fetch", counted)
    options: dict[str, Any] = {"tile": 64, "block": 64, "device": "cpu", "overlap": "direct"}
    done = segment_image(slide, random_model(1), workers=workers, **options)
    assert done.plan.read_amplification == 1
    assert decoded == 640**2
