"""Decisions of the plan that follow from sizes alone, and the memory it projects."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slides import write_slide
from strategies import random_model

from bigunet import UNet
from bigunet.cutting import choose_overlap, write_chunk
from bigunet.errors import InputError
from bigunet.geometry import Span, Tiling, input_size, legal_output
from bigunet.images.open import image_planes, open_image
from bigunet.memory import forward_bytes
from bigunet.models.symmetries import log_mean_probabilities
from bigunet.planning import parse_region


@given(
    st.integers(1, 5000), st.integers(1, 4), st.integers(1, 3000), st.none() | st.integers(1, 5000)
)
def test_write_units_divide_blocks_and_are_not_large(
    size: int, depth: int, tile: int, block: int | None
) -> None:
    tiling = Tiling.fit(
        (size, size), depth, tile=tile, block=block, target_tile=512, target_block=2048
    )
    for unit, whole, length in zip(write_chunk(tiling), tiling.block, tiling.shape, strict=True):
        assert 1 <= unit <= 1024
        assert whole % unit == 0 or unit == length


@pytest.mark.parametrize(("depth", "width", "channels"), [(1, 4, 1), (3, 8, 1), (2, 16, 3)])
def test_projected_activations_are_what_torch_allocates(
    tmp_path: Path, depth: int, width: int, channels: int
) -> None:
    last = torch.channels_last
    model = UNet(channels, 2, width, depth).eval().to(memory_format=last)
    side = input_size(legal_output(100, depth), depth)
    image = torch.zeros(1, channels, side, side).contiguous(memory_format=last)

    def one_pass(turned: torch.Tensor) -> torch.Tensor:
        return model(turned.contiguous(memory_format=last))[0]

    plain = image.nbytes + most_allocated(lambda: one_pass(image), tmp_path)
    assert plain <= forward_bytes(model, (side, side)) <= 1.25 * plain
    mean = image.nbytes + most_allocated(lambda: log_mean_probabilities(one_pass, image), tmp_path)
    assert plain < mean <= forward_bytes(model, (side, side), averaged=True) <= 1.25 * mean


def most_allocated(work: Callable[[], Any], folder: Path) -> int:
    """Return the most bytes that torch's own profiler saw allocated at once."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.inference_mode(),
        torch.profiler.profile(activities=cpu, profile_memory=True) as seen,
    ):
        work()
    seen.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    return max(accumulate(change for _, change in changes))


def test_projected_memory_grows_with_the_tile() -> None:
    model = random_model(3)
    sizes = [forward_bytes(model, (side, side)) for side in (188, 380, 764)]
    assert sizes[0] < sizes[1] < sizes[2] < 5 * sizes[1]


def test_overlap_is_direct_for_small_chunks_and_map_overlap_for_large_ones(tmp_path: Path) -> None:
    pixels = np.zeros((3000, 3000), np.uint8)
    fine = write_slide(tmp_path / "fine.zarr", pixels, "yx", chunk=256, levels=1)
    coarse = write_slide(tmp_path / "coarse.zarr", pixels, "yx", chunk=3000, levels=1)
    tiling = Tiling(shape=(3000, 3000), depth=3, tile=(128, 128), block=(256, 256))
    chosen = {}
    for path in (fine, coarse):
        plane = image_planes(open_image(path), 0, (0,))[0]
        chosen[path.stem] = choose_overlap("auto", tiling, plane, 1, 10**10)
        assert choose_overlap("auto", tiling, plane, 1, 10**6) == "direct"
        assert choose_overlap("map_overlap", tiling, plane, 1, 10**6) == "map_overlap"
        assert choose_overlap("auto", tiling, plane, 1, 10**10, whole=False) == "direct"
    assert chosen == {"fine": "direct", "coarse": "map_overlap"}


def test_regions_lie_in_the_plane() -> None:
    assert parse_region(None, (10, 10)) is None
    assert parse_region(((0, 10), (3, 4)), (10, 10)) == (Span(0, 10), Span(3, 4))
    for bad in (((0, 11), (0, 1)), ((5, 5), (0, 1)), ((-1, 5), (0, 1)), ((0, 1), (4, 2))):
        with pytest.raises(InputError, match="does not lie in rows 0:10"):
            parse_region(bad, (10, 10))
