"""A mask has the same pixels whatever the window, and those of the label whatever its scale."""

from __future__ import annotations

import pickle
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.images.open import open_image
from bigunet.masking import mask as module
from bigunet.masking.mask import Cells, Mask
from bigunet.masking.plan import find_mask, plan_mask
from tests.masking.made_masks import ALL, slide_with, whole


def expected(label: np.ndarray, shape: tuple[int, int], ratio: Fraction) -> np.ndarray:
    """The pixel of the label that holds the centre of each pixel, one by one."""
    rows, columns = (
        [min(floor((Fraction(i) + Fraction(1, 2)) * ratio), size - 1) for i in range(n)]
        for n, size in zip(shape, label.shape, strict=True)
    )
    return np.array([[label[y, x] != 0 for x in columns] for y in rows])


@st.composite
def masks(draw: st.DrawFn) -> tuple[Mask, np.ndarray, Fraction]:
    ratio = Fraction(draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    size = [max(1, -(-n * ratio.numerator // ratio.denominator)) for n in shape]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    label = rng.random(size) < draw(st.sampled_from([0.02, 0.5]))
    found = Mask(
        name="a",
        shape=shape,
        label_shape=(size[0], size[1]),
        ratio=(ratio, ratio),
        sources=(Cells.of(label),),
    )
    return found, label, ratio


@given(masks(), st.data())
def test_a_window_has_the_pixels_of_the_whole(drawn, data) -> None:
    mask, label, ratio = drawn
    one = expected(label, mask.shape, ratio)
    assert np.array_equal(whole(mask), one)
    bounds = st.tuples(st.integers(0, 45), st.integers(0, 45)).map(lambda b: slice(*b))
    y, x = data.draw(bounds), data.draw(bounds)
    assert np.array_equal(mask.read(0, y, x), one[y, x])
    assert mask.is_empty_in(0, y, x) == (not one[y, x].any())
    assert mask.share() == pytest.approx(one.mean())


@given(masks())
def test_a_finer_label_is_read_a_part_at_a_time(drawn) -> None:
    mask, label, ratio = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_READ", 7)
        patch.setattr(module, "SIDE", 5)
        assert np.array_equal(whole(mask), expected(label, mask.shape, ratio))
        assert mask.share() == pytest.approx(whole(mask).mean())


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_cells_count_for_the_pixels_of_the_label_that_they_stand_for(
    side: int, step: int, finer: int, seed: int
) -> None:
    cells = np.random.default_rng(seed).random((4, 7)) < 0.5
    label = cells.repeat(side, axis=0).repeat(side, axis=1)[::step, ::step]
    ratio = Fraction(1, finer)
    mask = Mask(
        name="a",
        shape=(finer * label.shape[0], finer * label.shape[1]),
        label_shape=(label.shape[0], label.shape[1]),
        ratio=(ratio, ratio),
        sources=(Cells.of(cells),),
        side=side,
        step=step,
    )
    one = label.repeat(finer, axis=0).repeat(finer, axis=1)
    assert np.array_equal(whole(mask), one)
    assert np.array_equal(mask.read(0, slice(3, 9), slice(1, 8)), one[3:9, 1:8])
    assert mask.is_empty_in(0, slice(3, 9), slice(1, 8)) == (not one[3:9, 1:8].any())
    assert mask.share() == pytest.approx(one.mean())


def roi(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint32)


@pytest.mark.parametrize(("label_scale", "size"), [(0.5, 50), (2.0, 13), (1.5, 17), (0.3, 83)])
def test_a_stored_label_of_any_scale(tmp_path: Path, label_scale: float, size: int) -> None:
    label = roi(size, size)
    image = open_image(slide_with(tmp_path / "a.zarr", (50, 50), label, label_scale))
    plan = plan_mask(image, 0, "roi")
    assert plan is not None
    found = find_mask(plan)
    ratio = Fraction(str(0.5)) / Fraction(str(label_scale))
    one = expected(label, (50, 50), ratio)
    assert np.array_equal(whole(found.mask), one)
    assert found.share == pytest.approx(one.mean())
    assert found.tissue is None
    assert found.text == f"mask roi: {100 * one.mean():.3g} % of the slide"


def test_the_level_of_the_label_that_is_nearest_is_read(tmp_path: Path) -> None:
    label = roi(64, 64)
    path = slide_with(tmp_path / "a.zarr", (64, 64), label, 0.5, levels=3, label_levels=3)
    image = open_image(path)
    for level in range(3):
        plan = plan_mask(image, level, "roi")
        assert plan is not None
        lower = label[:: 2**level, :: 2**level] != 0
        assert np.array_equal(whole(find_mask(plan).mask), lower)


def test_labels_of_many_planes_and_of_one(tmp_path: Path) -> None:
    label = roi(3, 10, 12)
    shape = (2, 3, 10, 12)
    some = {"axes": "tzyx", "label_axes": "zyx"}
    image = open_image(slide_with(tmp_path / "z.zarr", shape, label, 0.5, **some))
    plan = plan_mask(image, 0, "roi")
    assert plan is not None
    mask = find_mask(plan).mask
    for at, (_, z) in enumerate(np.ndindex(2, 3)):
        assert np.array_equal(whole(mask, at), label[z] != 0)
    path = slide_with(tmp_path / "yx.zarr", shape, label[0], 0.5, axes="tzyx")
    plan = plan_mask(open_image(path), 0, "roi")
    assert plan is not None
    mask = find_mask(plan).mask
    assert all(np.array_equal(whole(mask, at), label[0] != 0) for at in range(6))


def test_a_large_mask_is_read_where_it_is_needed(tmp_path, monkeypatch) -> None:
    label = roi(50, 50)
    image = open_image(slide_with(tmp_path / "a.zarr", (50, 50), label, 0.5))
    plan = plan_mask(image, 0, "roi")
    assert plan is not None
    small = find_mask(plan).mask
    monkeypatch.setattr(module, "SMALL", 10)
    large = find_mask(plan).mask
    assert isinstance(small.sources[0], Cells)
    assert not isinstance(large.sources[0], Cells)
    for mask in (small, large):
        sent = pickle.dumps(mask)
        assert len(sent) < 2000
        assert np.array_equal(pickle.loads(sent).read(0, ALL, ALL), label != 0)
    assert hash(small) == hash(pickle.loads(pickle.dumps(small)))
