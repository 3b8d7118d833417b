"""Weights are equation 2 of the paper, against every distance computed one by one."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from bigunet.errors import InputError
from bigunet.training.targets import IGNORE, separate
from bigunet.training.weight_map import (
    SMALLEST,
    balanced_weights,
    border_weights,
    class_frequencies,
    weight_map,
)


def border_slowly(ids: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Distance from every pixel to every pixel of every cell; no transform, no limit."""
    border = np.zeros(ids.shape)
    cells = [np.argwhere(ids == cell) for cell in np.unique(ids[ids > 0])]
    if len(cells) < 2:
        return border
    for place in np.argwhere(ids == 0):
        nearest = [np.hypot(*(pixels - place).T).min() for pixels in cells]
        d1, d2 = sorted(nearest)[:2]
        border[tuple(place)] = w0 * math.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return border


def scattered(places: list[tuple[int, int]]) -> np.ndarray:
    """Return single pixels of different ids in a wide image."""
    ids = np.zeros((12, 80), np.uint16)
    for i, place in enumerate(places, start=1):
        ids[place] = i
    return ids


IDS = st.one_of(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=14),
        elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 2, 5, 9]),
    ),
    # Few cells far apart: what lies beyond the reach.
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 79)), min_size=1, max_size=6).map(
        scattered
    ),
)


@given(ids=IDS, w0=st.sampled_from([0.0, 1.0, 10.0, 300.0]), sigma=st.floats(0.3, 12))
def test_border_is_the_papers_wherever_it_matters(ids, w0, sigma) -> None:
    found, expected = border_weights(ids, w0, sigma), border_slowly(ids, w0, sigma)
    matters = expected > SMALLEST * (1 + 1e-9)
    np.testing.assert_allclose(found[matters], expected[matters], rtol=1e-12)
    # Elsewhere it is 0 or right or in between: never more than the paper's.
    assert (found[~matters] <= expected[~matters] * (1 + 1e-9)).all()
    assert (found >= 0).all()


@given(ids=IDS, balance=st.booleans())
def test_weights_are_class_weight_and_border(ids, balance) -> None:
    before = ids.copy()
    found = weight_map(ids, balance=balance)
    cells = np.count_nonzero(ids)
    kinds = int(0 < cells) + int(cells < ids.size)
    of_class = {
        True: ids.size / kinds / max(cells, 1),
        False: ids.size / kinds / max(ids.size - cells, 1),
    }
    balanced = np.vectorize(lambda i: of_class[bool(i)] if balance else 1.0)(ids)
    expected = (balanced + border_slowly(ids, 10, 5)).astype(np.float32)
    assert found.dtype == np.float32 and found.shape == ids.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=SMALLEST)
    assert (found > 0).all()
    np.testing.assert_array_equal(ids, before)


@pytest.mark.parametrize("gap", [1, 2, 5, 20])
def test_between_two_walls_the_border_is_the_same_everywhere(gap: int) -> None:
    """Closed form: d1 + d2 is gap + 1 at every pixel between two parallel walls."""
    ids = np.tile(np.repeat([1, 0, 2], [3, gap, 3]), (9, 1))
    border = border_weights(ids, 10, 5)
    expected = np.tile(
        np.repeat([0, 10 * math.exp(-((gap + 1) ** 2) / 50), 0], [3, gap, 3]), (9, 1)
    )
    np.testing.assert_allclose(border, expected, rtol=1e-12)


def test_a_gap_of_two_pixels_weighs_what_the_paper_means() -> None:
    """Two touching cells, separated: 8.35 in the gap above the balance of 1."""
    ids = separate(np.tile(np.repeat([1, 2], 5), (9, 1)))
    weights = weight_map(ids, balance=False)
    np.testing.assert_allclose(weights[:, 4:6], 1 + 10 * math.exp(-9 / 50), rtol=1e-6)
    assert (weights[ids > 0] == 1).all()


@pytest.mark.parametrize("cells", [0, 1])
def test_fewer_than_two_cells_have_no_border(cells: int) -> None:
    ids = np.zeros((8, 8), int)
    ids[2:4, 2:4] = ids[6, 6] = cells * 7  # in two parts, but one cell
    assert not border_weights(ids).any()
    found = np.unique(weight_map(ids))
    np.testing.assert_allclose(found, [64 / 118, 6.4] if cells else [1], rtol=1e-6)


@given(ids=IDS, seed=st.integers(0, 99))
def test_ids_are_names_only(ids, seed) -> None:
    """Other ids, other types, ids too large for a list: the same bits."""
    names = np.random.default_rng(seed).permutation(np.arange(1, 12))
    other = np.where(ids > 0, names[ids], 0).astype(np.uint64)
    large = np.where(ids > 0, other + np.uint64(2**60), np.uint64(0))
    expected = weight_map(ids)
    np.testing.assert_array_equal(weight_map(other), expected)
    np.testing.assert_array_equal(weight_map(large), expected)


def test_large_ids_without_any_background() -> None:
    ids = np.array([[2**60, 2**60 + 1]])
    np.testing.assert_array_equal(weight_map(ids), [[1, 1]])


@given(ids=IDS)
def test_symmetries(ids) -> None:
    expected = border_weights(ids)
    np.testing.assert_array_equal(border_weights(ids[::-1])[::-1], expected)
    np.testing.assert_array_equal(border_weights(ids.T).T, expected)


def test_weights_of_a_training_set_replace_those_of_the_image() -> None:
    ids = np.array([[1, 0, 0, 0]])
    np.testing.assert_array_equal(weight_map(ids, class_weights=[0.5, 3]), [[3, 0.5, 0.5, 0.5]])


@given(ids=IDS, data=st.data())
def test_ignored_pixels_weigh_nothing_and_are_no_cell(ids, data) -> None:
    ignore = data.draw(hnp.arrays(bool, ids.shape))
    found = weight_map(ids, balance=False, ignore=ignore)
    assert not found[ignore].any()
    rest = np.where(ignore, 0, ids)
    expected = 1 + border_slowly(rest, 10, 5)
    np.testing.assert_allclose(found[~ignore], expected[~ignore], rtol=1e-6, atol=SMALLEST)
    if (~ignore).any():
        mean = (weight_map(ids, w0=0, ignore=ignore))[~ignore].mean(dtype=float)
        assert mean == pytest.approx(1, rel=1e-6)


def test_real_nuclei(shared_data) -> None:
    """A crowded image, at pixels drawn by chance, against all distances to all nuclei."""
    with (shared_data / "dsb2018/split.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["height"] == "256" and r["width"] == "256"]
    name = max(rows, key=lambda r: int(r["n_nuclei"]))["name"]
    ids = separate(np.asarray(Image.open(shared_data / f"dsb2018/label/{name}.png")))
    found = border_weights(ids)
    cells = [np.argwhere(ids == cell) for cell in np.unique(ids[ids > 0])]
    places = np.random.default_rng(0).permutation(np.argwhere(ids == 0))[:200]
    for place in places:
        d1, d2 = sorted(np.hypot(*(pixels - place).T).min() for pixels in cells)[:2]
        expected = 10 * math.exp(-((d1 + d2) ** 2) / 50)
        assert found[tuple(place)] == pytest.approx(expected, rel=1e-9, abs=SMALLEST)
    assert found.max() > 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w0": -1}, "w0 -1"),
        ({"w0": math.nan}, "w0 nan"),
        ({"sigma": 0}, "sigma 0"),
        ({"sigma": math.inf}, "sigma inf"),
        ({"class_weights": [1, 2, 3]}, "two positive numbers"),
        ({"class_weights": [0, 1]}, "two positive numbers"),
        ({"class_weights": [1, math.nan]}, "two positive numbers"),
        ({"class_weights": [1, 2], "balance": False}, "leave out one"),
    ],
)
def test_what_makes_no_weights_is_refused(options, message) -> None:
    with pytest.raises(InputError, match=message):
        weight_map(np.array([[0, 1, 0, 2]]), **options)


TARGETS = st.lists(
    hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, IGNORE])), max_size=4
)


@given(targets=TARGETS)
def test_classes_together_weigh_the_same_and_1_in_the_mean(targets) -> None:
    counts = class_frequencies(iter(targets), classes=4)
    pixels = [int(v) for target in targets for v in target.ravel() if v != IGNORE]
    assert list(counts) == [pixels.count(k) for k in range(4)]
    weights = balanced_weights(counts)
    occur = sorted(set(pixels))
    assert all(weights[k] == 1 for k in range(4) if k not in occur)
    if pixels:
        assert sum(weights[p] for p in pixels) / len(pixels) == pytest.approx(1)
        np.testing.assert_allclose((weights * counts)[occur], len(pixels) / len(occur))


def test_frequencies_are_those_of_all_images_together() -> None:
    one, two = np.array([[0, 0, 0, 1]]), np.array([[1], [IGNORE]])
    np.testing.assert_array_equal(class_frequencies([one, two], 2), [3, 2])
    np.testing.assert_array_equal(
        class_frequencies([one, two], 256, ignore=None)[[0, 1, 255]], [3, 2, 1]
    )


@pytest.mark.parametrize("value", [2, -1])
def test_a_class_that_was_not_declared_is_named(value: int) -> None:
    with pytest.raises(InputError, match=f"class {value} in a target: 2 classes are 0 to 1"):
        class_frequencies([np.array([[0, 1, value]])], classes=2)
