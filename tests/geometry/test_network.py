"""Sizes of the network, against the network itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_model

from bigunet.geometry import (
    balanced_tile,
    input_size,
    legal_output,
    margin,
    pooling_grid,
    round_up,
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


@given(st.integers(1, 3000), st.integers(1, 700), st.integers(1, 5))
def test_balanced_tiles_are_on_the_grid_and_waste_little(
    size: int, target: int, depth: int
) -> None:
    tile, grid = balanced_tile(size, target, depth), pooling_grid(depth)
    assert tile % grid == 0
    assert tile <= round_up(max(size, 1), grid)
    count = -(-size // tile)
    assert count * tile - size < count * grid


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        margin(0)
    with pytest.raises(ValueError, match="positive"):
        legal_output(0, 2)
