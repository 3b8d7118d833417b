"""Outlines, held to what shapely says of them and to the pixels that they came from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from bigunet.instances.outlines import Polygon, mask_polygons, piece_polygons
from tests.instances.masks import HARD
from tests.strategies import chunkings


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Draw a mask from nearly empty to nearly full."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    noise = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.nothing()))
    mask: np.ndarray = noise % 16 < draw(st.integers(0, 16))
    return mask


@st.composite
def cut(draw: st.DrawFn) -> tuple[np.ndarray, list[tuple[tuple[int, int], np.ndarray]]]:
    """Draw a mask, and windows of it in any order, without some that are empty."""
    mask = draw(masks())
    rows, columns = (np.cumsum([0, *draw(chunkings(size))]) for size in mask.shape)
    pieces = [
        ((int(y), int(x)), mask[y:bottom, x:right])
        for y, bottom in pairwise(rows)
        for x, right in pairwise(columns)
    ]
    kept = [piece for piece in pieces if piece[1].any() or draw(st.booleans())]
    return mask, draw(st.permutations(kept))


def geometry(polygon: Polygon) -> shapely.Polygon:
    return shapely.Polygon(polygon[0], polygon[1:])


def drawn(polygons: list[Polygon], shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixels have their middle in a polygon."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    whole = shapely.MultiPolygon([geometry(polygon) for polygon in polygons])
    found: np.ndarray = shapely.contains_xy(whole, x, y)
    return found


def assert_outlines(mask: np.ndarray) -> None:
    """Hold the outlines of a mask to every law."""
    polygons = mask_polygons(mask)
    parts, count = ndimage.label(mask)
    assert len(polygons) == count
    for part, polygon in enumerate(polygons, 1):
        found = geometry(polygon)
        assert found.is_valid, shapely.is_valid_reason(found)
        assert found.area == (parts == part).sum()
        assert len(found.interiors) == holes(parts == part)
        assert found.exterior.is_ccw and not any(ring.is_ccw for ring in found.interiors)
        for ring in polygon:
            steps = np.diff(ring, axis=0)
            assert (ring[0] == ring[-1]).all()
            # Horizontal and vertical edges in turn: no corner lies on a line.
            assert (np.count_nonzero(steps, axis=1) == 1).all()
            assert ((steps[:, 0] == 0) != np.roll(steps[:, 0] == 0, 1)).all()
    if polygons:
        assert shapely.MultiPolygon([geometry(polygon) for polygon in polygons]).is_valid
        np.testing.assert_array_equal(drawn(polygons, mask.shape), mask)


def holes(part: np.ndarray) -> int:
    """Count the regions of background, joined along edges, that a part surrounds."""
    return int(ndimage.label(~np.pad(part, 1))[1]) - 1


@given(masks())
def test_outlines_are_valid_and_exact(mask: np.ndarray) -> None:
    assert_outlines(mask)


@pytest.mark.parametrize("name", [name for name, mask in HARD.items() if mask.ndim == 2])
def test_hard_masks(name: str) -> None:
    assert_outlines(HARD[name].astype(bool))


@given(cut())
def test_pieces_give_the_outlines_of_the_whole(
    case: tuple[np.ndarray, list[tuple[tuple[int, int], np.ndarray]]],
) -> None:
    mask, pieces = case
    whole, joined = mask_polygons(mask), piece_polygons(pieces)
    assert [[r.tolist() for r in p] for p in joined] == [[r.tolist() for r in p] for p in whole]


def test_a_corner_that_closes_a_loop_makes_a_hole_that_touches_the_exterior() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=bool)
    (polygon,) = mask_polygons(mask)
    exterior, hole = (ring.tolist() for ring in polygon)
    assert exterior == [[0, 0], [3, 0], [3, 2], [2, 2], [2, 3], [0, 3], [0, 0]]
    assert hole == [[1, 1], [1, 2], [2, 2], [2, 1], [1, 1]]


def test_pixels_that_meet_at_a_corner_only_are_two_polygons() -> None:
    for mask in (np.eye(2, dtype=bool), np.eye(2, dtype=bool)[::-1]):
        assert [len(p) for p in mask_polygons(mask)] == [1, 1]


def test_a_part_within_a_hole_is_a_polygon_of_its_own() -> None:
    mask = np.pad(np.pad(np.pad(np.ones((1, 1), bool), 1), 1, constant_values=True), 1)
    outer, inner = mask_polygons(mask)
    assert [len(outer), len(inner)] == [2, 1]
    assert geometry(outer).area == 16 and geometry(inner).area == 1
