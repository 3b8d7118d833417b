"""Training tiles: exact where nothing varies, one map for pixels and ids where all does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.training.augment import IDENTITY, Augmentation, draw_map, draw_tile, vary_grey_values
from bigunet.training.deformation import draw_origin
from bigunet.training.files import read_mask
from bigunet.training.warping import warp_ids

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
GEOMETRY = replace(IDENTITY, elastic_sd=10.0, rotation="any", flip=True)


def scene(shape=(1, 30, 30), seed=0):
    rng = np.random.default_rng(seed)
    image = rng.random(shape, dtype=np.float32)
    return image, rng.integers(0, 9, shape[1:]), rng.random(shape[1:]) < 0.9


def around(array, pixels):
    """Return an array mirrored with np.pad, as wide as wanted."""
    pads = [(0, 0)] * (array.ndim - 2) + [(pixels, pixels)] * 2
    return np.pad(array, pads, mode="symmetric")


@given(SHAPES, st.integers(1, 30), st.integers(0, 12), SEEDS)
def test_the_identity_is_a_crop_bit_for_bit(shape, size, margin, seed):
    image, ids, valid = scene(shape)
    tile = draw_tile(image, ids, valid, np.random.default_rng(seed), size, margin, IDENTITY)
    y, x = draw_origin(ids.shape, size, np.random.default_rng(seed))
    wide, side = 60, size + 2 * margin
    rows, columns = (slice(p + wide - margin, p + wide - margin + side) for p in (y, x))
    np.testing.assert_array_equal(tile.image, around(image, wide)[:, rows, columns])
    rows, columns = (slice(p + wide, p + wide + size) for p in (y, x))
    np.testing.assert_array_equal(tile.ids, around(ids, wide)[rows, columns])
    known = np.pad(valid, wide)[rows, columns]
    np.testing.assert_array_equal(tile.valid, known)


@given(SEEDS)
def test_quarters_and_flips_are_symmetries_bit_for_bit(seed):
    image, ids, _ = scene()
    settings = replace(IDENTITY, rotation="quarter", flip=True)
    tile = draw_tile(image, ids, None, seed, 30, 4, settings)
    turned = [(np.rot90(a, k, (-2, -1)), np.rot90(b, k)) for a, b in
              [(around(image, 4), ids), (around(image, 4)[..., ::-1], ids[:, ::-1])]
              for k in range(4)]  # fmt: skip
    matches = [np.array_equal(tile.image, a) and np.array_equal(tile.ids, b) for a, b in turned]
    assert sum(matches) == 1 and tile.valid.all()


@given(SHAPES, st.integers(1, 30), st.integers(0, 12), SEEDS)
def test_everything_at_once_has_the_right_shapes_and_no_new_ids(shape, size, margin, seed):
    image, ids, valid = scene(shape)
    everything = Augmentation(scale=1.3, hue=0.1, stain=0.1)
    tile = draw_tile(image, ids, valid, seed, size, margin, everything)
    side = size + 2 * margin
    assert tile.image.shape == (shape[0], side, side) and tile.image.dtype == np.float32
    assert tile.ids.shape == tile.valid.shape == (size, size)
    assert tile.ids.dtype == np.int32 and tile.valid.dtype == bool
    assert np.isfinite(tile.image).all() and set(tile.ids.flat) <= set(ids.flat)


@given(SEEDS, st.sampled_from([1, 3]))
def test_pixels_and_ids_go_through_one_map(seed, order):
    # A picture of the ids themselves, in stripes wide enough for interpolation to settle.
    ids = np.repeat(np.arange(1, 9), 10)[None].repeat(80, 0)
    picture = ids[None].astype(np.float32)
    tile = draw_tile(picture, ids, None, seed, 40, 6, replace(GEOMETRY, order=order))
    shown = tile.image[0, 6:-6, 6:-6]
    assert (np.abs(shown - tile.ids) <= 0.5 + 0.2 * (order == 3)).all()


@given(SEEDS)
def test_touching_cells_stay_two(seed):
    rng = np.random.default_rng(seed)
    ids = np.zeros((60, 60), int)
    ids[10:50, 10:30], ids[10:50, 30:50] = 1, 2
    places = draw_map(ids.shape, 60, 0, rng, GEOMETRY)
    found, _ = warp_ids(ids, np.ones_like(ids, bool), places)
    left = places[1] + 0.5 < 30
    inside = found > 0
    within = (np.abs(places - 29.5) < 20).all(0)
    np.testing.assert_array_equal(found[within], np.where(left, 1, 2)[within])
    assert not (inside & ~within & (np.abs(places - 29.5) < 29).all(0)).any()


@given(SEEDS)
def test_what_is_beyond_the_image_or_not_known_is_not_valid(seed):
    image, ids, valid = scene((1, 20, 25))
    tile = draw_tile(image, ids, valid, seed, 32, 4, GEOMETRY)
    places = draw_map(ids.shape, 32, 4, np.random.default_rng(seed), GEOMETRY)[:, 4:-4, 4:-4]
    for y, x in np.ndindex(32, 32):
        row, column = np.floor(places[:, y, x] + 0.5).astype(int)
        inside = 0 <= row < 20 and 0 <= column < 25
        assert tile.valid[y, x] == (inside and valid[row, column])


def test_an_image_smaller_than_a_tile_is_used_whole():
    image, _, _ = scene((1, 20, 25))
    ids = np.arange(500).reshape(20, 25)
    tile = draw_tile(image, ids, None, 0, 388, 92, IDENTITY)
    assert tile.valid.sum() == 500
    assert set(tile.ids[tile.valid].tolist()) == set(range(500))


def test_the_same_chance_gives_the_same_tile():
    scenes = scene((3, 50, 50))
    settings = Augmentation(scale=1.4, hue=0.1, stain=0.1)
    first, second = (draw_tile(*scenes, 7, 30, 8, settings) for _ in range(2))
    generator = np.random.default_rng(7)
    third, other = (draw_tile(*scenes, generator, 30, 8, settings) for _ in range(2))
    for a, b, c, d in zip(first, second, third, other, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
        assert not np.array_equal(a, d)


def test_grey_values_do_not_move_anything():
    scenes = scene((1, 50, 50))
    plain = draw_tile(*scenes, 7, 30, 8, GEOMETRY)
    varied = draw_tile(*scenes, 7, 30, 8, Augmentation())
    np.testing.assert_array_equal(plain.ids, varied.ids)
    np.testing.assert_array_equal(plain.valid, varied.valid)
    assert not np.array_equal(plain.image, varied.image)


def test_nothing_given_is_changed():
    image, ids, valid = scene((3, 30, 30))
    copies = image.copy(), ids.copy(), valid.copy()
    draw_tile(image, ids, valid, 0, 30, 0, Augmentation(hue=0.1, stain=0.1))
    for now, before in zip((image, ids, valid), copies, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("name", ["gain", "offset", "gamma", "noise", "blur", "hue", "stain"])
def test_every_variation_does_something_on_its_own(name):
    image, _, _ = scene((3, 30, 30))
    settings = replace(IDENTITY, **{name: 0.5})
    varied = [vary_grey_values(image, np.random.default_rng(s), settings) for s in range(9)]
    assert any(not np.array_equal(image, tile) for tile in varied)
    assert all(np.isfinite(tile).all() for tile in varied)


def test_colours_vary_in_colour_only():
    image, _, _ = scene((2, 9, 9))
    settings = replace(IDENTITY, hue=0.5, stain=0.5)
    np.testing.assert_array_equal(
        vary_grey_values(image, np.random.default_rng(0), settings), image
    )


def test_contrast_tints_no_white_where_colours_are_varied():
    grey = np.broadcast_to(scene((1, 9, 9))[0], (3, 9, 9))
    settings = replace(IDENTITY, gain=0.3, offset=0.3, gamma=0.3, hue=0.5)
    varied = vary_grey_values(grey, np.random.default_rng(0), settings)
    np.testing.assert_allclose(varied, varied[[1, 2, 0]], atol=1e-5)
    varied = vary_grey_values(grey, np.random.default_rng(0), replace(settings, hue=0))
    assert np.abs(varied - varied[[1, 2, 0]]).max() > 0.1


def test_grey_value_variation_is_modest():
    image, _, _ = scene((1, 60, 60))
    for seed in range(50):
        varied = vary_grey_values(image, np.random.default_rng(seed), Augmentation(blur=0))
        assert np.corrcoef(varied.ravel(), image.ravel())[0, 1] > 0.98
        assert abs(varied.mean() - image.mean()) < 0.4


def test_real_nuclei_stay_apart(shared_data):
    ids = read_mask(shared_data / "dsb2018/label/003cee89357d.png")
    image = ids[None].astype(np.float32)
    for seed in range(5):
        tile = draw_tile(image, ids, None, seed, 256, 44, GEOMETRY)
        assert set(np.unique(tile.ids)) <= set(np.unique(ids))
        # Objects that lie inside come with about the area they had.
        for i in set(tile.ids[tile.valid].tolist()) - {0}:
            y, x = np.nonzero(tile.ids == i)
            whole = tile.valid[tile.ids == i].all() and min(y.min(), x.min()) > 0
            if whole and max(y.max(), x.max()) < 255 and (ids == i).sum() > 60:
                assert 0.4 < y.size / (ids == i).sum() < 2.5


@pytest.mark.parametrize(
    "values",
    [
        {"elastic_sd": -1}, {"gain": float("nan")}, {"noise": float("inf")}, {"scale": 0.5},
        {"rotation": "all"}, {"elastic_grid": 1}, {"order": 2},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(values):
    with pytest.raises(InputError, match=r"augmentation|rotation|elastic grid"):
        Augmentation(**values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": np.zeros((9, 9), np.float32)}, "of one size"),
        ({"image": np.zeros((1, 9, 8), np.float32)}, "of one size"),
        ({"valid": np.ones((9, 8), bool)}, "of one size"),
        ({"image": np.zeros((1, 9, 9))}, "float32, integers and bool"),
        ({"instances": np.zeros((9, 9))}, "float32, integers and bool"),
        ({"valid": np.ones((9, 9), int)}, "float32, integers and bool"),
        ({"size": 0}, "too small"),
        ({"margin": -1}, "too small"),
    ],
)
def test_what_does_not_fit_is_refused(change, says):
    fits = {
        "image": np.zeros((1, 9, 9), np.float32),
        "instances": np.zeros((9, 9), int),
        "valid": None,
        "rng": 0,
        "size": 4,
        "margin": 2,
    }
    draw_tile(**fits)
    with pytest.raises(InputError, match=says):
        draw_tile(**(fits | change))


@given(SHAPES, st.integers(1, 30), st.integers(0, 12), SEEDS)
def test_an_empty_edge_takes_pixels_and_ids_and_leaves_the_rest_as_it_was(
    shape, size, margin, seed
):
    image, ids, valid = scene(shape)
    plain = draw_tile(image, ids, valid, seed, size, margin, GEOMETRY)
    tile = draw_tile(image, ids, valid, seed, size, margin, replace(GEOMETRY, empty=1.0))
    empty = (tile.image != plain.image).any(0)
    inner = empty[margin : margin + size, margin : margin + size]
    # One value of all channels, darker than all that is left, or white in colour.
    assert np.unique(tile.image[:, empty]).size <= 1
    if empty.any() and not empty.all():
        value, left = tile.image[0, empty][0], plain.image[:, ~empty]
        assert value <= min(0, left.min()) or (shape[0] == 3 and value >= max(1, left.max()))
    assert not tile.ids[inner].any() and tile.valid[inner].all()
    np.testing.assert_array_equal(tile.ids[~inner], plain.ids[~inner])
    np.testing.assert_array_equal(tile.valid[~inner], plain.valid[~inner])
    # What is left is a rectangle or an L: what is empty is whole rows, whole columns, or both.
    rows, columns = empty.all(1), empty.all(0)
    np.testing.assert_array_equal(empty, rows[:, None] | columns[None])


def test_so_many_tiles_get_an_empty_edge_as_are_asked_for():
    image, ids, _ = scene()
    settings = replace(IDENTITY, empty=0.25)
    cut = [bool((draw_tile(image, ids, None, s, 26, 2, settings).image < 0).any())
           for s in range(800)]  # fmt: skip
    assert 0.2 < np.mean(cut) < 0.3
