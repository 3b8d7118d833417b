"""Limits depend on the image alone: not on chunks, order or the scheduler."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.images.intensity import (
    IntensityRule,
    as_rule,
    default_rule,
    measure_limits,
    normalise,
)
from bigunet.images.tissue import tissue_pixels
from bigunet.images.windows import sample_windows
from tests.images.made_intensity import PERCENTILE, limits_of, nuclei, oracle_percentiles


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


@given(st.tuples(st.integers(1, 1500), st.integers(1, 1500)))
def test_windows_may_be_read_straight_from_the_store_a_chunk_at_a_time(chunks):
    array = np.random.default_rng(0).gamma(2, 20, (2, 2, 600, 900)).astype(np.uint16)
    lazy = da.from_array(array, chunks=-1)
    found = measure_limits(lazy, PERCENTILE, read=array.__getitem__, chunks=chunks)
    assert found.compute(scheduler="sync") == limits_of(array)
    assert not set(found.dask) & set(lazy.dask)


def test_a_large_lazy_image_is_sampled_not_read():
    array = da.zeros((1, 100_000, 100_000), chunks=(1, 1024, 1024), dtype=np.uint8)
    measured = measure_limits(array, PERCENTILE)
    assert measured.compute() == ((0.0, 1.0),)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, ">u2", np.float32, np.float64])
def test_limits_are_the_percentiles_of_all_pixels_of_tissue(dtype):
    image = nuclei(300) / 20.0
    image = (image.clip(0, 255) - (128 if np.dtype(dtype) == np.int8 else 0)).astype(dtype)
    windows = [image[w[1:]] for w in sample_windows((1, *image.shape))]
    pixels = np.concatenate(tissue_pixels(windows))
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


@pytest.mark.parametrize("dtype", [bool, np.complex64])
def test_pixels_that_are_no_numbers_are_refused(dtype):
    with pytest.raises(InputError, match="integers or floats"):
        measure_limits(np.zeros((1, 4, 4), dtype), PERCENTILE)


@pytest.mark.parametrize("shape", [(4, 4), (1, 0, 4), (1, 1, 1, 4, 4)])
def test_shapes_that_are_no_image_are_refused(shape):
    with pytest.raises(InputError, match="is needed"):
        measure_limits(np.zeros(shape), PERCENTILE)


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
