"""What a pass is projected to take, and the batch and the tile that follow from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_model

from bigunet import UNet
from bigunet.geometry import Tiling, input_size, legal_output
from bigunet.instances.rules import Rules
from bigunet.memory import (
    choose_batch,
    device_memory,
    forward_bytes,
    project_memory,
    smaller_tiling,
)
from bigunet.models.symmetries import log_mean_probabilities

MODEL = random_model(2, channels=3, classes=3)
precisions = st.sampled_from(["float32", "bfloat16", "float16"])


def tiling_of(tile: int, plane: tuple[int, int] = (8192, 8192)) -> Tiling:
    return Tiling.fit(plane, 2, tile=tile, block=tile, target_tile=tile, target_block=tile)


@pytest.mark.parametrize(
    ("depth", "width", "channels", "batch"), [(1, 4, 1, 1), (3, 8, 1, 3), (2, 16, 3, 2)]
)
def test_projected_activations_are_what_torch_allocates(
    tmp_path: Path, depth: int, width: int, channels: int, batch: int
) -> None:
    last = torch.channels_last
    model = UNet(channels, 2, width, depth).eval().to(memory_format=last)
    side = input_size(legal_output(100, depth), depth)
    image = torch.zeros(batch, channels, side, side).contiguous(memory_format=last)

    def one_pass(turned: torch.Tensor) -> torch.Tensor:
        return model(turned.contiguous(memory_format=last))

    plain = image.nbytes + most_allocated(lambda: one_pass(image), tmp_path)
    assert plain <= batch * forward_bytes(model, (side, side)) <= 1.25 * plain
    mean = image.nbytes + most_allocated(lambda: log_mean_probabilities(one_pass, image), tmp_path)
    projected = batch * forward_bytes(model, (side, side), averaged=True)
    assert plain < mean <= projected <= 1.25 * mean


def most_allocated(work: Callable[[], Any], folder: Path) -> int:
    """Return the most bytes that torch's own profiler saw allocated at once."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.inference_mode(),
        torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=True) as seen,
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


@given(st.integers(1, 2000), st.integers(1, 8), precisions, st.booleans())
def test_a_device_holds_the_pass_of_its_batch(
    tile: int, batch: int, precision: str, averaged: bool
) -> None:
    tiling = tiling_of(tile)
    none, one, batched = (
        device_memory(MODEL, tiling, n, precision, averaged=averaged) for n in (0, 1, batch)
    )
    assert batched == none + batch * (one - none)
    itemsize = 4 if precision == "float32" else 2
    assert one - none > forward_bytes(MODEL, tiling.tile_input, itemsize, averaged=averaged)
    dearest = device_memory(MODEL, tiling, 1, "float32", averaged=True)
    assert one - none <= dearest - device_memory(MODEL, tiling, 0, "float32", averaged=True)


@given(st.integers(1, 2000), st.integers(0, 2 * 10**11), precisions, st.booleans())
def test_a_batch_is_the_largest_of_which_half_a_device_is_enough_and_that_fills_it(
    tile: int, device: int, precision: str, averaged: bool
) -> None:
    tiling = tiling_of(tile)
    fits = {
        batch
        for batch in (1, 2, 4, 8)
        if 2 * device_memory(MODEL, tiling, batch, precision, averaged=averaged) <= device
        and batch * math.prod(tiling.tile) <= 4 * 1024**2
    }
    found = choose_batch(MODEL, tiling, device, precision, averaged=averaged)
    assert found == max(fits, default=1)
    assert choose_batch(MODEL, tiling, None, precision, averaged=averaged) == 1


@pytest.mark.parametrize("pixels", [0, 10**12])
def test_chunks_that_are_kept_are_held_to_the_end(pixels: int) -> None:
    """Also while objects are made, of which a large slide has many."""

    def projected(kept: int) -> int:
        return project_memory(
            MODEL,
            tiling_of(500),
            channels=1,
            itemsize=1,
            source_chunk=(1, 64, 64),
            result_bytes=1,
            workers=1,
            kept=kept,
            rules=Rules(),
            pixels=pixels,
        )

    assert projected(10**9) >= projected(0) + 10**9


def test_blocks_do_not_change_a_batch() -> None:
    tilings = [
        Tiling(shape=(900, 900), depth=2, tile=(128, 128), block=(block, block))
        for block in (128, 512, 1024)
    ]
    assert len({choose_batch(MODEL, tiling, 3 * 10**9, "float32") for tiling in tilings}) == 1


@given(
    st.integers(1, 3000),
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.integers(0, 3000**2),
)
def test_a_smaller_tile_is_the_first_of_the_halves_that_fits(
    tile: int, plane: tuple[int, int], allowed: int
) -> None:
    tiling = tiling_of(tile, plane)

    def projected(tried: Tiling) -> int:
        assert tried.shape == plane
        return tried.tile_input[0] * tried.tile_input[1]

    found = smaller_tiling(tiling, projected, allowed)
    halves = [max(tiling.tile)]
    while halves[-1] > 4:
        halves.append(-(-(halves[-1] // 2) // 4) * 4)
    fitting = [half for half in halves[1:] if projected(tiling_of(half, plane)) <= allowed]
    assert (found and max(found.tile)) == max(fitting, default=None)


def test_a_process_with_a_gpu_holds_batches_and_not_the_pass() -> None:
    def projected(device: str, batch: int, workers: int = 2) -> int:
        return project_memory(
            UNet(3, 3, 64, 4),
            Tiling(shape=(8192, 8192), depth=4, tile=(1024, 1024), block=(2048, 2048)),
            channels=3,
            itemsize=1,
            source_chunk=(3, 512, 512),
            result_bytes=1,
            workers=workers,
            device=device,
            batch=batch,
        )

    assert projected("cpu", 1) == projected("mps", 1)
    assert projected("cuda", 1) < projected("cuda", 8) < projected("cuda", 8, workers=3)
    tile = 3 * 1212**2 + 1028**2
    assert projected("cuda", 8) - projected("cuda", 1) >= 2 * 2 * 7 * tile
    assert projected("cuda", 8) < projected("cpu", 8)
