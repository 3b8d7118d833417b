"""A lazy label is that of the whole array, however it is cut."""

from __future__ import annotations

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import measure

from bigunet.errors import InputError
from bigunet.instances import label as module
from bigunet.instances.label import label
from tests.instances.masks import HARD, chunked, cut_masks, dumb_label, structures


def assert_label(found, expected):
    labels, count = dask.compute(*found)
    np.testing.assert_array_equal(labels, expected[0])
    assert count == expected[1]
    assert labels.dtype == found[0].dtype == np.uint32


@given(st.data())
def test_the_law(data):
    mask = data.draw(cut_masks(values=3))
    structure = data.draw(st.none() | structures(mask.ndim))
    workers = data.draw(st.integers(1, 3))
    with dask.config.set(scheduler="threads", num_workers=workers):
        assert_label(label(mask, structure), ndimage.label(mask.compute(), structure))


@given(st.data())
def test_the_law_by_class(data):
    mask = data.draw(cut_masks(values=data.draw(st.integers(1, 4))))
    structure = data.draw(structures(mask.ndim))
    with dask.config.set(scheduler="synchronous"):
        found = label(mask, structure, by_class=True)
        assert_label(found, dumb_label(mask.compute(), structure))


@given(st.data())
def test_by_class_is_what_skimage_gives(data):
    # skimage turns volumes with an axis of one pixel, and numbers them in another order.
    mask = data.draw(cut_masks(values=3, least=2))
    connectivity = data.draw(st.integers(1, mask.ndim))
    structure = ndimage.generate_binary_structure(mask.ndim, connectivity)
    expected = measure.label(
        mask.compute(), background=0, return_num=True, connectivity=connectivity
    )
    with dask.config.set(scheduler="synchronous"):
        assert_label(label(mask, structure, by_class=True), expected)


@pytest.mark.parametrize(
    ("size", "by_class"),
    [(1, False), (2, False), (3, False), (4, False), (7, False), (100, False), (3, True)],
)
@pytest.mark.parametrize("name", HARD)
def test_hard_masks(name, size, by_class):
    mask = HARD[name]
    for connectivity in range(1, mask.ndim + 1):
        structure = ndimage.generate_binary_structure(mask.ndim, connectivity)
        expected = ndimage.label(mask, structure)
        with dask.config.set(scheduler="synchronous"):
            assert_label(label(chunked(mask, size), structure, by_class=by_class), expected)


@pytest.mark.parametrize("ndim", [2, 3])
def test_corners_join_only_where_the_structure_says(ndim):
    size = 6
    for corner in np.ndindex((2,) * (ndim - 1)):
        mask = np.zeros((size,) * ndim, dtype=bool)
        near = (2, *(2 + c for c in corner))
        far = (3, *(3 - c for c in corner))
        mask[near] = mask[far] = True
        for connectivity in range(1, ndim + 1):
            structure = ndimage.generate_binary_structure(ndim, connectivity)
            _, count = label(chunked(mask, 3), structure)
            assert int(count) == (1 if connectivity == ndim else 2)


def test_one_diagonal_alone():
    structure = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    mask = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]])
    found = label(chunked(mask, 2), structure)
    assert_label(found, ndimage.label(mask, structure))
    assert int(found[1]) == 5


def test_values_that_touch_across_a_face_stay_apart_by_class():
    mask = chunked(np.array([[1, 1, 2, 2], [1, 1, 2, 2]], np.uint8), 2)
    assert int(label(mask)[1]) == 1
    assert int(label(mask, by_class=True)[1]) == 2


@pytest.mark.parametrize(
    "dtype", [bool, np.int8, np.uint16, np.int64, np.uint64, np.float16, np.float64]
)
def test_types_of_masks(dtype):
    mask = (np.arange(20) % 3).reshape(4, 5).astype(dtype)
    if mask.dtype.kind in "if":
        mask = -mask
    assert_label(label(chunked(mask, 2)), ndimage.label(mask != 0))


def test_not_a_number_is_not_zero():
    mask = np.array([0, np.nan, 1, 0, -0.0, 2])
    assert label(mask)[0].compute().tolist() == [0, 1, 1, 0, 0, 2]


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_in_memory(order):
    mask = np.asarray(HARD["comb"], order=order)
    assert_label(label(mask), ndimage.label(mask))
    assert_label(label(mask.tolist()), ndimage.label(mask))
    assert_label(label(da.from_array(mask, 5).T), ndimage.label(mask.T))


def test_chunks_without_pixels():
    mask = da.from_array(np.ones((4, 5), bool), chunks=((0, 2, 0, 2), (3, 0, 2)))
    labels, count = label(mask)
    assert labels.chunks == mask.chunks
    assert (labels.compute() == 1).all() and int(count) == 1


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
@pytest.mark.parametrize("by_class", [False, True])
def test_arrays_without_pixels(shape, by_class):
    labels, count = label(da.zeros(shape, dtype=int), by_class=by_class)
    assert labels.compute().shape == shape and int(count) == 0


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError

    mask = da.zeros((6, 8), chunks=(3, 4), dtype=bool).map_blocks(fail, meta=np.empty((0, 0), bool))
    labels, count = label(mask)
    assert labels.chunks == mask.chunks and labels.shape == mask.shape
    assert isinstance(count, da.Array) and count.shape == () and count.dtype == np.int64


@pytest.mark.parametrize(
    ("side", "dtype"), [(2**16 - 1, np.uint32), (2**16, np.uint64), (2**20, np.uint64)]
)
def test_ids_have_room_for_every_pixel(side, dtype):
    labels, _ = label(da.zeros((side, side), chunks=side, dtype=bool))
    assert labels.dtype == dtype


def test_wide_ids_are_computed_as_promised(monkeypatch):
    monkeypatch.setattr(module, "id_dtype", lambda most: np.dtype(np.uint64))
    labels, _ = label(chunked(HARD["comb"], 5))
    assert labels.compute().dtype == labels.dtype == np.uint64


def test_a_block_is_labelled_once_for_both_results(monkeypatch):
    calls = []
    original = module.label_block

    def counting(*args, **kwargs):
        calls.append(kwargs["origin"])
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "label_block", counting)
    mask = chunked(HARD["spiral"], 7)
    labels, count = label(mask > 0)
    dask.compute(labels + 1, labels[0], count)
    assert sorted(calls) == [(y, x) for y in (0, 7, 14) for x in (0, 7, 14)]


def test_four_tasks_a_block_and_a_merge():
    mask = chunked(np.zeros((40, 40), bool), 5)
    labels, count = label(mask)
    own = len(dict(labels.dask)) - len(dict(mask.dask))
    assert own == 4 * 64 + 1
    assert len({**labels.dask, **count.dask}) == len(dict(labels.dask)) + 1


def test_names_follow_what_is_labelled():
    mask = chunked(HARD["comb"], 5)
    assert label(mask)[0].name == label(mask)[0].name
    eight = np.ones((3, 3))
    names = {label(mask, s, by_class=c)[0].name for s in (None, eight) for c in (False, True)}
    assert len(names) == 4


def test_results_can_be_sent():
    labels, count = pickle.loads(pickle.dumps(label(chunked(HARD["comb"], 5))))
    assert_label((labels, count), ndimage.label(HARD["comb"]))


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=4)))
def test_structures_are_refused_where_scipy_refuses(structure):
    mask = np.ones((4, 4), bool)
    try:
        expected = ndimage.label(mask, structure)
    except (ValueError, RuntimeError, AssertionError):
        with pytest.raises(InputError, match="structure"):
            label(mask, structure)
    else:
        assert_label(label(chunked(mask, 2), structure), expected)


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.zeros(3, complex), {}, "type complex128 cannot be labelled; give booleans"),
        (np.array(["a"]), {}, "type <U1 cannot be labelled"),
        (np.zeros(3), {"by_class": True}, "type float64 .* give booleans or integers"),
        (np.array(1), {}, "a mask without axes"),
        (np.zeros((3, 3)), {"structure": np.ones(3)}, r"shape \(3,\), .* 2 axes needs \(3, 3\)"),
        (np.zeros((3, 3)), {"structure": np.ones((5, 5))}, r"shape \(5, 5\)"),
        (np.zeros((3, 3)), {"structure": np.eye(3) + np.eye(3, k=1)}, "not symmetric"),
        (np.zeros((3, 3)), {"structure": [[1, 1], [1]]}, "is no array"),
        (da.zeros((2**32, 2**32), chunks=2**31), {}, "more than 2"),
    ],
)
def test_refusals(mask, options, message):
    with pytest.raises(InputError, match=message) as caught:
        label(mask, **options)
    assert "\n" not in str(caught.value)


def test_unknown_chunks_are_refused():
    array = da.from_array(np.arange(6), 3)
    with pytest.raises(InputError, match="compute_chunk_sizes"):
        label(array[array > 2])
