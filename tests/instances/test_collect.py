"""Objects by blocks and rules are those of the whole array, found in the dumb way."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.instances.block import label_block
from bigunet.instances.collect import merge_objects, merge_refined
from bigunet.instances.neighbours import plane_structure
from bigunet.instances.refine import refine_block
from bigunet.instances.rules import Rules
from tests.instances.masks import HARD, checkerboard
from tests.instances.routes import (
    assert_same,
    class_maps,
    cuts,
    objects_by_blocks,
    objects_of_the_whole,
    rules,
)


@given(st.data())
def test_the_law(data):
    classes, rule = data.draw(class_maps()), data.draw(rules())
    found = objects_by_blocks(classes, rule, data.draw(cuts(classes.shape)))
    assert_same(found, objects_of_the_whole(classes, rule))


def by_blocks(picture: list[str], size: int, **options):
    """Return the objects of a picture of classes, one row a line, in blocks of a size."""
    classes = np.array([[int(c) for c in row.replace(".", "0")] for row in picture], np.uint8)
    chunks = tuple(
        tuple(min(size, n - start) for start in range(0, n, size)) for n in classes.shape
    )
    rule = Rules(**options)
    found = objects_by_blocks(classes, rule, chunks)
    assert_same(found, objects_of_the_whole(classes, rule))
    return found


RINGS = [
    "11111.222222",
    "1...1.2....2",
    "1...1.2.33.2",
    "11111.2....2",
    "......222222",
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
def test_a_hole_across_blocks_is_filled_but_not_one_that_holds_another_object(size):
    found = by_blocks(RINGS, size, fill_holes=True)
    assert found.classes == [1, 2, 3]
    assert found.area == [20, 18, 2]
    assert (found.ids[1:3, 1:4] == 1).all() and (found.ids[1, 7:11] == 0).all()


@pytest.mark.parametrize("size", [1, 2, 12])
def test_sizes_are_those_of_filled_objects(size):
    assert by_blocks(RINGS, size, fill_holes=True, min_area=19).classes == [1]
    assert by_blocks(RINGS, size, min_area=15, max_area=17).classes == []
    left = by_blocks(RINGS, size, fill_holes=True, max_area=19)
    assert left.classes == [2, 3] and left.ids.max() == 2


@pytest.mark.parametrize("size", [1, 2, 12])
def test_what_is_open_to_the_border_of_the_plane_is_no_hole(size):
    assert by_blocks(["1.1", "1.1", "111"], size, fill_holes=True).area == [7]
    assert by_blocks(["111", "1.1", "111"], size, fill_holes=True).area == [9]


def test_a_hole_that_the_gap_closes_off():
    # Two objects around a pond: no one encloses it, before and after.
    picture = ["11111111", "1......1", "1......1", "........", "........", "22222222"]
    assert by_blocks(picture, 3, gap=2, fill_holes=True).classes == [1, 2]


@pytest.mark.parametrize("name", ["spiral", "comb", "checkerboard", "full", "empty"])
@pytest.mark.parametrize("size", [3, 5])
def test_hard_masks(name, size):
    classes = HARD[name].astype(np.uint8)
    chunks = tuple(tuple(min(size, n - s) for s in range(0, n, size)) for n in classes.shape)
    for rule in (Rules(gap=2), Rules(gap=1, fill_holes=True, min_area=2)):
        found = objects_by_blocks(classes, rule, chunks)
        assert_same(found, objects_of_the_whole(classes, rule))


def test_planes_are_not_linked_and_have_ids_of_their_own():
    classes = np.ones((2, 3, 4, 4), np.uint8)
    found = objects_by_blocks(classes, Rules(gap=2), ((1, 1), (2, 1), (3, 1), (4,)))
    assert found.ids[..., 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.area == [16] * 6


def test_records_of_planes_hold_no_faces_between_them():
    classes = np.ones((1, 8, 8), np.uint8)
    _, record = label_block(classes, plane_structure(3), origin=(1, 0, 0), whole=(3, 16, 8))
    sizes = [[face.start.size for face in pair] for pair in record.faces]
    assert sizes == [[0, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("times", [1, 3])
def test_memory_grows_with_objects_not_with_pixels(times):
    classes = np.kron(checkerboard(150, 200), np.ones((times, times))).astype(np.uint8)
    place = {"origin": (0, 0), "whole": classes.shape}
    structure, rule = plane_structure(2), Rules(gap=2, min_area=1)
    runs, record = label_block(classes, structure, **place, by_class=True, sizes=True)
    peak, objects = peak_bytes(lambda: merge_objects([record], rule, classes.shape))
    assert objects.count == 15_000
    assert peak + len(pickle.dumps(record)) <= 100 * objects.count + 40_000
    ids = np.pad(runs.expand(objects.table(0, np.uint32)), rule.ring)
    _, refined = refine_block(ids, rule, **place)
    peak, _ = peak_bytes(lambda: merge_refined([refined], objects, rule, classes.shape))
    assert peak + len(pickle.dumps(refined)) <= 100 * objects.count + 40_000


def peak_bytes(function):
    tracemalloc.start()
    result = function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, result
