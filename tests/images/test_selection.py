"""Levels and channels are never chosen in silence where there is a choice."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.images.selection import choose_channels, choose_level
from tests.images.made_images import (
    made_up,
)


def test_level_by_number() -> None:
    image = made_up([1, 2, 4])
    assert choose_level(image, None, None) == (0, None)
    assert choose_level(image, 2, None) == (2, None)
    for level in (-1, 3):
        with pytest.raises(InputError, match=f"no level {level}: .* has levels 0 to 2"):
            choose_level(image, level, None)
    with pytest.raises(InputError, match="has level 0 only"):
        choose_level(made_up([1]), 1, None)


def test_level_by_pixel_size_is_said() -> None:
    image = made_up([0.25, 0.5, 1.0])
    assert choose_level(image, None, 0.45) == (
        1,
        "level 1 has pixels of 0.5 µm, wanted are 0.45 µm",
    )
    level, line = choose_level(image, None, 4.0)
    assert level == 2
    assert line == "warning: level 2 has pixels of 1 µm, wanted are 4 µm: off by 4×"


def test_a_number_wins_over_the_pixel_size_which_warns() -> None:
    level, line = choose_level(made_up([0.25, 0.5, 1.0]), 0, 1.0)
    assert level == 0
    assert str(line).startswith("warning: level 0 has pixels of 0.25 µm")


def test_no_unit_warns() -> None:
    level, line = choose_level(made_up([1, 2], None), None, 0.5)
    assert level == 0
    assert str(line).startswith("warning: a.zarr gives no unit")


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan, math.inf])
def test_absurd_pixel_sizes(size: float) -> None:
    with pytest.raises(InputError, match="no pixel size"):
        choose_level(made_up([1]), None, size)


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    st.floats(1e-3, 1e3),
)
def test_the_chosen_level_is_the_nearest_in_ratio(sizes: list[float], wanted: float) -> None:
    """Law: no other level is off by a smaller factor, and a warning means more than 1.5×."""
    level, line = choose_level(made_up(sizes), None, wanted)
    off = [max(size / wanted, wanted / size) for size in sizes]
    assert off[level] == pytest.approx(min(off), rel=1e-9)
    if abs(min(off) - 1.5) > 1e-9:
        assert str(line).startswith("warning:") == (min(off) > 1.5)


STAINS = made_up([1], names=("DAPI", "nanog", "DAPI", "1"))


def test_one_channel_model_never_takes_channel_0_in_silence() -> None:
    with pytest.raises(InputError) as refused:
        choose_channels(STAINS, None, 1)
    assert str(refused.value) == (
        "a.zarr: the model takes 1 channel and the image has 4 channels: choose with --channels "
        "from 0 'DAPI', 1 'nanog', 2 'DAPI', 3 '1'"
    )


def test_all_channels_are_taken_where_the_number_fits() -> None:
    assert choose_channels(STAINS, None, 4) == (0, 1, 2, 3)
    assert choose_channels(made_up([1]), None, 1) == (0,)


def test_channels_by_index_digits_and_name() -> None:
    assert choose_channels(STAINS, [3, "0", "nanog"], 3) == (3, 0, 1)
    assert choose_channels(STAINS, "nanog", 1) == (1,)
    assert choose_channels(STAINS, 2, 1) == (2,)
    # The index wins over the name of channel 3, so that every channel can be named.
    assert choose_channels(STAINS, ["1"], 1) == (1,)
    # The same channel may be given more than once: grey to a model of three channels.
    assert choose_channels(STAINS, [0, 0, 0], 3) == (0, 0, 0)


@pytest.mark.parametrize("wanted", [4, -1, "4", "GFP", "", "²"])
def test_unknown_channels_list_what_there_is(wanted: int | str) -> None:
    with pytest.raises(InputError, match="is no channel: choose from 0 'DAPI', 1 'nanog'"):
        choose_channels(STAINS, [wanted], 1)


def test_an_ambiguous_name_is_refused() -> None:
    with pytest.raises(InputError, match="'DAPI' is the name of several channels"):
        choose_channels(STAINS, ["DAPI"], 1)


@pytest.mark.parametrize("wanted", [[], [0, 1]])
def test_wrong_number_of_channels(wanted: list[int]) -> None:
    with pytest.raises(InputError, match=r"the model takes 1 channel and \d channels chosen"):
        choose_channels(STAINS, wanted, 1)


def test_long_channel_lists_are_cut() -> None:
    with pytest.raises(InputError, match="19 'n19' and so on to 99"):
        choose_channels(made_up([1], names=tuple(f"n{i}" for i in range(100))), None, 1)
