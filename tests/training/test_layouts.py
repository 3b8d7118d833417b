"""Images find their masks in every layout; what finds none is said."""

from __future__ import annotations

import numpy as np
import pytest

from bigunet.errors import InputError, NotFoundError
from bigunet.training.layouts import find_pairs
from tests.images.labelled_images import write_image, write_labels
from tests.training.made_data import GREY, MANY


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root, **options):
    return [(p.name, p.pixels.name, p.mask.name) for p in find_pairs(root, **options).pairs]


def test_pairs_by_name_whatever_the_format(tmp_path):
    touch(
        *(tmp_path / "images" / n for n in ("b.png", "a.TIF", "c.ome.tif", ".hidden.png", "x.txt"))
    )
    touch(*(tmp_path / "masks" / n for n in ("a.png", "b.tiff", "c.png")))
    assert found(tmp_path) == [
        ("a", "a.TIF", "a.png"), ("b", "b.png", "b.tiff"), ("c", "c.ome.tif", "c.png"),
    ]  # fmt: skip


@pytest.mark.parametrize("folders", [("image", "label"), ("images", "labels"), ("image", "mask")])
def test_folders_may_be_called_otherwise(tmp_path, folders):
    touch(*(tmp_path / folder / "a.png" for folder in folders))
    assert len(found(tmp_path)) == 1


@pytest.mark.parametrize("suffix", ["_mask", "_mask.png"])
def test_names_with_a_suffix(tmp_path, suffix):
    touch(tmp_path / "images/a.png", tmp_path / "masks/a_mask.png")
    assert found(tmp_path, mask_suffix=suffix) == [("a", "a.png", "a_mask.png")]


def test_no_pairs_says_what_would_be_needed_and_what_would_help(tmp_path):
    touch(*(tmp_path / "images" / n for n in ("a.png", "b.png")))
    touch(*(tmp_path / "masks" / n for n in ("a_seg.png", "b_seg.png")))
    with pytest.raises(InputError, match=r"'a' would need 'a', .* 'a_seg'; try --mask-suffix _seg"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match=r"'a' would need 'a_m', .* 'a_seg'; try --mask-suffix"):
        find_pairs(tmp_path, mask_suffix="_m")


def test_no_pairs_without_a_way_out(tmp_path):
    touch(tmp_path / "images/a.png", tmp_path / "masks/b.png")
    with pytest.raises(InputError, match=r"there is 'b'$"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("empty", ["images", "masks"])
def test_a_folder_without_images_is_named(tmp_path, empty):
    touch(tmp_path / "images/a.png", tmp_path / "masks/a.png")
    (tmp_path / empty / "a.png").rename(tmp_path / empty / "a.jpg")
    with pytest.raises(InputError, match=rf"{empty} holds no image: \.png, \.tif, \.tiff are read"):
        find_pairs(tmp_path)


def test_what_is_left_out_is_said(tmp_path):
    touch(*(tmp_path / "images" / f"{n}.png" for n in "abcdef"))
    touch(*(tmp_path / "masks" / f"{n}.png" for n in "fx"))
    assert find_pairs(tmp_path).notes == (
        "5 not used, because the image has no mask: a, b, c and more",
        "1 not used, because the mask has no image: x",
    )


def test_two_files_of_one_name_are_refused(tmp_path):
    touch(*(tmp_path / p for p in ("images/a.png", "images/a.tif", "masks/a.png")))
    with pytest.raises(InputError, match=r"a.png and a.tif have one name"):
        find_pairs(tmp_path)


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(NotFoundError, match=r"there is nothing at .*nowhere"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no folder 'images': training data is"):
        find_pairs(tmp_path)
    touch(tmp_path / "images/a.png")
    with pytest.raises(InputError, match="has no folder 'masks'"):
        find_pairs(tmp_path)
    for odd in (tmp_path / "images/a.png", [tmp_path, tmp_path], []):
        with pytest.raises(InputError, match="is no folder of images and masks"):
            find_pairs(odd)


def challenge(root):
    frames = [root / f"{s}/t{i:03}.tif" for s in ("01", "02") for i in range(4)]
    gold = [root / f"{s}_GT/SEG/man_seg{i:03}.tif" for s, i in (("01", 0), ("01", 2), ("02", 1))]
    silver = [root / f"01_ST/SEG/man_seg{i:03}.tif" for i in (0, 3)]
    touch(*frames, *gold, *silver, root / "01_GT/TRA/man_track000.tif")
    return root


def test_frames_of_the_cell_tracking_challenge(tmp_path):
    layout = find_pairs(challenge(tmp_path))
    assert layout.has_instances
    assert [(p.name, p.group, p.mask.parts[-3], p.mask.name) for p in layout.pairs] == [
        ("01_t000", "01", "01_GT", "man_seg000.tif"),
        ("01_t002", "01", "01_GT", "man_seg002.tif"),
        ("01_t003", "01", "01_ST", "man_seg003.tif"),
        ("02_t001", "02", "02_GT", "man_seg001.tif"),
    ]
    assert layout.notes == (
        "4 not used, because the frame has no segmentation truth: 01_t001, 02_t000, 02_t002 and more",
        "1 of 4 frames have silver truth only",
    )


def test_truth_of_slices_is_not_read(tmp_path):
    touch(tmp_path / "01/t000.tif", tmp_path / "01_GT/SEG/man_seg_000_012.tif")
    with pytest.raises(InputError, match="truth of single slices"):
        find_pairs(tmp_path)


def labelled(path, image=GREY, mask=MANY, axes="yx", mask_axes="yx", name="cells", **options):
    write_image(path, [image], axes, [(1.0,) * image.ndim], **options)
    write_labels(path, name, [mask], mask_axes, [(1.0,) * mask.ndim], **options)
    return path


def test_labels_of_an_image_are_its_annotation(tmp_path):
    layout = find_pairs(labelled(tmp_path / "a.zarr"))
    (pair,) = layout.pairs
    np.testing.assert_array_equal(pair.pixels.read(slice(None), slice(None))[0], GREY)
    np.testing.assert_array_equal(pair.mask.read(slice(None), slice(None))[0], MANY)
    assert pair.name == pair.group == "a" and layout.pixel_size == 1.0


def test_several_images_alone_or_in_a_folder(tmp_path):
    paths = [labelled(tmp_path / f"{name}.zarr") for name in "ba"]
    assert [p.name for p in find_pairs(paths).pairs] == ["b", "a"]
    assert [p.name for p in find_pairs(tmp_path).pairs] == ["a", "b"]


def test_images_of_one_name_in_different_places_stay_apart(tmp_path):
    paths = [labelled(tmp_path / folder / "a.zarr") for folder in ("x", "y")]
    assert len({p.name for p in find_pairs(paths).pairs}) == 2


def test_every_plane_has_its_labels_and_channels_are_chosen(tmp_path):
    image = np.arange(2 * 3 * 48).reshape(3, 2, 6, 8).astype(np.uint16)
    path = labelled(tmp_path / "a.zarr", image, image[0] + 1, axes="czyx", mask_axes="zyx")
    pairs = find_pairs(path, channels=[2, 0]).pairs
    assert [(p.name, p.pixels.index, p.mask.index) for p in pairs] == [
        ("a", (0,), (0,)), ("a", (1,), (1,)),
    ]  # fmt: skip
    read = pairs[1].pixels.read(slice(None), slice(None))
    np.testing.assert_array_equal(read, image[[2, 0], 1])


def test_the_level_is_the_one_of_the_labels(tmp_path):
    levels = [np.zeros((12, 16), np.uint8), GREY]
    write_image(tmp_path / "a.zarr", levels, "yx", [(1.0, 1.0), (2.0, 2.0)])
    write_labels(tmp_path / "a.zarr", "cells", [MANY], "yx", [(2.0, 2.0)])
    layout = find_pairs(tmp_path / "a.zarr")
    assert layout.pixel_size == 2.0 and layout.pairs[0].pixels.shape == (1, 6, 8)


def test_pixels_of_different_sizes_are_said(tmp_path):
    labelled(tmp_path / "a.zarr")
    labelled(tmp_path / "b.zarr", unit="nanometer")
    layout = find_pairs(tmp_path)
    assert layout.pixel_size is None and "pixels of different sizes" in layout.notes[0]


def test_which_labels_must_be_clear(tmp_path):
    path = tmp_path / "a.zarr"
    write_image(path, [GREY], "yx", [(1.0, 1.0)])
    with pytest.raises(InputError, match="has no labels: they are the annotation"):
        find_pairs(path)
    for name in ("cells", "nuclei"):
        write_labels(path, name, [MANY], "yx", [(1.0, 1.0)])
    with pytest.raises(InputError, match=r"several labels \(cells, nuclei\): say which"):
        find_pairs(path)
    assert find_pairs(path, labels="nuclei").pairs[0].mask.key.endswith("nuclei/0")
    with pytest.raises(NotFoundError, match="no labels 'x': it has cells, nuclei"):
        find_pairs(path, labels="x")


def test_labels_of_another_size_are_refused(tmp_path):
    path = labelled(tmp_path / "a.zarr", mask=MANY[:5])
    with pytest.raises(InputError, match="has 5 × 8 pixels and the levels of its image 6 × 8"):
        find_pairs(path)
    path = labelled(tmp_path / "b.zarr", GREY[None], MANY[None][[0, 0]], "zyx", "zyx")
    with pytest.raises(InputError, match="image has 1 and its labels have 2 planes"):
        find_pairs(path)


def test_a_plane_too_large_to_train_on_is_refused(tmp_path):
    path = tmp_path / "a.zarr"
    write_image(path, [(2**15, 2**14)], "yx", [(1.0, 1.0)])
    write_labels(path, "cells", [(2**15, 2**14)], "yx", [(1.0, 1.0)])
    with pytest.raises(InputError, match="cut the annotated part out"):
        find_pairs(path)


@pytest.mark.parametrize("option", [{"labels": "cells"}, {"channels": [0]}])
def test_options_of_the_other_layout_are_refused(tmp_path, option):
    touch(tmp_path / "images/a.png", tmp_path / "masks/a.png")
    with pytest.raises(InputError, match="means nothing for folders of files"):
        find_pairs(tmp_path, **option)
    with pytest.raises(InputError, match="--mask-suffix is given and means nothing for OME-Zarr"):
        find_pairs(labelled(tmp_path / "a.zarr"), mask_suffix="_m")


def test_real_labels(shared_data):
    folder = shared_data / "ome_zarr"
    layout = find_pairs(folder / "v04_cardio_mip_labels.zarr")
    assert layout.pairs[0].pixels.shape == (3, 1080, 1280)
    assert layout.pixel_size == pytest.approx(0.65)
    assert find_pairs(folder / "v05_astronaut_rgb_labels.ome.zarr").pairs[0].mask.shape[0] == 1


def test_real_folders(shared_data):
    assert len(find_pairs(shared_data / "dsb2018").pairs) == 519
    assert len(find_pairs(shared_data / "isbi2012_em/train").pairs) == 24
