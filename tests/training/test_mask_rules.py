"""What numbers in masks mean is clear, or it is refused with both readings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bigunet.errors import InputError
from bigunet.training.mask_rules import FEW, choose_rule, count_values

DTYPES = [np.uint8, np.uint16, np.int8, np.int32, np.uint32, np.int64, np.uint64]


def counted(*values: int) -> dict[int, int]:
    return dict.fromkeys(values, 10)


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=2, max_dims=2))
    )
)
def test_values_are_counted_like_unique_counts_them(mask):
    values, counts = np.unique(mask, return_counts=True)
    assert count_values(mask) == dict(zip(values.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize("high", [255, 65535])
def test_0_and_the_largest_value_are_binary(high):
    rule, names = choose_rule(counted(0, high))
    assert (rule.kind, rule.values, rule.ignore) == ("classes", (0, high), None)
    assert names == ("background", "foreground")


def test_binary_without_any_background_keeps_0_as_background():
    assert choose_rule(counted(255))[0].values == (0, 255)


def test_many_values_are_instances():
    rule, names = choose_rule(counted(*range(FEW + 2)))
    assert rule.kind == "instances" and rule.background == 0
    assert names == ("background", "foreground")


@pytest.mark.parametrize(
    "values", [(0, 1), (0, 1, 2), (0, 50, 100), (1, 2), range(FEW + 1), (0, 254)]
)
def test_what_could_be_either_is_refused_with_both_readings(values):
    with pytest.raises(InputError) as caught:
        choose_rule(counted(*values))
    line = str(caught.value)
    assert f"as classes these are {len(values)} classes" in line
    objects = len(set(values) - {0})
    assert f"as instances up to {objects} object" in line
    assert "--masks classes" in line and "--masks instances" in line


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_what_could_be_either_is_read_as_told(kind):
    assert choose_rule(counted(0, 1, 2), masks=kind)[0].kind == kind


def test_three_names_say_that_values_are_classes():
    rule, names = choose_rule(counted(0, 1, 2), classes=("bg", "cell", "nucleus"))
    assert rule.kind == "classes" and names == ("bg", "cell", "nucleus")
    with pytest.raises(InputError, match="say which"):
        choose_rule(counted(0, 1), classes=("bg", "cell"))


def test_blurred_edges_are_not_instances():
    counts = {**counted(*range(256)), 0: 10_000, 255: 30_000}
    with pytest.raises(InputError, match=r"255 values and one of them has 92%.*blurred edges"):
        choose_rule(counts)
    assert choose_rule(counts, masks="instances")[0].kind == "instances"


@pytest.mark.parametrize("masks", ["auto", "classes", "instances"])
@pytest.mark.parametrize(("counts", "ignore"), [({0: 5}, None), ({}, None), ({0: 5, 9: 1}, 9)])
def test_empty_masks_are_refused(masks, counts, ignore):
    with pytest.raises(InputError, match="the masks are empty"):
        choose_rule(counts, masks=masks, ignore=ignore)


def test_more_classes_than_declared_are_refused():
    with pytest.raises(
        InputError, match=r"3 values \(0, 1, 2\) and 2 .*more classes than declared"
    ):
        choose_rule(counted(0, 1, 2), masks="classes", classes=("bg", "cell"))


def test_a_declared_class_may_be_rare():
    rule, _ = choose_rule(counted(0, 2), masks="classes", classes=("bg", "a", "b"))
    assert rule.values == (0, 1, 2)


def test_spread_values_are_classes_in_ascending_order():
    rule, _ = choose_rule(counted(0, 80, 160), masks="classes", classes=("bg", "a", "b"))
    assert rule.values == (0, 80, 160)
    with pytest.raises(InputError, match="which is which"):
        choose_rule(counted(0, 80), masks="classes", classes=("bg", "a", "b"))


def test_0_is_ignored_only_when_said():
    assert choose_rule(counted(0, 1, 2), masks="classes")[0].values == (0, 1, 2)
    rule, names = choose_rule(counted(0, 1, 2), masks="classes", ignore=0)
    assert rule.values == (1, 2) and rule.ignore == 0 and rule.background == 1
    assert names == ("background", "foreground")
    with pytest.raises(InputError, match="--ignore 0 have no background"):
        choose_rule(counted(*range(30)), ignore=0)


def test_an_ignored_value_is_no_class_and_no_object():
    assert choose_rule(counted(0, 128, 255), ignore=128)[0].values == (0, 255)
    assert choose_rule(counted(-1, 0, 255), ignore=-1)[0].values == (0, 255)


@pytest.mark.parametrize(
    ("counts", "options", "says"),
    [
        (counted(-1, 0, 255), {}, "the value -1.*--ignore -1"),
        (counted(0, 255), {"ignore": 0}, "one class only, the value 255"),
        (counted(*range(300)), {"masks": "classes"}, "300 values are too many classes"),
        (counted(*range(30)), {"classes": ("a", "b", "c")}, "3 class names for instances"),
        (counted(0, 255), {"masks": "objects"}, "masks 'objects': use"),
        (counted(0, 255), {"classes": ("a",)}, "two or more, all different"),
        (counted(0, 255), {"classes": ("a", "a")}, "two or more, all different"),
        (counted(0, 255), {"classes": ("a", "")}, "two or more, all different"),
    ],
)
def test_what_cannot_be_meant_is_refused(counts, options, says):
    with pytest.raises(InputError, match=says):
        choose_rule(counts, **options)


def test_an_image_has_objects_or_not():
    rule, _ = choose_rule(counted(0, 128, 255), ignore=128)
    assert rule.has_objects({0: 1, 255: 1})
    assert not rule.has_objects({0: 1, 128: 5})
