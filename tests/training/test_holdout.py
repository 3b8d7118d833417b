"""Whole images and whole groups are held back, by chance that can be repeated."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.training.holdout import Row, choose_groups, read_split

GROUPS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40)


@given(GROUPS, st.floats(0, 0.99), st.integers(0, 9), st.randoms())
def test_the_choice_depends_on_groups_share_and_seed_alone(groups, share, seed, random):
    shuffled = list(groups)
    random.shuffle(shuffled)
    assert choose_groups(groups, share, seed) == choose_groups(shuffled, share, seed)


@given(GROUPS, st.floats(0.01, 0.99), st.integers(0, 9))
def test_something_is_held_back_and_something_is_left(groups, share, seed):
    held = choose_groups(groups, share, seed)
    assert held <= set(groups)
    assert held != set(groups)
    assert held or len(set(groups)) == 1


@given(GROUPS, st.floats(0.01, 0.99), st.integers(0, 9))
def test_no_more_than_half_a_group_too_many(groups, share, seed):
    sizes = Counter(groups)
    held = choose_groups(groups, share, seed)
    images = sum(sizes[group] for group in held)
    assert images - max(sizes.values()) / 2 <= share * len(groups) or len(held) == 1
    if len(held) == 1 and images / 2 > share * len(groups):
        assert images == min(sizes.values())


@pytest.mark.parametrize(("number", "held"), [(2, 1), (5, 1), (10, 2), (100, 20)])
def test_a_fifth_of_images_of_their_own(number, held):
    chosen = choose_groups([str(i) for i in range(number)], 0.2, seed=0)
    assert len(chosen) == held


def test_seeds_choose_differently_and_every_image_can_be_chosen():
    names = [str(i) for i in range(10)]
    chosen = [choose_groups(names, 0.2, seed) for seed in range(60)]
    assert frozenset.union(*chosen) == set(names)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_that_cannot_be_meant_is_refused(share):
    with pytest.raises(InputError, match="cannot be held back"):
        choose_groups(["a", "b"], share, 0)


def table(tmp_path, text):
    path = tmp_path / "split.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_have_subset_and_group(tmp_path):
    rows = read_split(
        table(tmp_path, "group,name,subset\ng1,a.png,train\n,b.tif,val\ng2,c,test\ng2,d,\n")
    )
    assert rows == {"a": Row(subset="train", group="g1"), "b": Row(subset="val", group="b")}


def test_a_table_of_groups_has_no_subsets(tmp_path):
    rows = read_split(table(tmp_path, "\ufeffname,group\na,g\nb,g\n"))
    assert rows == {name: Row(subset="", group="g") for name in "ab"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has the columns none"),
        ("name,domain\na,b\n", "has the columns domain, name: 'name' is needed"),
        ("file,subset\na,train\n", "'name' is needed"),
        ("name,subset\na,train\na.png,val\n", "names 'a' twice"),
        ("name,subset\na,val\n", "no row whose subset is 'train'"),
        ("name,subset\n", "no row whose subset is 'train'"),
        ("name,subset,group\na,train,g\nb,val,g\n", "group 'g' in train and in val"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, text, says):
    with pytest.raises(InputError, match=says) as caught:
        read_split(table(tmp_path, text))
    assert "split.csv" in str(caught.value)


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "split.csv"
    for _ in range(2):
        with pytest.raises(InputError, match=r"split.csv cannot be read as CSV: ."):
            read_split(path)
        path.write_bytes(b"name,subset\n\xff\xfe,train\n")


def test_the_real_split_keeps_groups_together(shared_data):
    rows = read_split(shared_data / "dsb2018/split.csv")
    assert Counter(row.subset for row in rows.values()) == {"train": 424, "val": 95}
