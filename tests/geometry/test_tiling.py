"""Laws of blocks and tiles, and of what is known of all of them without a walk."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.geometry import Span, Tiling, margin

lengths = st.integers(1, 3000)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    return Tiling.fit(
        (draw(lengths), draw(lengths)),
        draw(st.integers(1, 5)),
        tile=draw(st.none() | st.integers(1, 600)),
        block=draw(st.none() | st.integers(1, 900)),
        target_tile=draw(st.integers(64, 600)),
        target_block=draw(st.integers(64, 900)),
    )


@st.composite
def regions(draw: st.DrawFn, shape: tuple[int, int]) -> tuple[Span, Span] | None:
    if draw(st.booleans()):
        return None
    starts = [draw(st.integers(0, size - 1)) for size in shape]
    y, x = (Span(a, draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True))
    return y, x


@given(tilings())
def test_blocks_cover_every_pixel_once(tiling: Tiling) -> None:
    for sizes, length in zip(tiling.chunks, tiling.shape, strict=True):
        assert sum(sizes) == length and min(sizes) > 0
    assert sum(b.pixels for b in tiling.blocks()) == tiling.shape[0] * tiling.shape[1]


@given(tilings())
def test_tiles_lie_on_one_lattice_with_the_phase_of_the_whole_image(tiling: Tiling) -> None:
    for block in tiling.blocks():
        for tile in tiling.tiles(block):
            for span, pitch, read, side in zip(
                tile, tiling.tile, tiling.tile_read(tile), tiling.tile_input, strict=True
            ):
                assert span.start % pitch == 0 and span.size == pitch
                assert read.start == span.start - margin(tiling.depth) and read.size == side


@given(tilings())
def test_a_halo_holds_all_that_a_block_needs(tiling: Tiling) -> None:
    """What map_overlap hands over is enough, with the plane's far mirror too."""
    for block in tiling.blocks():
        for need, span, halo in zip(
            tiling.source(block), (block.y, block.x), tiling.halo, strict=True
        ):
            assert span.start - halo <= need.start and need.stop <= span.stop + halo


@given(tilings())
def test_no_block_is_smaller_than_the_halo_of_map_overlap(tiling: Tiling) -> None:
    for sizes, halo in zip(tiling.chunks, tiling.halo, strict=True):
        assert min(sizes) >= halo


@given(tilings(), st.integers(0, 3000), st.integers(1, 900))
def test_a_region_is_covered_once_by_parts_of_the_same_blocks(
    tiling: Tiling, start: int, size: int
) -> None:
    start = min(start, tiling.shape[0] - 1)
    region = (Span(start, min(start + size, tiling.shape[0])), Span(0, tiling.shape[1]))
    parts = list(tiling.blocks(region))
    assert sum(b.pixels for b in parts) == region[0].size * region[1].size
    for part in parts:
        whole = tiling.block_at(part.index)
        for need, all_of_it in zip(tiling.source(part), tiling.source(whole), strict=True):
            assert all_of_it.start <= need.start and need.stop <= all_of_it.stop
        assert part.y == whole.y.cut(region[0]) and part.x == whole.x
        assert set(tiling.tiles(part)) <= set(tiling.tiles(whole))


@given(tilings(), st.data())
def test_what_is_known_of_all_blocks_is_what_a_walk_finds(
    tiling: Tiling, data: st.DataObject
) -> None:
    region = data.draw(regions(tiling.shape))
    blocks, (ys, xs) = list(tiling.blocks(region)), tiling.sources(region)
    rows, columns = tiling.grid(region)
    assert [b.index for b in blocks] == [(i, j) for i in rows for j in columns]
    assert tiling.block_count(region) == len(blocks)
    assert tiling.tile_count(region) == sum(1 for b in blocks for _ in tiling.tiles(b))
    assert [tiling.source(b) for b in blocks] == [(y, x) for y in ys for x in xs]
    largest = max(b.y.size for b in tiling.blocks()), max(b.x.size for b in tiling.blocks())
    assert tiling.largest_block == largest


def test_a_tiling_that_was_used_is_the_same_elsewhere() -> None:
    tiling = Tiling(shape=(100, 90), depth=2, tile=(8, 8), block=(32, 32))
    list(tiling.blocks())
    assert pickle.loads(pickle.dumps(tiling)) == tiling and len(pickle.dumps(tiling)) < 500


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        Tiling(shape=(10, 10), depth=2, tile=(6, 8), block=(12, 16))
