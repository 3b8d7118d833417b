"""A picture shows what is there, where it is, and reads no more than it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigunet.errors import InputError, NotFoundError, OutputError, OutputExistsError, RunError
from bigunet.images.overlay import write_preview
from bigunet.images.planes import Plane
from bigunet.images.sample import write_sample
from tests.images.labelled_images import opened, write_image, write_labels

REAL = Path(__file__).resolve().parents[2] / "../shared/data/ome_zarr"


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample") / "slide.zarr", 1500, seed=1)


def test_large_slides_get_an_overview_and_a_crop(slide: Path, tmp_path: Path) -> None:
    out = write_preview(slide, "truth", tmp_path / "out.png", max_side=900)
    picture = opened(out)
    assert out == tmp_path / "out.png"
    assert max(picture.shape) <= 900
    assert picture.shape[1] > 2.5 * picture.shape[0]
    colourful = np.ptp(picture.astype(int), axis=-1) > 60
    thirds = [part.mean() for part in np.array_split(colourful, 3, axis=1)]
    assert thirds[0] > 0.05
    assert thirds[1] < 0.01
    assert thirds[2] > 0.1
    again = write_preview(slide, "truth", out, max_side=900, overwrite=True)
    np.testing.assert_array_equal(opened(again), picture)


def test_no_more_is_read_than_the_picture_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(40_000 >> k, 60_000 >> k) for k in range(8)]
    scales = [(2.0**k, 2.0**k) for k in range(8)]
    path = write_image(tmp_path / "i.zarr", list(shapes), "yx", scales)
    write_labels(path, "l", list(shapes), "yx", scales)
    pixels: list[int] = []
    read = Plane.read

    def counted(self: Plane, y: slice, x: slice) -> np.ndarray:
        found = read(self, y, x)
        pixels.append(found.size)
        return found

    monkeypatch.setattr(Plane, "read", counted)
    opened(write_preview(path, "l", tmp_path / "out.png"))
    assert max(pixels) < 4 * 1600 * 1600
    write_preview(path, "l", tmp_path / "part.png", region=((0, 40_000), (0, 60_000)))
    assert max(pixels) < 4 * 1600 * 1600


def test_a_large_image_of_one_level_is_shown_in_part_only(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", [(30_000, 20_000)], "yx", [(1, 1)])
    write_labels(path, "l", [(30_000, 20_000)], "yx", [(1, 1)])
    picture = opened(write_preview(path, "l", tmp_path / "out.png", max_side=400))
    assert max(picture.shape) <= 400
    with pytest.raises(InputError, match="30000 x 20000 pixels would be read"):
        write_preview(path, "l", tmp_path / "part.png", region=((0, 30_000), (0, 20_000)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 2), (5, 7)])
def test_thin_and_tiny_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.ones(shape, np.uint16)
    path = write_image(tmp_path / "i.zarr", [image], "yx", [(1, 1)])
    write_labels(path, "l", [image], "yx", [(1, 1)])
    picture = opened(write_preview(path, "l", tmp_path / "out.png", max_side=300))
    assert max(picture.shape) <= 300


def test_labels_that_are_not_there(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no labels 'nuclei': it has truth"):
        write_preview(slide, "nuclei", tmp_path / "out.png")
    bare = write_image(tmp_path / "i.zarr", [(9, 9)], "yx", [(1, 1)])
    with pytest.raises(NotFoundError, match="it has none"):
        write_preview(bare, "nuclei", tmp_path / "out.png")
    with pytest.raises(NotFoundError, match="does not exist"):
        write_preview(tmp_path / "nowhere.zarr", "nuclei", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_labels_elsewhere_are_given_by_their_path(slide: Path, tmp_path: Path) -> None:
    within = write_preview(slide, "truth", tmp_path / "a.png", max_side=300)
    elsewhere = str(slide / "labels/truth")
    given = write_preview(slide, elsewhere, tmp_path / "b.png", max_side=300)
    np.testing.assert_array_equal(opened(within), opened(given))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_side": 10}, "at least 200"),
        ({"region": ((0, 10), (5, 5))}, "0:10, 5:5 is not inside"),
        ({"region": ((0, 10), (0, 1501))}, "1500 x 1500"),
        ({"channels": ["GFP"]}, "GFP.*DAPI"),
        ({"channels": [1]}, "DAPI"),
        ({"channels": []}, "no channel"),
    ],
)
def test_bad_requests(slide: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        write_preview(slide, "truth", tmp_path / "out.png", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.png"):
        write_preview(slide, "truth", tmp_path / "out.jpg")
    with pytest.raises(OutputError, match="no folder"):
        write_preview(slide, "truth", tmp_path / "nowhere" / "out.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        write_preview(slide, "truth", tmp_path / "folder.png")


def test_a_picture_is_replaced_only_when_asked(slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.png"
    out.write_bytes(b"somebody's")
    with pytest.raises(OutputExistsError, match="overwrite"):
        write_preview(slide, "truth", out)
    assert out.read_bytes() == b"somebody's"
    opened(write_preview(slide, "truth", out, overwrite=True))


def test_a_picture_that_fails_leaves_the_old_one(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "cells.png"
    out.write_bytes(b"somebody's")
    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(RunError, match="No space left"):
        write_preview(slide, "truth", out, overwrite=True)
    assert out.read_bytes() == b"somebody's"
    assert [path.name for path in tmp_path.glob("*.p*")] == ["cells.png"]


def test_an_image_is_no_labels(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", [np.zeros((9, 9), np.float32)], "yx", [(1, 1)])
    with pytest.raises(InputError, match=r"float32.*integers"):
        write_preview(path, str(path), tmp_path / "out.png")


def test_a_broken_chunk_is_named(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (64, 64)).astype(np.uint16)
    path = write_image(tmp_path / "i.zarr", [image], "yx", [(1, 1)])
    write_labels(path, "l", [image], "yx", [(1, 1)])
    (path / "0/c/0/0").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"chunk \(0, 0\)"):
        write_preview(path, "l", tmp_path / "out.png")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("v04_cardio_mip_labels.zarr", "nuclei"),
        ("v04_coins_labels.ome.zarr", "coins"),
        ("v05_astronaut_rgb_labels.ome.zarr", "circles"),
    ],
)
@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_real_labels(name: str, labels: str, tmp_path: Path) -> None:
    picture = opened(write_preview(REAL / name, labels, tmp_path / "out.png", max_side=600))
    assert max(picture.shape) <= 600
    assert (np.ptp(picture.astype(int), axis=-1) > 60).mean() > 0.05
