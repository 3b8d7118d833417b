"""The sample slide is one picture however it is cut and stored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from bigunet.errors import BigunetError, InputError, OutputError, OutputExistsError, RunError
from bigunet.images import sample as sample_module
from bigunet.images.sample import sample_arrays, write_sample
from bigunet.images.synthetic.microscope import draw
from bigunet.images.synthetic.nuclei import Slide


def whole(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    slide = Slide(height=height, width=width, seed=seed)
    return draw(slide, slice(0, height), slice(0, width))


def every_file(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def mean_of_four(image: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels, fewer at ragged ends, half rounded up; one by one."""
    corners = [image[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    total, count = (np.zeros(corners[0].shape, np.uint32) for _ in range(2))
    for corner in corners:
        total[: corner.shape[0], : corner.shape[1]] += corner
        count[: corner.shape[0], : corner.shape[1]] += 1
    return np.floor(total / count + 0.5).astype(np.uint16)


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray]:
    return whole(1500, 1400, seed=5)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample") / "slide.zarr", (1300, 1111), seed=3)


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 220), st.integers(1, 220)),
    seed=st.integers(0, 2**64 - 1),
    chunks=st.integers(23, 240),
)
def test_pixels_do_not_depend_on_chunks(size: tuple[int, int], seed: int, chunks: int) -> None:
    lazy = sample_arrays(size, seed, chunks=chunks)
    for found, expected in zip(dask.compute(*lazy), whole(*size, seed), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_a_crowded_slide_has_no_seams_in_any_layout(crowd: tuple[np.ndarray, ...]) -> None:
    for chunks in (512, 377, 1000):
        lazy = sample_arrays((1500, 1400), 5, chunks=chunks)
        for found, expected in zip(dask.compute(*lazy), crowd, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_lazy_arrays_are_lazy() -> None:
    image, truth = sample_arrays((50_000, 20_000))
    assert isinstance(image, da.Array)
    assert (image.shape, truth.shape) == ((50_000, 20_000),) * 2
    corner = truth[-300:, -300:].compute()
    assert corner.shape == (300, 300)


def test_the_same_bytes_for_any_number_of_workers(slide: Path, tmp_path: Path) -> None:
    expected = every_file(slide)
    for workers in (0, 3):
        path = write_sample(tmp_path / f"{workers}.zarr", (1300, 1111), 3, workers)
        assert every_file(path) == expected


def test_stored_pixels_and_levels(slide: Path) -> None:
    group = zarr.open_group(slide, mode="r")
    image, truth = whole(1300, 1111, 3)
    shapes = [(1300, 1111), (650, 556), (325, 278)]
    for level, (height, width) in enumerate(shapes):
        stored, labels = group[str(level)], group[f"labels/truth/{level}"]
        assert isinstance(stored, zarr.Array)
        assert isinstance(labels, zarr.Array)
        assert stored.dtype == np.uint16
        assert labels.dtype == np.uint32
        assert stored.chunks == (1, min(512, height), min(512, width))
        np.testing.assert_array_equal(stored[0], image)
        np.testing.assert_array_equal(labels[:], truth)
        image, truth = mean_of_four(image), truth[::2, ::2]
    assert str(len(shapes)) not in group


def test_metadata_validates_and_reads_back(slide: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05 import Image, ImageLabel

    group = zarr.open_group(slide, mode="r")
    assert isinstance(open_ome_zarr(group), Image)
    assert isinstance(open_ome_zarr(group["labels/truth"]), ImageLabel)
    location = parse_url(slide)
    assert location is not None
    nodes = {Path(str(n.zarr.path)).name: n for n in Reader(location)()}
    assert nodes["slide.zarr"].metadata["channel_names"] == ["DAPI"]
    assert nodes["slide.zarr"].metadata["coordinateTransformations"][2] == [
        {"type": "scale", "scale": [1.0, 2.0, 2.0]}
    ]
    assert [d.shape for d in nodes["truth"].data] == [(1300, 1111), (650, 556), (325, 278)]
    assert nodes["truth"].data[0].max().compute() == whole(1300, 1111, 3)[1].max()


@pytest.mark.parametrize("size", [1, (1, 700), (1030, 2)])
def test_tiny_and_thin_slides(tmp_path: Path, size: int | tuple[int, int]) -> None:
    from ome_zarr_models import open_ome_zarr

    group = zarr.open_group(write_sample(tmp_path / "s.zarr", size, workers=0), mode="r")
    datasets = open_ome_zarr(group).ome_attributes.multiscales[0].datasets
    last = group[datasets[-1].path]
    assert isinstance(last, zarr.Array)
    height, width = size if isinstance(size, tuple) else (size, size)
    step = 2 ** (len(datasets) - 1)
    assert last.shape == (1, math.ceil(height / step), math.ceil(width / step))
    assert max(last.shape) <= 512 < max(513, height / step * 2, width / step * 2)
    assert datasets[-1].coordinateTransformations[0].scale == [1.0, 0.5 * step, 0.5 * step]


def test_progress_ends_with_everything(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_sample(tmp_path / "s.zarr", (1100, 601), progress=lambda *a: told.append(a))
    total = 1100 * 601 + 550 * 301 + 275 * 151
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_is_there_stays(tmp_path: Path) -> None:
    finished = write_sample(tmp_path / "finished.zarr", 64)
    other = tmp_path / "other"
    other.mkdir()
    (other / "zarr.json").write_text('{"attributes": {}}')
    file = tmp_path / "file"
    file.write_text("text")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (finished, other, file, dangling):
        before = every_file(tmp_path)
        with pytest.raises(OutputExistsError, match="exists already"):
            write_sample(path, 64)
        assert every_file(tmp_path) == before


def test_a_killed_run_does_not_look_finished_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"

    def stop(done: int, total: int) -> None:
        if done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(path, 1200, workers=0, progress=stop)
    for file in path.rglob("zarr.json"):
        assert "ome" not in json.loads(file.read_text())["attributes"]
    (path / "0/c/0/0/9").mkdir(parents=True)
    (path / "0/c/0/0/9/9.partial").write_bytes(b"rest")
    expected = write_sample(tmp_path / "fresh.zarr", 1200)
    assert every_file(write_sample(path, 1200)) == every_file(expected)

    killed_at_once = tmp_path / "empty.zarr"
    killed_at_once.mkdir()
    (killed_at_once / "zarr.json.abc.partial").write_text("{")
    write_sample(killed_at_once, 32)


def test_a_full_disk_is_said_and_nothing_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_module, "_reduced", full)
    with pytest.raises(RunError, match="No space left") as error:
        write_sample(tmp_path / "s.zarr", 600, workers=0)
    assert error.value.exit_code == 1
    assert "ome" not in zarr.open_group(tmp_path / "s.zarr", mode="r").attrs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": 0}, "at least 1"),
        ({"size": (5, -1)}, "5 x -1"),
        ({"size": 2.5}, "2.5"),
        ({"size": (1, 2, 3)}, "whole numbers"),
        ({"size": "8192"}, "8192"),
        ({"size": 10**7}, "largest square"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**64}, "seed"),
        ({"workers": -1}, "workers -1"),
    ],
)
def test_bad_requests_write_nothing(tmp_path: Path, arguments: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        write_sample(tmp_path / "s.zarr", **{"size": 8, **arguments})
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(OutputError, match="cannot be written") as error:
        write_sample(tmp_path / "file" / "s.zarr", 8)
    assert isinstance(error.value, BigunetError)
    assert error.value.exit_code == 2
