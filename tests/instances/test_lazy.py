"""Lazy objects are those of the whole array, however the class map is cut."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.instances import lazy
from bigunet.instances.lazy import lazy_objects
from bigunet.instances.rules import Rules
from tests.instances.masks import HARD, chunked
from tests.instances.routes import (
    class_maps,
    cuts,
    objects_by_blocks,
    objects_of_the_whole,
    rules,
)
from tests.instances.test_split import longest_side


def assert_found(found, expected):
    ids, classes = dask.compute(*found, scheduler="synchronous")
    np.testing.assert_array_equal(ids, expected.ids)
    assert classes.tolist() == [0, *expected.classes]
    assert ids.dtype == found[0].dtype == np.uint32
    assert classes.dtype == found[1].dtype == np.uint8


@given(st.data())
def test_the_law(data):
    classes, rule = data.draw(class_maps()), data.draw(rules())
    array = da.from_array(classes, chunks=data.draw(cuts(classes.shape)))
    assert_found(lazy_objects(array, rule), objects_of_the_whole(classes, rule))


@given(st.data())
def test_the_law_with_splitting(data):
    classes = data.draw(class_maps(most=16))
    rule = Rules(
        split="distance",
        max_diameter=longest_side(classes),
        gap=data.draw(st.integers(0, 2)),
        fill_holes=data.draw(st.booleans()),
    )
    array = da.from_array(classes, chunks=data.draw(cuts(classes.shape)))
    one = tuple((n,) for n in classes.shape)
    assert_found(lazy_objects(array, rule), objects_by_blocks(classes, rule, one))


def test_wide_ids(monkeypatch):
    monkeypatch.setattr(lazy, "id_dtype", lambda most: np.dtype(np.uint64))
    classes = HARD["comb"].astype(np.uint8)
    for rule in (Rules(gap=2), Rules(gap=2, fill_holes=True)):
        ids, _ = lazy_objects(chunked(classes, 5), rule)
        assert ids.compute().dtype == ids.dtype == np.uint64
        np.testing.assert_array_equal(ids, objects_of_the_whole(classes, rule).ids)


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError

    classes = da.zeros((6, 8), chunks=(3, 4), dtype=np.uint8)
    classes = classes.map_blocks(fail, meta=np.empty((0, 0), np.uint8))
    ids, of_ids = lazy_objects(classes, Rules(gap=2, fill_holes=True, min_area=5))
    assert ids.chunks == classes.chunks and ids.shape == classes.shape
    assert len(of_ids.shape) == 1 and np.isnan(of_ids.shape[0])


@pytest.mark.parametrize("rule", [Rules(), Rules(gap=2), Rules(split="distance", max_diameter=3)])
def test_a_block_is_labelled_once_for_both_results(monkeypatch, rule):
    calls = []
    original = lazy.label_block

    def counting(*args, **kwargs):
        calls.append(tuple(kwargs["origin"]))
        return original(*args, **kwargs)

    monkeypatch.setattr(lazy, "label_block", counting)
    ids, classes = lazy_objects(chunked(HARD["spiral"].astype(np.uint8), 7), rule)
    dask.compute(ids + 1, ids[0], classes)
    assert sorted(calls) == [(y, x) for y in (0, 7, 14) for x in (0, 7, 14)]


def test_names_follow_what_is_asked():
    classes = chunked(HARD["spiral"].astype(np.uint8), 7)
    rule = Rules(gap=2)
    assert lazy_objects(classes, rule)[0].name == lazy_objects(classes, rule)[0].name
    names = {lazy_objects(classes, Rules(gap=gap))[0].name for gap in (0, 1, 2)}
    assert len(names) == 3


def test_chunks_smaller_than_the_halo_grow():
    classes = da.zeros((40, 9), chunks=(5, 3), dtype=np.uint8)
    ids, _ = lazy_objects(classes, Rules(split="distance", max_diameter=12))
    assert min(ids.chunks[0]) >= 12 and ids.chunks[1] == (9,)
