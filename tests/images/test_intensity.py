"""Limits depend on the image's tissue alone: not on chunks, gain or empty glass."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.images.intensity import (
    WINDOW,
    WINDOWS,
    IntensityRule,
    as_rule,
    default_rule,
    measure_limits,
    normalise,
    percentile_of_sorted,
    sample_windows,
    tissue_masks,
)

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
PERCENTILE = IntensityRule(kind="percentile", low=1, high=99.8)


def limits_of(array, rule=PERCENTILE):
    return measure_limits(array, rule).compute(scheduler="sync")


def oracle_percentiles(values, qs):
    """Mid-ranks the dumb way, from the full table of values and counts."""
    different, counts = np.unique(values, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return [np.interp(q / 100 * values.size, middle, different.astype(float)) for q in qs]


def nuclei(side=512, seed=0):
    """Blurred ellipses of varied size and brightness on an uneven, noisy background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = 300 + 60 * np.sin(y / 190) * np.cos(x / 230)
    for _ in range(side * side // 2600):
        cy, cx = rng.uniform(0, side, 2)
        ry, rx = rng.uniform(6, 13, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        image[inside] += rng.uniform(500, 2000)
    image = ndimage.gaussian_filter(image, 1.3)
    return (image + rng.normal(0, 12, image.shape)).clip(1).astype(np.uint16)


def with_margin(image, share, fill, place):
    """Image on a larger canvas, `share` of it empty, at offsets that fit no lattice."""
    h, w = image.shape
    grow = 1 / (1 - share)
    if place == "around":
        shape = round(h * grow**0.5) + 5, round(w * grow**0.5) + 3
        y, x = (shape[0] - h) // 2 | 1, (shape[1] - w) // 2 | 1
    else:
        shape = h, round(w * grow) + 3
        y, x = 0, (shape[1] - w if place == "left" else 0)
    canvas = np.zeros(shape, image.dtype)
    if fill == "noise":
        dark = image[image <= np.percentile(image, 20)]
        canvas = np.random.default_rng(1).choice(dark, size=shape)
    canvas[y : y + h, x : x + w] = image
    return canvas


def shift(image, changed, gain=1.0):
    """How far the normalised value of a bright nucleus moves, in parts of it."""
    bright = np.percentile(image, 99.5)
    (lo, hi), (low, high) = limits_of(image[None])[0], limits_of(changed[None])[0]
    return abs((bright * gain - low) / (high - low) / ((bright - lo) / (hi - lo)) - 1)


def real_images():
    """Name and fluorescence image (Y, X); none where the data is not there."""
    if not (DATA / "ome_zarr").is_dir():
        return
    cardio = zarr.open_group(DATA / "ome_zarr/v04_cardio_mip_labels.zarr", mode="r")
    yield "cardio", cardio["1"][0, 0]
    plk1 = zarr.open_group(DATA / "ome_zarr/v04_nuclei_plk1_control.ome.zarr", mode="r")
    yield "plk1", plk1["0"][0, 0, 0]
    image_module = pytest.importorskip("PIL.Image")
    with (DATA / "dsb2018/split.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["domain"] == "fluorescence"]
    found = {}
    for row in rows[::5]:
        image = np.asarray(image_module.open(DATA / "dsb2018/image" / f"{row['name']}.png"))
        if image.ndim == 2:
            found[float(np.percentile(image, 99.8)), row["name"]] = image
    brightness = sorted(found)
    for key in brightness[:: len(brightness) // 8]:
        yield f"{key[1]} ({key[0]:.0f})", found[key]


# Margins and gains


@pytest.mark.parametrize("place", ["right", "left", "around"])
@pytest.mark.parametrize("fill", ["zeros", "noise"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_an_empty_margin_moves_a_bright_nucleus_by_less_than_2_percent(share, fill, place):
    image = nuclei()
    assert shift(image, with_margin(image, share, fill, place)) < 0.02


@pytest.mark.parametrize("gain", [0.25, 0.7, 2, 4])
def test_a_gain_moves_a_bright_nucleus_by_less_than_2_percent(gain):
    image = nuclei()
    assert shift(image, image * gain, gain) < 1e-9
    assert shift(image, np.round(image * gain).astype(np.uint16), gain) < 0.002


def test_margin_and_gain_together():
    image = nuclei()
    assert shift(image, with_margin(image, 0.9, "zeros", "around") * 0.25, 0.25) < 0.02


@pytest.mark.parametrize("fill", ["zeros", "noise"])
def test_real_images_stand_margins_and_gains(fill):
    """The numbers of all images at once, so that a failure shows the whole table.

    Not all keep to it: a few of 256 x 256 pixels reach 2.0 to 2.9 % (2 of 32 images in
    one trial). There 0.2 % are a few dozen pixels of one nucleus. Larger ones all do.
    """
    worst = {}
    for name, image in real_images():
        changes = [
            shift(image, with_margin(image, share, fill, place))
            for share in (0.3, 0.95)
            for place in ("right", "left", "around")
        ]
        changes += [shift(image, image * gain, gain) for gain in (0.25, 4.0)]
        worst[name] = float(max(changes)), image.size
    if not worst:
        pytest.skip("shared data is not here")
    assert all(moved < 0.02 for moved, size in worst.values() if size > 256 * 256), worst
    assert all(moved < 0.03 for moved, _ in worst.values()), worst
    assert sum(moved >= 0.02 for moved, _ in worst.values()) <= 1, worst


def test_a_plain_percentile_would_not_do():
    image = nuclei()
    padded = with_margin(image, 0.95, "zeros", "around")
    bright = np.percentile(image, 99.5)
    (lo, hi), (low, high) = (np.percentile(a, [1, 99.8]) for a in (image, padded))
    assert abs((bright - low) / (high - low) / ((bright - lo) / (hi - lo)) - 1) > 0.1


# Chunks and windows


@given(
    st.tuples(st.integers(1, 2), st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(1, 2), st.integers(20, 300), st.integers(20, 300)),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_limits_do_not_depend_on_chunks(shape, chunks, dtype):
    array = np.random.default_rng(0).gamma(2, 20, shape).astype(dtype)
    assert limits_of(da.from_array(array, chunks=chunks)) == limits_of(array)


def test_limits_do_not_depend_on_the_scheduler_or_on_being_a_stack_of_planes():
    array = np.random.default_rng(0).gamma(2, 20, (3, 2, 300, 300)).astype(np.uint16)
    lazy = measure_limits(da.from_array(array, chunks=(1, 1, 70, 128)), PERCENTILE)
    assert lazy.compute(scheduler="threads") == limits_of(array)
    assert limits_of(array[:1]) == limits_of(array[0])


def test_equal_images_give_equal_keys_and_one_read_of_a_chunk():
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return np.ones(block_info[None]["chunk-shape"], np.uint8)

    array = da.zeros((2, 1024, 1024), chunks=(2, 512, 512), dtype=np.uint8)
    array = array.map_blocks(read, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    first, second = measure_limits(array, PERCENTILE), measure_limits(array, PERCENTILE)
    assert first.key == second.key
    dask.compute(first, second, scheduler="sync")
    assert len(reads) == 4


shapes = st.tuples(
    st.sampled_from([1, 3]),
    *[st.one_of(st.integers(1, 600), st.integers(1, 200_000))] * 2,
)


@given(st.one_of(shapes, st.tuples(st.integers(1, 500), shapes).map(lambda s: (s[0], *s[1]))))
def test_windows_lie_inside_apart_and_within_the_budget(shape):
    windows = sample_windows(shape)
    assert 1 <= len(windows) <= WINDOWS
    assert len({str(w) for w in windows}) == len(windows)
    for *plane, channels, y, x in windows:
        assert channels == slice(None)
        assert all(0 <= p < shape[0] for p in plane)
        for span, size in ((y, shape[-2]), (x, shape[-1])):
            assert span.start % WINDOW == 0
            assert span.start < span.stop == min(span.start + WINDOW, size)


@given(st.integers(1, 5500), st.integers(1, 5500))
def test_an_image_within_the_budget_is_covered_whole(height, width):
    cells = -(-height // WINDOW) * -(-width // WINDOW)
    area = sum(
        (y.stop - y.start) * (x.stop - x.start) for _, y, x in sample_windows((1, height, width))
    )
    assert area == height * width or cells > WINDOWS * 0.9


@pytest.mark.parametrize("shape", [(1, 100_000, 80_000), (1, 300, 200_000), (40, 1, 9000, 9000)])
def test_windows_of_large_images_are_spread_evenly(shape):
    windows = sample_windows(shape)
    assert len(windows) > WINDOWS * 0.85
    for axis in (-2, -1):
        starts = sorted({w[axis].start for w in windows})
        steps = {b - a for a, b in pairwise(starts)}
        assert not steps or max(steps) - min(steps) <= WINDOW
    if len(shape) == 4:
        assert len({w[0] for w in windows}) == 16


def test_windows_may_be_read_straight_from_the_store():
    array = np.random.default_rng(0).gamma(2, 20, (2, 2, 300, 300)).astype(np.uint16)
    lazy = da.from_array(array, chunks=-1)
    found = measure_limits(lazy, PERCENTILE, read=array.__getitem__)
    assert found.compute(scheduler="sync") == limits_of(array)
    assert not set(found.dask) & set(lazy.dask)


def test_a_large_lazy_image_is_sampled_not_read():
    array = da.zeros((1, 100_000, 100_000), chunks=(1, 1024, 1024), dtype=np.uint8)
    measured = measure_limits(array, PERCENTILE)
    assert measured.compute() == ((0.0, 1.0),)


# Percentiles and masks


@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=60),
    st.tuples(st.floats(0, 100), st.floats(0, 100)),
)
def test_percentiles_agree_with_the_table_of_all_values(values, qs):
    ordered = np.sort(np.asarray(values, np.int8))
    found = [percentile_of_sorted(ordered, q) for q in qs]
    np.testing.assert_allclose(found, oracle_percentiles(ordered, qs), rtol=1e-9, atol=1e-6)


@given(st.integers(1, 300), st.floats(0, 100))
def test_percentiles_of_different_values_are_numpys_hazen(count, q):
    ordered = np.sort(np.random.default_rng(count).normal(size=count))
    expected = np.percentile(ordered, q, method="hazen")
    np.testing.assert_allclose(percentile_of_sorted(ordered, q), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, ">u2", np.float32, np.float64])
def test_limits_are_the_percentiles_of_all_pixels_of_tissue(dtype):
    image = nuclei(300) / 20.0
    image = (image.clip(0, 255) - (128 if np.dtype(dtype) == np.int8 else 0)).astype(dtype)
    windows = [image[w[1:]] for w in sample_windows((1, *image.shape))]
    pixels = np.concatenate([w[m] for w, m in zip(windows, tissue_masks(windows), strict=True)])
    assert 0.1 * image.size < pixels.size < 0.8 * image.size
    np.testing.assert_allclose(limits_of(image[None])[0], oracle_percentiles(pixels, (1, 99.8)))


def test_channels_have_their_own_limits():
    image = np.stack([nuclei(200), nuclei(200, seed=1) * 3])
    assert limits_of(image) == limits_of(image[:1]) + limits_of(image[1:])


def test_what_is_not_finite_is_not_there():
    image = nuclei(256).astype(np.float32)
    holes = image.copy()
    holes[:, :7], holes[-3:] = np.nan, np.inf
    zeros = image.copy()
    zeros[:, :7], zeros[-3:] = 0, 0
    assert limits_of(holes[None]) == limits_of(zeros[None])
    assert limits_of(np.full((1, 5, 5), np.nan)) == ((0.0, 1.0),)


@pytest.mark.parametrize("side", [1, 3, 9, 257])
@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_image_has_limits_that_differ(value, side):
    assert limits_of(np.full((2, side, side), value, np.int8)) == ((value, value + 1),) * 2


def test_a_large_constant_has_limits_that_differ_in_float32():
    ((lo, hi),) = limits_of(np.full((1, 9, 9), 1e9))
    assert np.float32(hi) > np.float32(lo)


def test_a_mask_of_zeros_and_ones_keeps_its_range():
    mask = (nuclei(256) > 700).astype(np.uint8)
    assert limits_of(mask[None]) == ((0.0, 1.0),)


def test_the_ragged_end_of_an_image_adds_no_contrast():
    rng = np.random.default_rng(0)
    for side in (253, 257, 259):
        image = 1000 + rng.normal(0, 3, (side, side))
        image[60:90, 60:90] += 2000
        windows = [image[w[1:]] for w in sample_windows((1, side, side))]
        pixels = sum(int(mask.sum()) for mask in tissue_masks(windows))
        assert 30 * 30 * 0.4 < pixels < 50 * 50


@pytest.mark.parametrize("dtype", [bool, np.complex64])
def test_pixels_that_are_no_numbers_are_refused(dtype):
    with pytest.raises(InputError, match="integers or floats"):
        measure_limits(np.zeros((1, 4, 4), dtype), PERCENTILE)


@pytest.mark.parametrize("shape", [(4, 4), (1, 0, 4), (1, 1, 1, 4, 4)])
def test_shapes_that_are_no_image_are_refused(shape):
    with pytest.raises(InputError, match="is needed"):
        measure_limits(np.zeros(shape), PERCENTILE)


# Rules


def test_defaults():
    assert default_rule(np.uint8, 3) == IntensityRule(kind="range", low=0, high=255)
    for dtype, channels in ((np.uint8, 1), (np.uint16, 3), (np.float32, 1)):
        assert default_rule(dtype, channels) == PERCENTILE


def test_a_range_is_its_own_limits_lazily():
    rule = as_rule((10, 20.5))
    assert limits_of(np.zeros((2, 4, 4)), rule) == ((10.0, 20.5), (10.0, 20.5))


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("range", 5, 5),
        ("range", 6, 5),
        ("range", 0, float("nan")),
        ("range", 0, float("inf")),
        ("range", 0, 1e39),
        ("range", 0, 10**400),
        ("range", 1e9, 1e9 + 1),
        ("range", "0", 1),
        ("range", True, 2),
        ("percentile", -1, 99),
        ("percentile", 1, 100.1),
        ("percentile", 50, 50),
        ("otsu", 0, 1),
        (None, 0, 1),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(kind, low, high):
    with pytest.raises(InputError, match="intensity"):
        IntensityRule(kind=kind, low=low, high=high)


@pytest.mark.parametrize("value", [3, (1, 2, 3), "otsu", None, (2, 1), ("a", "b")])
def test_shorthands_that_cannot_be_meant_are_refused(value):
    with pytest.raises(InputError, match="intensity"):
        as_rule(value)


def test_shorthands():
    assert as_rule("percentile") == PERCENTILE
    assert as_rule(PERCENTILE) is PERCENTILE
    assert as_rule(np.array([1, 2])) == as_rule([1, 2]) == as_rule((1.0, 2.0))


def test_normalise_puts_the_limits_at_0_and_1_and_clips_nothing():
    pixels = np.array([[[10, 20, 30]], [[0, 5, 255]]], np.uint8)
    found = normalise(pixels, ((10.0, 20.0), (0.0, 5.0)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[0, 1, 2]], [[0, 1, 51]]])
