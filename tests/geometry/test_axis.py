"""Blocks of one axis, against a walk along it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.geometry import Span, mirror_indices, pooling_grid
from bigunet.geometry.axis import AxisTiling


@st.composite
def axes(draw: st.DrawFn) -> AxisTiling:
    depth = draw(st.integers(1, 4))
    tile = draw(st.integers(1, 12)) * pooling_grid(depth)
    blocks_of = draw(st.integers(1, 8)) * tile
    return AxisTiling(draw(st.integers(1, 2000)), depth, tile, blocks_of)


def walked(axis: AxisTiling) -> list[Span]:
    """Cut the axis at every block; what is left over and too short joins the one before."""
    starts = list(range(0, axis.size, axis.block))
    left = axis.size - starts[-1]
    if len(starts) > 1 and (left < axis.after or 2 * left < axis.tile):
        starts.pop()
    return [Span(a, b) for a, b in zip(starts, [*starts[1:], axis.size], strict=True)]


@given(axes())
def test_blocks_are_those_of_a_walk(axis: AxisTiling) -> None:
    whole = Span(0, axis.size)
    assert axis.spans(whole) == walked(axis)
    assert [axis.span(place) for place in range(axis.blocks)] == walked(axis)
    with pytest.raises(IndexError):
        axis.span(axis.blocks)


@given(axes(), st.data())
def test_a_part_meets_the_blocks_that_have_a_pixel_of_it(
    axis: AxisTiling, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, axis.size - 1))
    part = Span(start, data.draw(st.integers(start + 1, axis.size)))
    pixels = set(range(part.start, part.stop))
    met = [n for n, s in enumerate(walked(axis)) if pixels & set(range(s.start, s.stop))]
    assert list(axis.places(part)) == met
    assert axis.spans(part) == [walked(axis)[place].cut(part) for place in met]


@given(axes())
def test_a_source_holds_what_each_tile_reads_and_no_more(axis: AxisTiling) -> None:
    for span in walked(axis):
        tiles = [Span(start, start + axis.tile) for start in axis.tiles(span)]
        reads = [axis.read(tile) for tile in tiles]
        needed = {i for read in reads for i in mirror_indices(read.start, read.stop, axis.size)}
        assert axis.source(span) == Span(min(needed), max(needed) + 1)


@given(axes(), st.data())
def test_readers_of_a_part_are_the_blocks_with_one_of_its_pixels_in_their_source(
    axis: AxisTiling, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, axis.size - 1))
    part = Span(start, data.draw(st.integers(start + 1, axis.size)))
    pixels = set(range(part.start, part.stop))
    sources = [axis.source(span) for span in walked(axis)]
    assert axis.readers(part) == sum(bool(pixels & set(range(s.start, s.stop))) for s in sources)
