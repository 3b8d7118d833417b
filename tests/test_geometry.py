"""Laws of the geometry, against NumPy's padding and the network itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_model

from bigunet.geometry import (
    Span,
    Tiling,
    balanced_tile,
    input_size,
    legal_output,
    margin,
    mirror_indices,
    pooling_grid,
    round_up,
)

depths = st.integers(1, 5)
lengths = st.integers(1, 3000)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    return Tiling.fit(
        (draw(lengths), draw(lengths)),
        draw(depths),
        tile=draw(st.none() | st.integers(1, 600)),
        block=draw(st.none() | st.integers(1, 900)),
        target_tile=draw(st.integers(64, 600)),
        target_block=draw(st.integers(64, 900)),
    )


def test_papers_network_maps_572_to_388() -> None:
    assert (margin(4), input_size(388, 4), legal_output(388, 4)) == (92, 572, 388)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_legal_outputs_are_what_the_network_gives(depth: int) -> None:
    model = random_model(depth).eval()
    for wanted in range(1, 3 * pooling_grid(depth)):
        output = legal_output(wanted, depth)
        side = input_size(output, depth)
        with torch.inference_mode():
            assert model(torch.zeros(1, 1, side, side)).shape[-2:] == (output, output)
        assert wanted <= output < wanted + pooling_grid(depth)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_other_input_sizes_do_not_fit(depth: int) -> None:
    with pytest.raises(ValueError, match="no input gives"):
        input_size(legal_output(8, depth) + 1, depth)


@given(st.integers(1, 40), st.integers(0, 130), st.integers(0, 130))
def test_mirror_is_numpys_symmetric(size: int, before: int, after: int) -> None:
    padded = np.pad(np.arange(size), (before, after), mode="symmetric")
    assert mirror_indices(-before, size + after, size) == padded.tolist()


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


@given(lengths, st.integers(1, 700), depths)
def test_balanced_tiles_are_on_the_grid_and_waste_little(
    size: int, target: int, depth: int
) -> None:
    tile, grid = balanced_tile(size, target, depth), pooling_grid(depth)
    assert tile % grid == 0
    assert tile <= round_up(max(size, 1), grid)
    count = -(-size // tile)
    assert count * tile - size < count * grid


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


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        Tiling(shape=(10, 10), depth=2, tile=(6, 8), block=(12, 16))
    with pytest.raises(ValueError, match="depth"):
        margin(0)
    with pytest.raises(ValueError, match="positive"):
        legal_output(0, 2)
