"""The user's proof has to find what is wrong, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from slides import files, write_slide
from strategies import random_image, random_model

from bigunet import segment_image, verify_image
from bigunet.errors import InputError, NotFoundError
from bigunet.models import devices, openvino_unet, runtimes

QUICK: dict[str, Any] = {"tile": 32, "block": 64, "device": "cpu"}


def make_slide(folder: Path, shape: tuple[int, ...] = (300, 420), axes: str = "yx") -> Path:
    return write_slide(folder / "slide.zarr", random_image(shape, np.uint8), axes)


@settings(max_examples=8)
@given(
    shape=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    depth=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_a_true_label_is_confirmed(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], depth: int, seed: int
) -> None:
    slide = make_slide(tmp_path_factory.mktemp("true"), shape)
    model = random_model(depth, classes=3)
    segment_image(slide, model, **QUICK)
    before = files(slide)
    result = verify_image(slide, "unet", model, windows=3, seed=seed)
    assert result.ok and result.differing == 0
    assert 0 < result.pixels <= 3 * 256 * 256
    assert files(slide) == before


def test_planes_and_regions_are_followed(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, (2, 3, 120, 130), "tzyx")
    model = random_model(2)
    segment_image(slide, model, region=((37, 90), (5, 101)), **QUICK)
    told: list[tuple[int, ...]] = []
    result = verify_image(
        slide, "unet", model, windows=12, progress=lambda *counts: told.append(counts)
    )
    assert told == [(done, 12) for done in range(13)]
    assert result.ok and result.pixels == 12 * (90 - 37) * (101 - 5)


def test_an_average_is_confirmed_and_one_pass_is_told_from_it(tmp_path: Path) -> None:
    slide, model = make_slide(tmp_path, (150, 170)), random_model(2, classes=3)
    segment_image(slide, model, augment="d4", **QUICK)
    segment_image(slide, model, name="plain", **QUICK)
    assert verify_image(slide, "unet", model, windows=2).ok
    averaged = zarr.open_array(slide / "labels" / "unet" / "0", mode="r+")
    averaged[:] = zarr.open_array(slide / "labels" / "plain" / "0", mode="r")[:]
    assert not verify_image(slide, "unet", model, windows=2).ok


def test_what_an_average_may_be_off_goes_with_its_logits(tmp_path: Path) -> None:
    """Scores of raw 16-bit values are large, their log-probabilities need not be."""
    slide = write_slide(tmp_path / "slide.zarr", random_image((150, 170), np.uint16), "yx")
    model = random_model(2, classes=3)
    segment_image(slide, model, augment="d4", **QUICK)
    result = verify_image(slide, "unet", model, windows=2)
    assert result.ok and 1e-3 < result.score_difference < result.tolerance


def test_one_wrong_pixel_is_found(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, (200, 200))
    model = random_model(2)
    segment_image(slide, model, **QUICK)
    label = zarr.open_array(slide / "labels" / "unet" / "0", mode="r+")
    label[100, 100] = 1 - label[100, 100]
    result = verify_image(slide, "unet", model, windows=8)
    assert not result.ok and 1 <= result.differing <= 8
    assert "NOT" in result.lines()[0] and result.as_dict()["ok"] is False


def test_tiles_off_the_pooling_grid_would_be_found(tmp_path: Path) -> None:
    """What a seam is: the same network on tiles that start at odd pixels."""
    slide = make_slide(tmp_path, (200, 200))
    model = random_model(2)
    segment_image(slide, model, **QUICK)
    label = zarr.open_array(slide / "labels" / "unet" / "0", mode="r+")
    from strategies import whole_image_scores

    pixels = np.asarray(zarr.open_array(slide / "s0", mode="r")[:])
    label[:, 101:] = whole_image_scores(pixels[None, :, 101:], model).argmax(0)
    assert not verify_image(slide, "unet", model, windows=8).ok


def test_another_model_is_refused(tmp_path: Path) -> None:
    slide = make_slide(tmp_path)
    segment_image(slide, random_model(2), **QUICK)
    with pytest.raises(InputError, match=r"made with model 'unet' .* pass that model"):
        verify_image(slide, "unet", random_model(2, seed=1))


def test_labels_that_are_not_there_or_not_ours_are_refused(tmp_path: Path) -> None:
    slide = make_slide(tmp_path)
    with pytest.raises(NotFoundError, match="no labels 'x': it has none"):
        verify_image(slide, "x", random_model(2))
    segment_image(slide, random_model(2), **QUICK)
    with pytest.raises(NotFoundError, match="no labels 'x': it has unet"):
        verify_image(slide, "x", random_model(2))
    group = zarr.open_group(slide / "labels" / "unet", mode="r+")
    del group.attrs["bigunet"]
    with pytest.raises(InputError, match="not written by bigunet"):
        verify_image(slide, "unet", random_model(2))


def test_ties_are_counted_apart(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, (80, 80))
    model = random_model(2)
    with torch.no_grad():
        model.head.weight[1] = model.head.weight[0]
        model.head.bias[1] = model.head.bias[0]
    segment_image(slide, model, **QUICK)
    label = zarr.open_array(slide / "labels" / "unet" / "0", mode="r+")
    label[:] = 1
    result = verify_image(slide, "unet", model, windows=1)
    assert result.ok and result.differing == 0 and result.ties == result.pixels


def test_a_label_outside_the_slide_is_verified_by_its_path(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, (150, 200))
    model = random_model(2, classes=3)
    out, both = tmp_path / "out.zarr", tmp_path / "both.zarr"
    segment_image(slide, model, output=out, **QUICK)
    segment_image(slide, model, output=both, save=("classes", "probabilities"), **QUICK)
    assert verify_image(slide, str(out), model, windows=2).ok
    assert verify_image(slide, str(both / "labels" / "unet"), model, windows=2).ok
    with pytest.raises(InputError, match="is a result of bigunet, not a slide"):
        verify_image(both, "unet", model)


def test_tiles_are_computed_by_what_the_run_computed_them_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, model = make_slide(tmp_path, (200, 200)), random_model(2)
    segment_image(slide, model, runtime="openvino", **QUICK)
    assert verify_image(slide, "unet", model, windows=2).ok
    right = openvino_unet.OpenVinoUNet.__call__

    def wrong(network: Any, image: torch.Tensor) -> torch.Tensor:
        return right(network, image) + 0.01

    monkeypatch.setattr(openvino_unet.OpenVinoUNet, "__call__", wrong)
    result = verify_image(slide, "unet", model, windows=2)
    # The label is right, and so is the one piece, which torch computes.
    assert not result.ok and result.differing == 0 and result.score_difference > 0.005
    monkeypatch.setattr(runtimes, "_installed", lambda: False)
    assert verify_image(slide, "unet", model, windows=2).ok


def test_a_device_that_is_not_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, model = make_slide(tmp_path, (100, 100)), random_model(1)
    segment_image(slide, model, **QUICK)
    monkeypatch.setattr(devices, "_usable", lambda _: False)
    with pytest.raises(InputError, match="device 'cuda' cannot be used"):
        verify_image(slide, "unet", model, device="cuda")
