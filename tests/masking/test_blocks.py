"""Blocks, results and objects under a mask, against the whole slide at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from bigunet.geometry import Span, Tiling
from bigunet.masking.blocks import apply_mask, blocks_inside, cut_ids, flag_cut
from tests.masking.made_masks import made_mask

CROSS = ndimage.generate_binary_structure(2, 1)


@st.composite
def cut_slides(draw: st.DrawFn) -> tuple[np.ndarray, Tiling, tuple[Span, Span] | None]:
    """A mask (Y, X), how it is cut into blocks, and a region."""
    height, width = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    coarse = np.random.default_rng(draw(st.integers(0, 99))).random((12, 12)) < 0.3
    inside = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    tiling = Tiling.fit(
        (height, width),
        1,
        tile=8,
        block=draw(st.sampled_from([16, 24, 32])),
        target_tile=8,
        target_block=16,
    )
    region = (Span(3, 17), Span(5, 19)) if draw(st.booleans()) else None
    return inside, tiling, region


@given(cut_slides(), st.integers(1, 3))
def test_blocks_with_a_pixel_inside_are_needed(drawn, planes: int) -> None:
    inside, tiling, region = drawn
    needed = blocks_inside(made_mask(inside), tiling, region, planes)
    one = [bool(inside[b.y.slice, b.x.slice].any()) for b in tiling.blocks(region)]
    assert needed.dtype == bool
    assert needed.tolist() == one * planes


def fake_network(read: np.ndarray) -> np.ndarray:
    """Three scores of a pixel that look two pixels around."""
    near = ndimage.uniform_filter(read.astype(float), 5, mode="mirror")
    return np.stack([near * 0 + 100, near, read.astype(float)])


@given(cut_slides())
def test_inside_the_results_are_those_without_a_mask(drawn) -> None:
    inside, tiling, _ = drawn
    slide = np.random.default_rng(0).integers(0, 200, inside.shape)
    scores = fake_network(slide)
    plain = {
        "classes": scores.argmax(0).astype(np.uint8),
        "probabilities": np.round(scores).clip(0, 255).astype(np.uint8),
    }
    mask = made_mask(inside)
    needed = blocks_inside(mask, tiling)
    classes, probabilities = np.zeros_like(plain["classes"]), np.zeros_like(plain["probabilities"])
    for block, is_needed in zip(tiling.blocks(), needed, strict=True):
        if not is_needed:
            continue
        at = (..., block.y.slice, block.x.slice)
        of_block = {kind: data[at] for kind, data in plain.items()}
        masked = apply_mask(of_block, mask.read(0, block.y.slice, block.x.slice))
        assert all(masked[kind].dtype == data.dtype for kind, data in of_block.items())
        classes[at], probabilities[at] = masked["classes"], masked["probabilities"]
    for found, of_kind in ((classes, plain["classes"]), (probabilities, plain["probabilities"])):
        assert np.array_equal(found[..., inside], of_kind[..., inside])
    assert not classes[~inside].any()
    assert not probabilities[:, ~inside].any()


def test_what_is_not_there_is_not_masked() -> None:
    inside = np.array([[True, False]])
    empty = apply_mask({"probabilities": np.empty((0, 1, 2), np.uint8)}, inside)
    assert empty["probabilities"].shape == (0, 1, 2)
    classes = np.array([[2, 3]], np.uint8)
    assert apply_mask({"classes": classes}, inside)["classes"].tolist() == [[2, 0]]
    assert classes.tolist() == [[2, 3]]


@given(cut_slides(), st.floats(0.2, 0.6))
def test_cut_objects_are_those_beside_pixels_outside(drawn, share: float) -> None:
    inside, tiling, _ = drawn
    pixels = (np.random.default_rng(1).random(inside.shape) < share) & inside
    ids, count = ndimage.label(pixels)
    beside = ndimage.binary_dilation(~inside, CROSS)
    expected = np.zeros(count + 1, dtype=bool)
    expected[np.unique(ids[beside & pixels])] = True
    mask = made_mask(inside)
    found = [cut_ids(ids[b.y.slice, b.x.slice], mask, 0, b) for b in tiling.blocks()]
    assert flag_cut(count, found).tolist() == expected.tolist()


def test_the_end_of_the_slide_cuts_nothing() -> None:
    inside = np.ones((20, 20), dtype=bool)
    (block,) = Tiling(shape=(20, 20), depth=1, tile=(20, 20), block=(20, 20)).blocks()
    assert cut_ids(np.ones((20, 20), int), made_mask(inside), 0, block).size == 0
    inside[:, 19] = False
    ids = inside * 7
    assert cut_ids(ids, made_mask(inside), 0, block).tolist() == [7]
