"""The law: scores and classes are those of one pass over the whole image."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    DTYPES,
    assert_same_classes,
    assert_same_scores,
    chunkings,
    log_mean_softmax,
    random_image,
    random_model,
    tolerance,
    whole_image_passes,
    whole_image_scores,
)

import bigunet
from bigunet import inference
from bigunet.errors import DeviceMemoryError, InputError
from bigunet.geometry import Tiling, legal_output
from bigunet.images.intensity import IntensityRule, measure_limits, normalise
from bigunet.inference import mirrored, predict, predict_block, segment, time_tile
from bigunet.memory import device_memory
from bigunet.models import predictor as predictors
from bigunet.models.card import ModelCard
from bigunet.models.predictor import Predictor
from bigunet.models.symmetries import D4

pytestmark = pytest.mark.filterwarnings("ignore:(block|tile) .* became:UserWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tiles gain nothing from threads, and bits are pinned to their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with dask.config.set(scheduler="threads"):
        yield
    torch.set_num_threads(before)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    depth = draw(st.integers(1, 4))
    longest = {1: 90, 2: 120, 3: 220, 4: 330}[depth]
    side = st.integers(1, longest) | st.sampled_from([1, 2**depth, longest])
    shape = draw(side), draw(side)
    return {
        "depth": depth,
        "shape": shape,
        "channels": draw(st.integers(1, 3)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "chunks": (draw(chunkings(shape[0])), draw(chunkings(shape[1]))),
        "block": draw(st.none() | st.integers(1, 200)),
        "tile": draw(st.none() | st.integers(1, 150)),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=40)
@given(cases())
def test_scores_and_classes_are_those_of_the_whole_image(case: dict[str, Any]) -> None:
    image = random_image((case["channels"], *case["shape"]), case["dtype"], case["seed"])
    model = random_model(case["depth"], case["channels"], classes=3)
    expected = whole_image_scores(image, model)
    lazy = da.from_array(image, chunks=((case["channels"],), *case["chunks"]))
    options = {"block": case["block"], "tile": case["tile"]}
    scores = predict(lazy, model, **options)
    assert scores.shape == expected.shape and scores.dtype == np.float32
    assert_same_scores(scores.compute(), expected)
    classes = segment(lazy, model, **options)
    assert classes.shape == case["shape"] and classes.dtype == np.uint8
    assert_same_classes(classes.compute(), expected)


@settings(max_examples=10)
@given(cases())
def test_averaged_scores_and_classes_are_those_of_the_whole_image(case: dict[str, Any]) -> None:
    image = random_image((case["channels"], *case["shape"]), case["dtype"], case["seed"])
    model = random_model(case["depth"], case["channels"], classes=3)
    passes = whole_image_passes(image, model)
    # A log-probability is a score less a mean of scores: what each may be off adds up.
    expected, allowed = log_mean_softmax(passes), 2 * tolerance(passes)
    lazy = da.from_array(image, chunks=((case["channels"],), *case["chunks"]))
    options = {"block": case["block"], "tile": case["tile"], "augment": "d4"}
    scores = predict(lazy, model, **options)
    assert scores.shape == expected.shape and scores.dtype == np.float32
    assert_same_scores(scores.compute(), expected, allowed)
    assert_same_classes(segment(lazy, model, **options).compute(), expected, allowed)


@pytest.mark.parametrize("depth", [1, 3])
def test_averaged_scores_turn_with_the_image(depth: int) -> None:
    """A legal size is mirrored alike on all sides, so that a turn moves no pooling grid."""
    image, model = random_image((1, 68, 100), np.float32), random_model(depth, classes=3)
    options: dict[str, Any] = {"tile": 32, "block": 64, "augment": "d4"}
    one = predict(image, model, **options).compute()
    turned = predict(np.rot90(image, axes=(1, 2)), model, **options).compute()
    allowed = 2 * tolerance(whole_image_scores(image, model))
    assert_same_scores(np.rot90(turned, -1, axes=(1, 2)), one, allowed)
    plain = predict(image, model, tile=32, block=64).compute()
    other = predict(np.rot90(image, axes=(1, 2)), model, tile=32, block=64).compute()
    assert np.abs(np.rot90(other, -1, axes=(1, 2)) - plain).max() > 100 * allowed


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


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 5), (90, 411), (388, 388)])
@pytest.mark.parametrize("depth", [1, 4])
def test_awkward_shapes(shape: tuple[int, int], depth: int) -> None:
    image, model = random_image((1, *shape), np.uint8), random_model(depth)
    expected = whole_image_scores(image, model)
    found = predict(image[0], model, block=96, tile=48)
    assert_same_scores(found.compute(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_pass_in_torchs_default_memory_format_agrees_too(depth: int, dtype: Any) -> None:
    """The oracle has the tiles' memory format; on images of some size that is no help."""
    image, model = random_image((1, 160, 190), dtype, seed=depth), random_model(depth, classes=3)
    before = model.margin
    pads = [(before, legal_output(size, depth) - size + before) for size in image.shape[1:]]
    padded = np.pad(image, [(0, 0), *pads], mode="symmetric").astype(np.float32)
    with torch.inference_mode():
        whole = model.eval()(torch.from_numpy(padded)[None])[0].numpy()
    expected = whole[:, : image.shape[1], : image.shape[2]]
    assert_same_scores(predict(image, model, tile=48, block=96).compute(), expected)


@settings(max_examples=15)
@given(cases(), st.integers(1, 400), chunkings(330), st.sampled_from(["sync", "threads"]))
def test_bits_depend_on_nothing_but_the_tile(
    case: dict[str, Any], block: int, chunks: tuple[int, ...], scheduler: str
) -> None:
    check_bits(330, case, block, chunks, scheduler, augment="none")


@settings(max_examples=5)
@given(cases(), st.integers(1, 400), chunkings(330), st.sampled_from(["sync", "threads"]))
def test_bits_of_openvino_depend_on_nothing_but_the_tile(
    case: dict[str, Any], block: int, chunks: tuple[int, ...], scheduler: str
) -> None:
    check_bits(330, case, block, chunks, scheduler, augment="none", runtime="openvino")


@settings(max_examples=5)
@given(cases(), st.integers(1, 200), chunkings(110), st.sampled_from(["sync", "threads"]))
def test_bits_of_an_average_depend_on_nothing_but_the_tile(
    case: dict[str, Any], block: int, chunks: tuple[int, ...], scheduler: str
) -> None:
    check_bits(110, case, block, chunks, scheduler, augment="d4")


def check_bits(
    size: int,
    case: dict[str, Any],
    block: int,
    chunks: tuple[int, ...],
    scheduler: str,
    **options: str,
) -> None:
    image = random_image((size, size), case["dtype"], case["seed"])
    model = random_model(case["depth"])
    grid = 2 ** case["depth"]
    tile = 48
    one = predict(image, model, tile=tile, block=tile, **options).compute(scheduler="sync")
    lazy = da.from_array(image, chunks=(chunks, tuple(reversed(chunks))))
    other = predict(lazy, model, tile=tile, block=max(block, tile, grid), **options)
    np.testing.assert_array_equal(one, other.compute(scheduler=scheduler, num_workers=3))


@pytest.mark.parametrize("depth", [2, 3])
def test_direct_reads_and_map_overlap_give_the_same_bits(depth: int) -> None:
    image, model = random_image((1, 301, 222), np.uint16), random_model(depth)
    lazy = predict(image, model, tile=64, block=128).compute()
    predictor = Predictor.of(model, device="cpu")
    tiling = Tiling(shape=(301, 222), depth=depth, tile=(64, 64), block=(128, 128))
    for block in tiling.blocks():
        y, x = tiling.source(block)
        done = predict_block(
            image[:, y.slice, x.slice],
            (y.start, x.start),
            block,
            tiling=tiling,
            predictor=predictor,
            limits=None,
            kinds=("scores", "classes"),
        )
        np.testing.assert_array_equal(done["scores"], lazy[:, block.y.slice, block.x.slice])
        np.testing.assert_array_equal(done["classes"], done["scores"].argmax(0))


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

    monkeypatch.setattr(inference, "mirrored", watched)
    predictor = Predictor.of(random_model(2, seed=5), device="cpu")
    predictor.model.register_forward_pre_hook(count)
    tiling = Tiling(shape=(100, 90), depth=2, tile=(32, 32), block=(128, 96))
    whole_plane(random_image((1, 100, 90), np.uint8), predictor, tiling)
    assert cut == passes == 12


@given(st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_the_best_class_is_the_first_of_equal_scores(classes: int, seed: int) -> None:
    """As NumPy's argmax has it; whole numbers make ties."""
    scores = np.random.default_rng(seed).integers(-2, 3, (2, classes, 5, 7)).astype(np.float32)
    found = inference._classes(torch.from_numpy(scores))
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
from bigunet.inference import time_tile
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


def test_the_callers_pixels_are_left_as_they_are() -> None:
    image = np.full((1, 60, 60), np.nan, np.float32)
    Predictor.of(random_model(2), device="cpu").scores(image, None)
    assert np.isnan(image).all()


@pytest.mark.gpu
@pytest.mark.parametrize("augment", ["none", "d4"])
def test_a_gpu_gives_the_scores_of_the_cpu_and_bits_that_blocks_do_not_change(augment: str) -> None:
    image, model = random_image((1, 500, 470), np.uint8), random_model(3, classes=3)
    expected = predict(image, model, tile=64, block=128, device="cpu", augment=augment).compute()
    options: dict[str, Any] = {"tile": 64, "device": "cuda", "augment": augment}
    one = predict(image, model, block=128, **options).compute(scheduler="threads")
    assert_same_scores(one, expected, 2 * tolerance(expected))
    other = predict(image, model, block=320, **options).compute(scheduler="sync")
    np.testing.assert_array_equal(one, other)


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


def test_blocks_off_the_pooling_grid_would_change_the_answer() -> None:
    """The trap that the geometry avoids is real, so the law above can fail."""
    image, model = random_image((1, 64, 80), np.uint8), random_model(2)
    shifted = whole_image_scores(image[:, :, 1:], model)
    whole = whole_image_scores(image, model)[:, :, 1:]
    inner = np.abs(shifted - whole)[:, 24:-24, 24:-24]
    assert inner.max() > 100 * 1e-5 * np.abs(whole).max()


def test_nothing_is_computed_until_asked() -> None:
    def refuse(_: np.ndarray) -> np.ndarray:
        raise AssertionError("a pixel was read")

    source = da.zeros((200, 200), chunks=50, dtype=np.uint8).map_blocks(refuse, dtype=np.uint8)
    model = random_model(2)
    model.card = ModelCard(intensity=IntensityRule(kind="percentile", low=1, high=99.8))
    for lazy in (predict(source, model), segment(source, model)):
        with pytest.raises(AssertionError, match="a pixel was read"):
            lazy.compute(scheduler="sync")


def test_a_loaded_rule_normalises_with_one_measure_of_the_whole_image() -> None:
    image, model = random_image((2, 150, 170), np.uint16), random_model(2, channels=2)
    rule = IntensityRule(kind="percentile", low=1, high=99.8)
    model.card = ModelCard(intensity=rule)
    limits = measure_limits(image, rule).compute()
    expected = whole_image_scores(normalise(image, limits), model)
    assert_same_scores(predict(image, model, block=64, tile=32).compute(), expected)
    given_limits = predict(image, model, block=64, tile=32, intensity=limits).compute()
    assert_same_scores(given_limits, expected)


def test_pixels_that_are_no_number_count_as_the_low_limit() -> None:
    image, model = random_image((40, 50), np.float32), random_model(2)
    broken = image.copy()
    broken[3:9, 20:30] = np.nan
    image[3:9, 20:30] = 0
    np.testing.assert_array_equal(predict(broken, model).compute(), predict(image, model).compute())


@pytest.mark.parametrize("training", [True, False])
def test_the_models_own_flag_and_weights_are_left_alone(training: bool) -> None:
    model = random_model(2)
    model.train(training)
    image = random_image((60, 60), np.uint8)
    lazy = predict(image, model)
    first = lazy.compute()
    assert model.training is training
    with torch.no_grad():
        model.head.weight.zero_()
    np.testing.assert_array_equal(lazy.compute(), first)
    assert all(p.requires_grad for p in model.parameters())


def test_the_graph_is_named_by_what_it_computes() -> None:
    image = da.from_array(random_image((60, 60), np.uint8), chunks=30)
    model, other = random_model(2), random_model(2, seed=1)
    assert predict(image, model).name == predict(image, random_model(2)).name
    assert predict(image, model).name != predict(image, other).name
    assert predict(image, model).name != predict(image, model, tile=16, block=48).name
    assert predict(image, model).name != predict(image, model, augment="d4").name


def test_a_predictor_travels() -> None:
    image, model = random_image((1, 100, 100), np.uint8), random_model(2)
    predictor = Predictor.of(model, device="cpu")
    again = pickle.loads(pickle.dumps(predictor))
    assert torch.equal(predictor.scores(image, None), again.scores(image, None))


def test_bfloat16_is_near_and_not_the_same() -> None:
    image, model = random_image((120, 120), np.uint8), random_model(2)
    exact = predict(image, model).compute()
    rough = predict(image, model, precision="bfloat16").compute()
    assert rough.dtype == np.float32
    difference = np.abs(exact - rough).max() / np.abs(exact).max()
    assert 1e-6 < difference < 0.05


def test_changed_sizes_are_said() -> None:
    image, model = np.zeros((500, 500), np.uint8), random_model(3)
    with pytest.warns(UserWarning, match=r"block 50 became"):
        predict(image, model, block=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(image, model, block=128, tile=64)
        predict(image, model, block=4096)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((5, 5), bool), {}, "type bool"),
        (np.zeros((5, 5), complex), {}, "type complex128"),
        (np.zeros((0, 5)), {}, "without pixels"),
        (np.zeros(5), {}, r"shape \(5,\)"),
        (np.zeros((2, 5, 5)), {}, "2 channels but the model takes 1"),
        (np.zeros((5, 5)), {"block": 0}, "block is 0"),
        (np.zeros((5, 5)), {"tile": -3}, "tile is -3"),
        (np.zeros((5, 5)), {"device": "tpu"}, "device 'tpu' is unknown"),
        (np.zeros((5, 5)), {"precision": "int8"}, "precision 'int8' is unknown"),
        (np.zeros((5, 5)), {"augment": "D8"}, "augment 'D8' is unknown; choose none or d4"),
        (np.zeros((5, 5)), {"intensity": [(3, 3)]}, "3,3 are no interval"),
        (np.zeros((5, 5)), {"intensity": [(0, 1), (0, 1)]}, "2 intensity limits for 1"),
    ],
)
def test_what_cannot_be_used_is_refused(
    array: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bigunet.predict(array, random_model(1), **options)
