"""The law: scores and classes are those of one pass over the whole image."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
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
from bigunet.errors import InputError
from bigunet.geometry import Tiling, legal_output
from bigunet.images.intensity import IntensityRule, measure_limits, normalise
from bigunet.inference import predict, segment
from bigunet.models.card import ModelCard
from bigunet.models.predictor import Predictor
from bigunet.tiles import predict_block

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


@pytest.mark.filterwarnings("ignore:bfloat16 takes several times:UserWarning")
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


@pytest.mark.parametrize("has_units", [True, False])
def test_a_precision_that_takes_longer_than_float32_is_said(
    monkeypatch: pytest.MonkeyPatch, has_units: bool
) -> None:
    monkeypatch.setattr(inference, "computes_bfloat16", lambda _: has_units)
    image, model = np.zeros((100, 100), np.uint8), random_model(1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        predict(image, model, precision="bfloat16")
        bigunet.segment(image, model, precision="float32")
    slow = "bfloat16 takes several times as long as float32 on a cpu without units for it"
    expected = [] if has_units else [f"{slow}; use precision float32"]
    assert [str(one.message) for one in said] == expected
    assert all(one.filename == __file__ for one in said)


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
