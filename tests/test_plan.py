"""Decisions of the plan that follow from sizes alone, and the memory it projects."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from slides import constant_speed_model, write_slide

from bigunet.errors import InputError
from bigunet.geometry import Span, Tiling
from bigunet.pipeline import plan_image
from bigunet.planning import parse_region


@given(
    shape=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    cuts=st.tuples(*[st.floats(0, 1)] * 4),
    tile=st.integers(1, 40),
    block=st.integers(1, 60),
)
def test_what_a_plan_counts_is_what_its_work_comes_to(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    cuts: tuple[float, float, float, float],
    tile: int,
    block: int,
) -> None:
    pixels = np.zeros((2, 3, *shape), np.uint16)
    slide = write_slide(tmp_path_factory.mktemp("plan") / "s.zarr", pixels, "czyx", levels=1)
    first = [int(cut * (size - 1)) for cut, size in zip(cuts[:2], shape, strict=True)]
    last = [max(a + 1, int(c * n)) for a, c, n in zip(first, cuts[2:], shape, strict=True)]
    plan = plan_image(
        slide,
        constant_speed_model(2),
        region=list(zip(first, last, strict=True)),
        tile=tile,
        block=block,
    )
    tiling, blocks = plan.tiling, [block for _, _, _, block in plan.work()]
    sources = [tiling.source(block) for block in blocks]
    assert plan.blocks == len(blocks)
    assert plan.pixels == sum(b.y.size * b.x.size for b in blocks)
    assert plan.tiles == sum(len(list(tiling.tiles(block))) for block in blocks)
    assert plan.bytes_read == 2 * 2 * sum(y.size * x.size for y, x in sources)
    (height, width), decoded = plan.planes[0].decoded, set()
    for y, x in sources:
        rows = {row // height for row in range(y.start, y.stop)}
        decoded |= {(row, column // width) for column in range(x.start, x.stop) for row in rows}
    assert plan.overlap == "direct"
    decoded_pixels = len(plan.planes) * len(decoded) * height * width
    assert plan.read_amplification == decoded_pixels / plan.pixels


@pytest.mark.parametrize("overlap", ["direct", "map_overlap"])
def test_chunks_of_several_channels_and_planes_are_decoded_for_each_plane(
    tmp_path: Path, overlap: str
) -> None:
    """As ``ome_zarr.writer`` makes them where nobody says how."""
    pixels = np.zeros((4, 6, 256, 256), np.uint16)
    plans = []
    for chunks in ((1, 1, 128, 128), (2, 3, 128, 128)):
        slide = write_slide(tmp_path / f"{chunks[0]}.zarr", pixels, "czyx", levels=1)
        shutil.rmtree(slide / "s0")
        zarr.create_array(slide / "s0", shape=pixels.shape, chunks=chunks, dtype="u2")
        chosen = plan_image(slide, constant_speed_model(2), channels=[0, 2], overlap=overlap)
        plans.append(chosen)
    alone, together = plans
    assert together.read_amplification == 2 * 3 * alone.read_amplification
    at_once = 10 * 2 * 128 * 128 * (2 * 2 * 3 - 2)
    blocks = together.workers
    assert together.memory.projected - alone.memory.projected == blocks * at_once


def test_no_plan_walks_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(*_: object) -> None:
        raise AssertionError("a million blocks were walked")

    pixels = np.zeros((1024, 1024), np.uint8)
    slide = write_slide(tmp_path / "s.zarr", pixels, "yx", chunk=1024, levels=1)
    zarr.open_array(slide / "s0", mode="r+").resize((2**20, 2**20))
    monkeypatch.setattr(Tiling, "blocks", walk)
    monkeypatch.setattr(Tiling, "tiles", walk)
    monkeypatch.setattr(Tiling, "source", walk)
    plan = plan_image(slide, constant_speed_model(), block=1024, tile=512, memory_limit=10**10)
    assert plan.lines() and plan.as_dict()["blocks"] == 2**20 and plan.tiles == 2**22


def test_regions_lie_in_the_plane() -> None:
    assert parse_region(None, (10, 10)) is None
    assert parse_region(((0, 10), (3, 4)), (10, 10)) == (Span(0, 10), Span(3, 4))
    for bad in (((0, 11), (0, 1)), ((5, 5), (0, 1)), ((-1, 5), (0, 1)), ((0, 1), (4, 2))):
        with pytest.raises(InputError, match="does not lie in rows 0:10"):
            parse_region(bad, (10, 10))


@pytest.mark.parametrize("units", [True, False])
def test_a_precision_that_the_processor_has_no_units_for_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    monkeypatch.setattr("bigunet.sites.computes_bfloat16", lambda _: units)
    write_slide(tmp_path / "s.zarr", np.zeros((100, 100), np.uint8), "yx")
    model = constant_speed_model()
    rough = plan_image(tmp_path / "s.zarr", model, precision="bfloat16").notes
    assert any("without units" in note for note in rough) is not units
    assert not any("without units" in note for note in plan_image(tmp_path / "s.zarr", model).notes)
