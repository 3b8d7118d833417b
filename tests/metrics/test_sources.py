"""What is compared with what: arrays, files, folders, OME-Zarr labels; misfits are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bigunet.errors import InputError, NotFoundError
from bigunet.metrics.sources import Given, Pair, match_names, open_pairs, windows
from tests.images.labelled_images import write_image, write_labels

MASK = np.array([[0, 1, 1, 2]], dtype=np.uint8)


def opened(prediction: Given, truth: Given) -> list[Pair]:
    matches, _ = match_names(prediction, truth)
    return [pair for match in matches for pair in open_pairs(match)]


def folder(path: Path, *names: str, mask: np.ndarray = MASK) -> Path:
    path.mkdir()
    for name in names:
        Image.fromarray(mask).save(path / name)
    return path


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 60))
def test_windows_cover_every_pixel_once_in_raster_order(h: int, w: int, block: int) -> None:
    seen = np.zeros((h, w), dtype=int)
    starts = []
    for y, x in windows((h, w), block):
        seen[y, x] += 1
        starts.append((y.start, x.start))
        assert y.stop <= h and x.stop <= w
    assert (seen == 1).all()
    assert starts == sorted(starts)


def test_arrays() -> None:
    (pair,) = opened(MASK, MASK.astype(np.uint32))
    assert (pair.name, pair.shape, pair.probable) == ("array", (1, 4), False)
    assert pair.truth.dtype == np.uint32
    assert pair.truth.read(slice(0, 1), slice(1, 3)).tolist() == [[1, 1]]
    (pair,) = opened(MASK / 2, MASK)
    assert pair.probable


def test_folders_are_paired_by_name(tmp_path: Path) -> None:
    found = folder(tmp_path / "found", "b.png", "a.tif", "c.png")
    truth = folder(tmp_path / "truth", "a.png", "b.png")
    matches, notes = match_names(found, truth)
    assert [match.name for match in matches] == ["a", "b"]
    assert notes == ("1 predictions have no truth and were left out",)
    for match in matches:
        (pair,) = open_pairs(match)
        np.testing.assert_array_equal(pair.prediction.read(slice(0, 1), slice(0, 4)), MASK)


def test_a_truth_without_prediction_is_named(tmp_path: Path) -> None:
    found, truth = folder(tmp_path / "found", "a.png"), folder(tmp_path / "truth", "a.png", "d.png")
    with pytest.raises(InputError, match=r"1 of 2 masks .* have no prediction .*: d"):
        match_names(found, truth)
    with pytest.raises(InputError, match="give two folders"):
        match_names(found, truth / "a.png")
    with pytest.raises(NotFoundError, match=r"nowhere does not exist"):
        match_names(tmp_path / "nowhere", truth)


def test_misfits_are_refused() -> None:
    with pytest.raises(InputError, match="prediction has 2 × 4 pixels and the truth 1 × 4"):
        opened(np.zeros((2, 4), int), MASK)
    with pytest.raises(InputError, match=r"shape \(1, 1, 4\) is no plane"):
        opened(MASK[None], MASK)
    with pytest.raises(InputError, match="this one is probabilities"):
        opened(MASK, MASK / 2)
    with pytest.raises(InputError, match="no pixels"):
        opened(MASK[:0], MASK[:0])


def slide(path: Path) -> Path:
    scales = [(1.0,) * 3]
    write_image(path, [np.zeros((2, 3, 4), np.uint16)], "zyx", scales)
    for name in ("truth", "found"):
        labels = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
        write_labels(path, name, [labels], "zyx", scales)
    return path


def test_planes_of_labels_are_pairs_of_their_own(tmp_path: Path) -> None:
    image = slide(tmp_path / "slide.zarr")
    pairs = opened(image / "labels" / "found", image / "labels" / "truth")
    assert [pair.name for pair in pairs] == ["truth z=0", "truth z=1"]
    assert pairs[1].truth.read(slice(2, 3), slice(0, 4)).tolist() == [[20, 21, 22, 23]]
    assert (pairs[0].shape, pairs[0].truth.dtype, pairs[0].probable) == ((3, 4), np.uint32, False)
    with pytest.raises(InputError, match="prediction has 1 planes and the truth 2"):
        opened(MASK, image / "labels" / "truth")


def test_an_image_is_no_label(tmp_path: Path) -> None:
    image = slide(tmp_path / "slide.zarr")
    with pytest.raises(InputError, match=r"is an image, no label: .*slide.zarr/labels/truth"):
        opened(image, image / "labels" / "truth")
    colors = write_image(
        tmp_path / "rgb.zarr", [np.zeros((3, 4, 4), np.uint8)], "cyx", [(1.0,) * 3]
    )
    with pytest.raises(InputError, match=r"rgb.zarr/labels/NAME"):
        opened(colors, MASK)


def test_of_two_classes_the_second_is_the_foreground(tmp_path: Path) -> None:
    both = np.stack([255 * (MASK == 0), 255 * (MASK != 0)]).astype(np.uint8)
    path = write_image(tmp_path / "p.zarr", [both], "cyx", [(1.0,) * 3])
    (pair,) = opened(path, MASK)
    assert pair.probable
    assert pair.prediction.read(slice(0, 1), slice(0, 4)).tolist() == [[0, 255, 255, 255]]
