"""No touching pair is joined in a target, and no more is taken than that needs."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.training.targets import (
    IGNORE,
    classes_from_instances,
    instances_from_classes,
    lost_ids,
    separate,
)


def checkerboard(ids: int, side: int = 9) -> np.ndarray:
    y, x = np.indices((side, side))
    return (x + y) % ids + 1


CROWDS = {
    "two ids on a checkerboard": checkerboard(2),
    "three ids on a checkerboard": checkerboard(3),
    "every pixel another id": np.arange(1, 50).reshape(7, 7),
    "pixels and background": checkerboard(2) * (np.indices((9, 9))[0] % 2),
    "four ids at a corner": np.kron([[1, 2], [3, 4]], np.ones((4, 4), int)),
    "eight wedges at a point": np.kron([[1, 2, 3], [8, 9, 4], [7, 6, 5]], np.ones((2, 2), int)),
    "strips of one pixel": np.tile([1, 2, 3, 4, 5], (6, 1)),
    "strips of two pixels": np.tile(np.repeat([1, 2, 3, 4], 2), (6, 1)),
    "one id inside another": np.pad([[7]], 3, constant_values=2),
    "corners only": np.eye(5, dtype=int) * np.arange(1, 6),
    "nothing": np.zeros((3, 3), int),
    "one object only": np.ones((3, 3), int),
    "no rows": np.zeros((0, 4), int),
}
LABEL_IMAGES = st.one_of(
    st.sampled_from(list(CROWDS.values())),
    # Few ids: large ragged objects, many touches. Many ids: single pixels.
    st.integers(1, 30).flatmap(
        lambda most: hnp.arrays(
            np.int64,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
            elements=st.integers(0, most),
        )
    ),
    # Blocks of pixels: objects that have an inside.
    hnp.arrays(np.int64, (5, 5), elements=st.integers(0, 6)).map(
        lambda ids: np.kron(ids, np.ones((3, 4), int))
    ),
)


def neighbours(ids: np.ndarray, y: int, x: int) -> list[tuple[int, int]]:
    around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [(v, u) for v, u in around if 0 <= v < ids.shape[0] and 0 <= u < ids.shape[1]]


def rivals(ids: np.ndarray, y: int, x: int) -> list[tuple[int, int]]:
    """Return the places beside a pixel of an object that belong to another object."""
    return [p for p in neighbours(ids, y, x) if ids[p] and ids[y, x] and ids[p] != ids[y, x]]


def touching_slowly(ids: np.ndarray) -> np.ndarray:
    mask = np.zeros(ids.shape, bool)
    for place in np.ndindex(ids.shape):
        mask[place] = bool(rivals(ids, *place))
    return mask


@pytest.mark.parametrize("gap", [2, 4])
@given(ids=LABEL_IMAGES)
def test_no_touching_pair_is_joined(ids: np.ndarray, gap: int) -> None:
    target = separate(ids, gap)
    components, count = ndimage.label(target)
    for component in range(1, count + 1):
        assert len(np.unique(target[components == component])) == 1
    assert not touching_slowly(target).any()


@given(ids=LABEL_IMAGES)
def test_pixels_that_touch_nobody_stay_and_none_changes_its_id(ids: np.ndarray) -> None:
    before = ids.copy()
    target = separate(ids)
    touching = touching_slowly(ids)
    np.testing.assert_array_equal(target[~touching], ids[~touching])
    assert ((target == ids) | (target == 0)).all()
    np.testing.assert_array_equal(ids, before)


@given(ids=LABEL_IMAGES)
@example(CROWDS["two ids on a checkerboard"])
def test_both_sides_give_a_pixel_unless_one_would_vanish(ids: np.ndarray) -> None:
    """The plain rule decides for every object that survives it; only the others keep more."""
    plain = np.where(touching_slowly(ids), 0, ids)
    target = separate(ids)
    strong = np.isin(ids, np.unique(plain[plain > 0]))
    np.testing.assert_array_equal(target[strong], plain[strong])


@pytest.mark.parametrize("gap", [2, 4])
@given(ids=LABEL_IMAGES)
def test_an_object_vanishes_only_where_it_has_no_room(ids: np.ndarray, gap: int) -> None:
    target = separate(ids, gap)
    expected = sorted(set(ids[ids > 0]) - set(target[target > 0]))
    assert list(lost_ids(ids, target)) == expected
    kept = {p for p in np.ndindex(ids.shape) if target[p]}
    for lost in expected:
        for place in zip(*np.nonzero(ids == lost), strict=True):
            assert kept & set(rivals(ids, *place)), f"{lost} could have kept {place}"


@pytest.mark.parametrize("width", [1, 2])
def test_a_thin_object_between_others_keeps_all_of_its_width(width: int) -> None:
    ids = np.tile(np.repeat([1, 2, 3], [4, width, 4]), (6, 1))
    expected = np.tile(np.repeat([1, 0, 2, 0, 3], [3, 1, width, 1, 3]), (6, 1))
    np.testing.assert_array_equal(separate(ids), expected)


def test_thin_neighbours_share_what_there_is() -> None:
    """Strips of two pixels: none vanishes, and the gap is one pixel at least."""
    target = separate(CROWDS["strips of two pixels"])
    assert not lost_ids(CROWDS["strips of two pixels"], target).size
    assert set(np.unique(target)) == {0, 1, 2, 3, 4}


def test_a_crowd_of_single_pixels_keeps_every_second_one() -> None:
    ids = CROWDS["every pixel another id"]
    target = separate(ids)
    assert np.count_nonzero(target) == 25
    assert len(lost_ids(ids, target)) == 24


def test_the_smaller_objects_are_kept_first() -> None:
    ids = np.array([[2, 1, 1, 3]])
    np.testing.assert_array_equal(separate(ids), [[2, 0, 0, 3]])


def test_each_object_takes_one_pixel_first_and_the_one_that_hinders_least() -> None:
    """Object 1 would be in the way of all of object 2 with its lower pixel."""
    ids = np.array([[9, 9, 9, 1, 9], [9, 9, 9, 1, 2], [9, 9, 9, 2, 0]])
    expected = np.array([[9, 9, 0, 1, 0], [9, 9, 0, 0, 2], [9, 9, 0, 2, 0]])
    np.testing.assert_array_equal(separate(ids), expected)


def test_an_object_that_only_comes_close_gives_nothing() -> None:
    ids = np.zeros((9, 12), int)
    ids[:4, :6], ids[:4, 6:], ids[5:] = 1, 2, 3
    expected = ids.copy()
    expected[:4, 3:9] = 0
    np.testing.assert_array_equal(separate(ids, gap=6), expected)


@given(ids=hnp.arrays(np.int64, (4, 4), elements=st.integers(0, 4)), gap=st.sampled_from([2, 4, 6]))
def test_half_of_the_gap_is_taken_off_each_side(ids: np.ndarray, gap: int) -> None:
    """Large objects: what goes is within so many steps of the object's own touches."""
    ids = np.kron(ids, np.ones((12, 12), int))
    expected = ids.copy()
    for cell in np.unique(ids[ids > 0]):
        edge = touching_slowly(ids) & (ids == cell)
        if edge.any():
            steps = ndimage.distance_transform_cdt(~edge, "taxicab")
            expected[(ids == cell) & (steps < gap // 2)] = 0
    np.testing.assert_array_equal(separate(ids, gap), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64])
def test_types_and_large_ids_are_kept(dtype: type) -> None:
    top = np.iinfo(dtype).max
    ids = np.array([[top, top, top - 1, top - 1]], dtype)
    target = separate(ids)
    assert target.dtype == dtype
    np.testing.assert_array_equal(target, np.array([[top, 0, 0, top - 1]], dtype))


def test_a_gap_of_0_takes_nothing_and_gives_a_copy() -> None:
    ids = checkerboard(2)
    target = separate(ids, 0)
    np.testing.assert_array_equal(target, ids)
    assert not np.shares_memory(target, ids)


@pytest.mark.parametrize("gap", [-2, 1, 3])
def test_gaps_that_cannot_be_shared_are_refused(gap: int) -> None:
    with pytest.raises(InputError, match=f"gap {gap}: an even number"):
        separate(np.zeros((2, 2), int), gap)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((1, 2, 2), int), r"shape \(1, 2, 2\)"),
        (np.zeros((2, 2)), "type float64"),
        (np.zeros((2, 2), bool), "type bool"),
        (np.array([[0, -3]]), "id -3"),
    ],
)
def test_what_is_no_map_of_ids_is_refused(ids: np.ndarray, message: str) -> None:
    for function in (separate, classes_from_instances, instances_from_classes):
        with pytest.raises(InputError, match=message):
            function(ids)


@given(ids=LABEL_IMAGES)
def test_components_of_a_target_are_its_objects(ids: np.ndarray) -> None:
    """Through the class map and back: each component is a part of one object."""
    target = separate(ids)
    back = instances_from_classes(classes_from_instances(target))
    expected, count = ndimage.label(target)
    np.testing.assert_array_equal(back, expected)
    assert all(len(np.unique(target[back == i])) == 1 for i in range(1, count + 1))


@given(classes=hnp.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, IGNORE])))
def test_classes_go_to_instances_and_back(classes: np.ndarray) -> None:
    ids = instances_from_classes(classes)
    table = np.zeros(ids.max() + 1, np.uint8)
    table[ids] = classes
    table[0] = 0
    ignored = classes == IGNORE
    assert not ids[ignored].any()
    again = classes_from_instances(ids, ignored, class_of=table)
    np.testing.assert_array_equal(again, classes)
    assert not touching_slowly(np.where(table[ids] == 1, ids, 0)).any()


def test_nothing_is_ignored_unasked() -> None:
    ids = np.array([[0, IGNORE, 1]])
    np.testing.assert_array_equal(classes_from_instances(ids), [[0, 1, 1]])
    asked = classes_from_instances(ids, ids == 0)
    np.testing.assert_array_equal(asked, [[IGNORE, 1, 1]])
    assert asked.dtype == np.uint8


def test_an_id_without_a_class_is_refused() -> None:
    with pytest.raises(InputError, match="id 2: classes are known for ids up to 1"):
        classes_from_instances(np.array([[0, 2]]), class_of=np.array([0, 1], np.uint8))


def test_real_nuclei_are_kept_apart_and_none_is_lost(shared_data) -> None:
    """The images with the most nuclei of each domain, where most of them touch."""
    with (shared_data / "dsb2018/split.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: -int(row["n_nuclei"]))
    for domain in ("fluorescence", "stained_rgb", "brightfield_gray"):
        for row in [r for r in rows if r["domain"] == domain][:3]:
            ids = np.asarray(Image.open(shared_data / f"dsb2018/label/{row['name']}.png"))
            target = separate(ids)
            components, count = ndimage.label(target)
            of_component = ndimage.maximum(target, components, range(1, count + 1))
            table = np.concatenate([[0], of_component]).astype(ids.dtype)
            np.testing.assert_array_equal(table[components], target)
            assert not lost_ids(ids, target).size, row["name"]
