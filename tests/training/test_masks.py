"""Objects of masks, against the dumb version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.training.mask_rules import MaskRule
from bigunet.training.masks import annotate, class_components, renumber

SMALL = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)


def maps(most: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.uint8, SMALL, elements=st.integers(0, most))


def flood(classes: np.ndarray) -> np.ndarray:
    """Number the components by walking from pixel to pixel, class by class."""
    ids, number = np.zeros(classes.shape, int), 0
    for k in sorted(set(classes.ravel()) - {0}):
        for start in np.argwhere(classes == k).tolist():
            if ids[*start]:
                continue
            number, todo = number + 1, [start]
            while todo:
                y, x = todo.pop()
                inside = 0 <= y < classes.shape[0] and 0 <= x < classes.shape[1]
                if inside and classes[y, x] == k and not ids[y, x]:
                    ids[y, x] = number
                    todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return ids


@given(maps(3))
def test_components_are_those_of_a_walk(classes):
    ids, table = class_components(classes)
    np.testing.assert_array_equal(ids, flood(classes))
    np.testing.assert_array_equal(table[ids], classes)
    assert ids.dtype == np.int32 and table.dtype == np.uint8


def test_diagonal_neighbours_are_two_objects():
    ids, _ = class_components(np.eye(3, dtype=int))
    assert ids.max() == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
@given(data=st.data())
def test_renumbering_keeps_every_object_and_their_order(dtype, data):
    top = int(min(np.iinfo(dtype).max, data.draw(st.sampled_from([9, 2**26, 2**60]))))
    ids = data.draw(hnp.arrays(dtype, SMALL, elements=st.integers(0, top)))
    found, number = renumber(ids)
    used = sorted(set(ids.ravel().tolist()) - {0})
    assert number == len(used) and found.dtype == np.int32
    expected = np.vectorize({0: 0, **{v: k for k, v in enumerate(used, 1)}}.get)(ids)
    np.testing.assert_array_equal(found, expected)


@given(maps(5), st.sampled_from([None, 3, 5]))
def test_instances_keep_pairs_apart(mask, ignore):
    ids, table, ignored = annotate(mask, MaskRule(kind="instances", ignore=ignore))
    np.testing.assert_array_equal(ignored, mask == ignore if ignore else np.zeros_like(ignored))
    np.testing.assert_array_equal(ids == 0, (mask == 0) | ignored)
    np.testing.assert_array_equal(table[ids], ids > 0)
    kept = ~ignored
    np.testing.assert_array_equal(
        ids[kept][:, None] == ids[kept], mask[kept][:, None] == mask[kept]
    )


def test_class_maps_have_the_classes_of_their_rule():
    mask = np.array([[0, 80, 80, 160], [0, 0, 7, 160]], np.uint8)
    ids, table, ignored = annotate(mask, MaskRule(kind="classes", values=(0, 80, 160), ignore=7))
    np.testing.assert_array_equal(table[ids], [[0, 1, 1, 2], [0, 0, 0, 2]])
    np.testing.assert_array_equal(ignored, mask == 7)
    assert table.tolist() == [0, 1, 2]


def test_the_background_of_a_class_map_may_have_any_value():
    ids, table, ignored = annotate(
        np.array([[0, 1, 2]]), MaskRule(kind="classes", values=(1, 2), ignore=0)
    )
    np.testing.assert_array_equal(table[ids], [[0, 0, 1]])
    np.testing.assert_array_equal(ignored, [[True, False, False]])


def test_a_value_that_is_no_class_is_refused():
    with pytest.raises(InputError, match=r"no class of \[0, 255\]: 3, 9"):
        annotate(np.array([[0, 255, 9, 3]]), MaskRule(kind="classes", values=(0, 255)))


def test_an_empty_mask_is_an_annotation_too():
    for kind in ("classes", "instances"):
        ids, table, ignored = annotate(np.zeros((3, 4), int), MaskRule(kind=kind, values=(0, 1)))
        assert not ids.any() and table.tolist() == [0] and not ignored.any()


def test_real_instance_maps_keep_their_objects(shared_data):
    from bigunet.training.files import read_mask

    mask = read_mask(shared_data / "dsb2018/label/003cee89357d.png")
    ids, table, _ = annotate(mask, MaskRule(kind="instances"))
    np.testing.assert_array_equal(ids, mask)
    assert len(table) == 37


def test_real_binary_maps_have_the_objects_scipy_finds(shared_data):
    from bigunet.training.files import read_mask

    mask = read_mask(shared_data / "isbi2012_em/train/label/00.png")
    ids, table, _ = annotate(mask, MaskRule(kind="classes", values=(0, 255)))
    np.testing.assert_array_equal(ids, ndimage.label(mask)[0])
    assert set(table[1:].tolist()) == {1}
