"""How a plane is cut and stored: compared with counting, and laws of sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from slides import write_slide

from bigunet.cutting import choose_overlap, pixels_decoded, write_chunk, write_shard
from bigunet.geometry import Tiling
from bigunet.images.open import Plane, image_planes, open_image

PLANE = Plane(
    store="nowhere",
    key="0",
    zarr_format=3,
    axes="yx",
    channels=(0,),
    index=(),
    shape=(1, 1, 1),
    dtype=np.dtype(np.uint8),
    chunks=(1, 1),
    decoded=(1, 1),
    layers=1,
)


@given(
    st.integers(1, 5000), st.integers(1, 4), st.integers(1, 3000), st.none() | st.integers(1, 5000)
)
def test_write_units_divide_blocks_and_are_not_large(
    size: int, depth: int, tile: int, block: int | None
) -> None:
    tiling = Tiling.fit(
        (size, size), depth, tile=tile, block=block, target_tile=512, target_block=2048
    )
    sides = zip(write_chunk(tiling), write_shard(tiling), tiling.block, tiling.shape, strict=True)
    for chunk, shard, whole, length in sides:
        assert 1 <= chunk <= 1024
        assert whole % chunk == 0 or chunk == length
        assert shard % chunk == 0 and shard <= max(chunk, 4096)
        assert whole % shard == 0 or shard == length
        # None is smaller than it has to be.
        assert shard == whole or whole > 4096 or chunk == length


@given(
    size=st.integers(1, 3000),
    tile=st.integers(1, 300),
    block=st.integers(1, 900),
    chunks=st.tuples(st.integers(1, 700), st.integers(1, 700)),
)
def test_pixels_decoded_are_those_of_the_chunks_that_each_block_touches_if_none_are_kept(
    size: int, tile: int, block: int, chunks: tuple[int, int]
) -> None:
    tiling = Tiling.fit(
        (size, size // 2 + 1), 2, tile=tile, block=block, target_tile=1, target_block=1
    )
    touched = 0
    for part in tiling.blocks():
        sides = zip(tiling.source(part), chunks, strict=True)
        y, x = (len({i // chunk for i in range(s.start, s.stop)}) for s, chunk in sides)
        touched += y * x * chunks[0] * chunks[1]
    plane = replace(PLANE, shape=(1, *tiling.shape), chunks=chunks, decoded=chunks)
    assert pixels_decoded(tiling, plane, processes=2) == touched
    assert pixels_decoded(tiling, replace(plane, dtype=np.dtype("V1000000000"))) == touched


def test_overlap_is_direct_for_small_chunks_and_map_overlap_for_large_ones(tmp_path: Path) -> None:
    pixels = np.zeros((3000, 3000), np.uint8)
    fine = write_slide(tmp_path / "fine.zarr", pixels, "yx", chunk=256, levels=1)
    large = pixels.astype(np.uint32)  # in chunks that no process keeps
    coarse = write_slide(tmp_path / "coarse.zarr", large, "yx", chunk=3000, levels=1)
    tiling = Tiling(shape=(3000, 3000), depth=3, tile=(128, 128), block=(256, 256))
    chosen = {}
    for path in (fine, coarse):
        plane = image_planes(open_image(path), 0, (0,))[0]
        chosen[path.stem] = choose_overlap("auto", tiling, plane, 1, 10**10)
        assert choose_overlap("auto", tiling, plane, 1, 10**6) == "direct"
        assert choose_overlap("map_overlap", tiling, plane, 1, 10**6) == "map_overlap"
        assert choose_overlap("auto", tiling, plane, 1, 10**10, whole=False) == "direct"
    assert chosen == {"fine": "direct", "coarse": "map_overlap"}
