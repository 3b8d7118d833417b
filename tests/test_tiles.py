"""One block, tile by tile: bits, batches, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    assert_same_scores,
    log_mean_softmax,
    random_image,
    random_model,
    tolerance,
    whole_image_passes,
)

import bigunet
from bigunet import tiles
from bigunet.errors import DeviceMemoryError
from bigunet.geometry import Tiling
from bigunet.memory import device_memory
from bigunet.models import predictor as predictors
from bigunet.models.predictor import Predictor
from bigunet.models.symmetries import D4
from bigunet.tiles import mirrored, predict_block, time_tile


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tiles gain nothing from threads, and bits are pinned to their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_probabilities_of_an_average_are_the_mean_of_eight() -> None:
    image, model = random_image((1, 60, 70), np.float32), random_model(2, classes=3)
    predictor = Predictor.of(model, device="cpu", augment="d4")
    tiling = Tiling(shape=(60, 70), depth=2, tile=(32, 32), block=(64, 96))
    (block,) = tiling.blocks()
    done = predict_block(
        image,
        (0, 0),
        block,
        tiling=tiling,
        predictor=predictor,
        limits=None,
        kinds=("probabilities",),
    )
    mean = np.exp(log_mean_softmax(whole_image_passes(image, model)))
    np.testing.assert_allclose(done["probabilities"], 255 * mean, atol=0.501)


KINDS = ("scores", "classes", "probabilities")


def whole_plane(image: np.ndarray, predictor: Predictor, tiling: Tiling) -> dict[str, np.ndarray]:
    """Predict a plane block by block."""
    layers: dict[str, np.ndarray] = {}
    for block in tiling.blocks():
        y, x = tiling.source(block)
        done = predict_block(
            image[:, y.slice, x.slice],
            (y.start, x.start),
            block,
            tiling=tiling,
            predictor=predictor,
            limits=None,
            kinds=KINDS,
        )
        for kind, part in done.items():
            layer = layers.setdefault(kind, np.empty((*part.shape[:-2], *tiling.shape), part.dtype))
            layer[..., block.y.slice, block.x.slice] = part
    return layers


@pytest.mark.parametrize("augment", ["none", "d4"])
@pytest.mark.parametrize(("depth", "shape"), [(1, (90, 61)), (2, (70, 75)), (3, (40, 50))])
def test_bits_are_those_of_one_pass_for_each_tile(
    depth: int, shape: tuple[int, int], augment: str
) -> None:
    """On the CPU nothing is batched: the oracle puts one tile after the other through torch."""
    image, model = random_image((1, *shape), np.uint16), random_model(depth, classes=3)
    tiling = Tiling(shape=shape, depth=depth, tile=(32, 24), block=(64, 48))
    found = whole_plane(image, Predictor.of(model, device="cpu", augment=augment), tiling)
    network = model.eval().to(memory_format=torch.channels_last)

    def one_pass(tile: torch.Tensor) -> torch.Tensor:
        return network(tile.contiguous(memory_format=torch.channels_last))[0]

    for block in tiling.blocks():
        for y, x in tiling.tiles(block):
            cut = mirrored(image, (0, 0), tiling.tile_read((y, x)), shape).astype(np.float32)
            with torch.inference_mode():
                tile = torch.from_numpy(np.ascontiguousarray(cut))[None]
                if augment == "none":
                    scores = one_pass(tile)
                else:
                    first, *others = (
                        turn.undo(one_pass(turn.apply(tile))).log_softmax(0) for turn in D4
                    )
                    for other in others:
                        torch.logaddexp(first, other, out=first)
                    scores = first - np.log(8)
                inside = y.cut(block.y).slice, x.cut(block.x).slice
                scores = scores[:, : y.cut(block.y).size, : x.cut(block.x).size]
                expected = {
                    "scores": scores,
                    "classes": scores.argmax(0).to(torch.uint8),
                    "probabilities": scores.softmax(0).mul(255).round().to(torch.uint8),
                }
            for kind in KINDS:
                np.testing.assert_array_equal(found[kind][..., *inside], expected[kind].numpy())


@pytest.mark.parametrize("augment", ["none", "d4"])
def test_batches_of_a_gpu_are_put_where_they_belong(
    monkeypatch: pytest.MonkeyPatch, augment: str
) -> None:
    fake_cuda(monkeypatch)
    image, model = random_image((1, 80, 111), np.uint8), random_model(1, classes=3)
    tiling = Tiling(shape=(80, 111), depth=1, tile=(32, 24), block=(64, 72))
    one = Predictor.of(model, device="cpu", augment=augment)
    expected = whole_plane(image, one, tiling)
    found = whole_plane(image, replace(one, device="cuda", batch=4), tiling)
    assert_same_scores(found["scores"], expected["scores"], 2 * tolerance(expected["scores"]))
    np.testing.assert_array_equal(found["classes"], found["scores"].argmax(0))
    assert np.abs(found["probabilities"] - expected["probabilities"].astype(int)).max() <= 1


def test_tiles_are_cut_when_their_turn_comes_and_outside_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory does not grow with the block, and other blocks are predicted meanwhile."""
    cut = passes = 0

    def watched(*args: Any) -> np.ndarray:
        nonlocal cut
        assert not predictors._forward_lock.locked()
        cut += 1
        return mirrored(*args)

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1
        assert predictors._forward_lock.locked() and cut == passes

    monkeypatch.setattr(tiles, "mirrored", watched)
    predictor = Predictor.of(random_model(2, seed=5), device="cpu")
    predictor.model.register_forward_pre_hook(count)
    tiling = Tiling(shape=(100, 90), depth=2, tile=(32, 32), block=(128, 96))
    whole_plane(random_image((1, 100, 90), np.uint8), predictor, tiling)
    assert cut == passes == 12


@given(st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_the_best_class_is_the_first_of_equal_scores(classes: int, seed: int) -> None:
    """As NumPy's argmax has it; whole numbers make ties."""
    scores = np.random.default_rng(seed).integers(-2, 3, (2, classes, 5, 7)).astype(np.float32)
    found = tiles._classes(torch.from_numpy(scores))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), scores.argmax(1))


def test_a_tile_that_would_fit_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = fake_cuda(monkeypatch)
    predictor = replace(Predictor.of(random_model(2), device="cpu"), device="cuda", batch=4)

    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    predictor._network().module.register_forward_pre_hook(refuse)
    tiling, smaller = (
        Tiling(shape=(4096, 4096), depth=2, tile=(tile, tile), block=(tile, tile))
        for tile in (1024, 256)
    )
    cuda.free = device_memory(predictor.model, smaller, 1, "float32")
    message = (
        rf"a tile of 1064 × 1064 px, margins included, does not fit the memory of cuda "
        rf"\({cuda.free / 1e9:.2f} GB to be had\); pass --tile 256$"
    )
    with pytest.raises(DeviceMemoryError, match=message):
        time_tile(predictor, tiling)
    cuda.free = 10**6
    with pytest.raises(DeviceMemoryError, match=r"use another device$"):
        whole_plane(np.zeros((1, 4096, 4096), np.uint8), predictor, tiling)


_WITH_LITTLE_MEMORY = """
import resource
import numpy as np
from bigunet import UNet
from bigunet.errors import DeviceMemoryError
from bigunet.geometry import Tiling
from bigunet.tiles import time_tile
from bigunet.models.predictor import Predictor

predictor = Predictor.of(UNet(1, 2, 4, 2), device="cpu", threads=1)
small, large = (
    Tiling(shape=(n, n), depth=2, tile=(n, n), block=(n, n)) for n in (64, 1024)
)
time_tile(predictor, small)
(used,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (int(used) * 1024 + 50 * 2**20, -1))
try:
    time_tile(predictor, large)
except DeviceMemoryError as error:
    print(error)
time_tile(predictor, small)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_a_process_whose_memory_is_full_says_so_and_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITH_LITTLE_MEMORY], capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        "a tile of 1064 × 1064 px, margins included, does not fit the memory of cpu; "
        "pass --tile 512\n"
    ), done.stderr


@pytest.mark.gpu
def test_a_full_gpu_reduces_the_batch_and_goes_on() -> None:
    model = bigunet.UNet(1, 2, width=32, depth=3).eval()
    image = random_image((1, 1100, 1000), np.uint8)
    tiling = Tiling(shape=(1100, 1000), depth=3, tile=(512, 512), block=(1536, 1024))
    expected = whole_plane(image, Predictor.of(model, device="cpu"), tiling)["scores"]
    predictor = Predictor.of(model, device="cuda", batch=6)
    total = torch.cuda.get_device_properties("cuda").total_memory
    need = device_memory(model, tiling, 2, "float32") - device_memory(model, tiling, 0, "float32")
    torch.cuda.set_per_process_memory_fraction(need / total)
    try:
        found = whole_plane(image, predictor, tiling)["scores"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert predictor.fitting_batch < 6
    assert_same_scores(found, expected)
