"""Training data: what is opened, how it is split, and every way it can be wrong."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from bigunet.errors import InputError, NotFoundError
from bigunet.training.dataset import open_dataset
from tests.images.labelled_images import write_image, write_labels
from tests.training.made_data import (
    BINARY,
    GREY,
    MANY,
    names,
    refusal,
    write,
    write_pairs,
)

RGB = np.stack([GREY, GREY + 1, GREY + 2], axis=2)


@pytest.fixture
def five(tmp_path):
    """Five binary masks."""
    return write_pairs(tmp_path / "data", dict.fromkeys("abcde", BINARY))


def test_a_folder_of_images_and_masks(five):
    data = open_dataset(five)
    assert (len(data.train), len(data.val)) == (4, 1)
    assert sorted(names(data.train) + names(data.val)) == list("abcde")
    assert (data.kind, data.in_channels, data.dtype) == ("classes", 1, np.uint8)
    assert data.class_names == ("background", "foreground")
    assert not data.notes and not data.is_rgb and data.pixel_size is None


def test_an_example_is_small_and_reads_when_asked(five):
    example = pickle.loads(pickle.dumps(open_dataset(five).train[0]))
    assert example.shape == (1, 6, 8) and example.has_objects
    np.testing.assert_array_equal(example.image(), GREY[None])
    ids, table, ignored = example.annotation()
    np.testing.assert_array_equal(table[ids] * 255, BINARY)
    np.testing.assert_array_equal(example.instances(), ids)
    np.testing.assert_array_equal(example.ignore(), ignored)
    assert ids.dtype == np.int32 and ids.max() == 2 and not ignored.any()


def test_instances_of_16_bits(tmp_path):
    mask = MANY.astype(np.uint16) * 1000
    data = open_dataset(write_pairs(tmp_path, {"a": mask, "b": mask}))
    assert data.kind == "instances"
    np.testing.assert_array_equal(data.train[0].instances(), MANY)


def test_images_of_16_bits_and_of_rgb(tmp_path):
    deep = GREY.astype(np.uint16) * 1000
    data = open_dataset(write_pairs(tmp_path / "deep", {"a": BINARY}, {"a": deep}))
    assert data.dtype == np.uint16
    np.testing.assert_array_equal(data.train[0].image(), deep[None])
    data = open_dataset(write_pairs(tmp_path / "rgb", {"a": BINARY}, {"a": RGB}))
    assert data.is_rgb and data.in_channels == 3


def test_8_and_16_bits_may_be_mixed_unless_they_are_colour(tmp_path):
    images = {"a": GREY, "b": GREY.astype(np.uint16)}
    data = open_dataset(write_pairs(tmp_path / "grey", dict.fromkeys("ab", BINARY), images))
    assert data.dtype == np.uint16
    root = tmp_path / "colour"
    for name, image in (("a", RGB), ("b", RGB.astype(np.uint16))):
        write(root / "images" / f"{name}.tif", image, photometric="rgb")
        write(root / "masks" / f"{name}.png", BINARY)
    assert "a.tif is uint8 and" in refusal(root)


def test_the_split_can_be_repeated_and_is_another_for_another_seed(five):
    splits = {tuple(names(open_dataset(five, seed=seed).val)) for seed in range(9)}
    assert len(splits) > 1
    assert names(open_dataset(five, seed=3).val) == names(open_dataset(five, seed=3).val)


def test_whole_images_are_held_back_never_planes_of_one(tmp_path):
    for name in "abc":
        path, stack = tmp_path / f"{name}.zarr", np.stack([MANY] * 4)
        write_image(path, [stack], "zyx", [(1.0, 1.0, 1.0)])
        write_labels(path, "cells", [stack], "zyx", [(1.0, 1.0, 1.0)])
    data = open_dataset(tmp_path, masks="instances")
    assert (len(data.train), len(data.val)) == (8, 4)
    assert len(set(names(data.val))) == 1 and data.pixel_size == 1.0
    np.testing.assert_array_equal(data.val[2].instances(), MANY)
    np.testing.assert_array_equal(data.val[2].image(), MANY[None])


def test_one_image_is_allowed_and_it_is_said_what_that_means(tmp_path):
    data = open_dataset(write_pairs(tmp_path, {"a": BINARY}))
    assert names(data.train) == ["a"] and not data.val
    assert data.notes == (
        "nothing is held back, because there is one image only: there is no validation score",
    )


def test_nothing_is_held_back_where_nobody_wants_it(five):
    data = open_dataset(five, val_share=0)
    assert len(data.train) == 5 and "because all images train" in data.notes[0]


def test_another_folder_is_held_back(five, tmp_path):
    other = write_pairs(tmp_path / "other", {"a": BINARY, "z": BINARY})
    data = open_dataset(five, val=other)
    assert names(data.train) == list("abcde") and names(data.val) == ["a", "z"]
    assert "to be trained on and held back" in refusal(five, val=five)


def test_masks_held_back_are_read_like_those_to_train_on(tmp_path):
    root = write_pairs(tmp_path / "a", {"a": BINARY})
    other = write_pairs(tmp_path / "b", {"b": MANY})
    assert "values" in refusal(root, val=other, masks="classes", classes=("bg", "cell"))


def csv(tmp_path, text):
    path = tmp_path / "split.csv"
    path.write_text(text)
    return path


def test_a_table_says_what_is_held_back_and_what_is_used(five, tmp_path):
    table = csv(tmp_path, "name,subset\na,train\nb.png,val\nc,train\nd,other\nx,val\n")
    data = open_dataset(five, val=table)
    assert names(data.train) == ["a", "c"] and names(data.val) == ["b"]
    assert data.notes == (
        "images that are not in the table and not used: 2",
        "images in the table that are not there: 1 ('x')",
    )


def test_a_table_of_groups_holds_whole_groups_back(five, tmp_path):
    table = csv(tmp_path, "name,group\na,g\nb,g\nc,g\nd,h\ne,h\n")
    for seed in range(5):
        data = open_dataset(five, val=table, val_share=0.25, seed=seed)
        assert names(data.val) == ["d", "e"]
        assert {e.group for e in data.train} == {"g"}


def test_a_table_of_train_only_holds_groups_of_it_back(five, tmp_path):
    table = csv(tmp_path, "name,subset,group\n" + "".join(f"{n},train,{n}\n" for n in "abcd"))
    data = open_dataset(five, val=table)
    assert (len(data.train), len(data.val)) == (3, 1)


def test_one_group_cannot_be_held_back(five, tmp_path):
    table = csv(tmp_path, "name,group\n" + "".join(f"{n},g\n" for n in "abcde"))
    data = open_dataset(five, val=table)
    assert len(data.train) == 5 and "all 5 images are of one group" in data.notes[0]


def test_a_table_of_other_images_is_refused(five, tmp_path):
    assert "names no image that is there: it has 'x'" in refusal(
        five, val=csv(tmp_path, "name,subset\nx,train\n")
    )


def test_a_file_that_no_table_names_is_not_read(five, tmp_path):
    (five / "images/e.png").write_bytes(b"broken")
    table = csv(tmp_path, "name,subset\na,train\nb,val\n")
    assert names(open_dataset(five, val=table).train) == ["a"]


def test_frames_of_the_challenge_are_instances_and_films_stay_together(tmp_path):
    for film in ("01", "02"):
        for i in range(3):
            write(tmp_path / film / f"t{i:03}.tif", GREY)
            write(tmp_path / f"{film}_GT/SEG/man_seg{i:03}.tif", BINARY.astype(np.uint16) // 255)
    data = open_dataset(tmp_path)
    assert data.kind == "instances"
    assert (len({e.group for e in data.train}), len({e.group for e in data.val})) == (1, 1)


# Bad input, each in one clear line.


def test_sizes_that_differ_are_refused_with_both(five):
    write(five / "masks/c.png", BINARY[:5])
    line = refusal(five, InputError)
    assert "images/c.png has 6 × 8 pixels and its mask" in line
    assert "masks/c.png has 5 × 8: the sizes have to be the same" in line


def test_no_pairs(tmp_path):
    root = write_pairs(tmp_path, {"a": BINARY}, suffix="_x")
    assert "try --mask-suffix _x" in refusal(root, InputError)
    assert len(open_dataset(root, mask_suffix="_x").train) == 1


def test_masks_that_are_all_empty_are_refused(tmp_path):
    root = write_pairs(tmp_path, dict.fromkeys("ab", BINARY * 0))
    assert "the masks are empty" in refusal(root, InputError)


def test_single_masks_may_be_empty(five):
    write(five / "masks/c.png", BINARY * 0)
    data = open_dataset(five, val_share=0)
    assert [e.has_objects for e in data.train] == [True, True, False, True, True]
    assert data.train[2].annotation().classes.tolist() == [0]


def test_empty_masks_on_one_side_of_the_split(tmp_path):
    full = write_pairs(tmp_path / "full", {"a": BINARY})
    empty = write_pairs(tmp_path / "empty", {"b": BINARY * 0})
    assert "objects are in held-back images only" in refusal(empty, val=full)
    assert "no image that is held back has an object" in open_dataset(full, val=empty).notes


def test_more_classes_than_declared(tmp_path):
    root = write_pairs(tmp_path, {"a": MANY % 4})
    line = refusal(root, InputError, classes=("bg", "x", "y"))
    assert "4 values (0, 1, 2, 3) and 3 class names are given (bg, x, y): more classes" in line


def test_what_could_be_classes_or_instances(tmp_path):
    root = write_pairs(tmp_path, {"a": BINARY // 255})
    assert "--masks classes or --masks instances" in refusal(root, InputError)
    assert open_dataset(root, masks="classes").train[0].instances().max() == 2
    assert open_dataset(root, masks="instances").train[0].instances().max() == 1


def test_a_value_that_is_not_known(five):
    mask = BINARY.copy()
    mask[0] = 7
    write(five / "masks/a.png", mask)
    assert "say which" in refusal(five)
    example = open_dataset(five, ignore=7, val_share=0).train[0]
    np.testing.assert_array_equal(example.ignore(), mask == 7)
    np.testing.assert_array_equal(example.instances() > 0, BINARY > 0)


@pytest.mark.parametrize("broken", ["images", "masks"])
def test_a_file_that_cannot_be_read_is_named(five, broken):
    (five / broken / "d.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert f"{broken}/d.png cannot be read: " in refusal(five, InputError)


def test_a_mask_that_changed_since_is_named(five):
    example = open_dataset(five).train[0]
    write(example.mask_path, BINARY // 2)
    with pytest.raises(InputError, match=rf"{example.name}\.png: values that are no class"):
        example.instances()


def test_alpha_that_varies_is_refused_and_constant_alpha_is_dropped(tmp_path):
    rgba = np.dstack([RGB, np.full_like(GREY, 255)])
    data = open_dataset(write_pairs(tmp_path / "same", {"a": BINARY}, {"a": rgba}))
    assert data.in_channels == 3
    rgba[0, 0, 3] = 0
    root = write_pairs(tmp_path / "varies", {"a": BINARY}, {"a": rgba})
    assert "a.png has transparency that varies from 0 to 255" in refusal(root, InputError)


def test_numbers_of_channels_that_differ_are_refused_with_both(tmp_path):
    root = write_pairs(tmp_path, dict.fromkeys("ab", BINARY), {"b": RGB})
    line = refusal(root, InputError)
    assert "a.png has 1 and" in line and "b.png has 3; train on one kind" in line


def test_nothing_there(tmp_path):
    assert "there is nothing at" in refusal(tmp_path / "nowhere", NotFoundError)
    root = write_pairs(tmp_path, {"a": BINARY})
    assert "there is nothing at" in refusal(root, NotFoundError, val=tmp_path / "val")
    assert "cannot be read as CSV" in refusal(root, InputError, val=tmp_path / "val.csv")


def test_real_membranes(shared_data):
    data = open_dataset(shared_data / "isbi2012_em/train")
    assert (len(data.train), len(data.val), data.kind) == (19, 5, "classes")


def test_real_nuclei_of_one_kind(shared_data, tmp_path):
    lines = (shared_data / "dsb2018/split.csv").read_text().splitlines()
    rows = [line for line in lines[1:] if ",brightfield_gray," in line]
    data = open_dataset(shared_data / "dsb2018", val=csv(tmp_path, "\n".join([lines[0], *rows])))
    assert len(data.train) + len(data.val) == 13 and data.kind == "instances"
    held = {e.group for e in data.val}
    assert held and not held & {e.group for e in data.train}
    assert data.train[0].shape == (1, 1024, 1024)


def test_real_nuclei_of_two_kinds_are_refused(shared_data, tmp_path):
    lines = (shared_data / "dsb2018/split.csv").read_text().splitlines()[:4]
    line = refusal(shared_data / "dsb2018", val=csv(tmp_path, "\n".join(lines)))
    assert "differ in their number of channels" in line
