from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import regionprops_table

from bigunet.errors import InputError
from bigunet.measurement.properties import find_properties, region_values

NAMES = ("moments_hu", "bbox", "euler_number", "moments_weighted", "num_pixels", "intensity_median")


def names_of(names: tuple[str, ...], channels: tuple[str, ...]) -> list[str]:
    return [column.name for one in find_properties(names, channels) for column in one.columns]


def test_columns_are_those_of_regionprops_table() -> None:
    mask, pixels = np.ones((1, 1), np.uint8), np.zeros((1, 1, 2), np.uint16)
    names = tuple(name for name in NAMES if name != "bbox")
    with np.errstate(all="ignore"):
        table = regionprops_table(mask, pixels, properties=names)
    assert names_of(NAMES, ("0", "1")) == list(table)


def test_channels_give_their_names() -> None:
    assert names_of(("intensity_mean", "solidity"), ("DAPI", "GFP")) == [
        "intensity_mean-DAPI",
        "intensity_mean-GFP",
        "solidity",
    ]
    assert names_of(("centroid_weighted",), ("DAPI",)) == [
        "centroid_weighted-0-DAPI",
        "centroid_weighted-1-DAPI",
    ]


def test_whole_numbers_stay_whole() -> None:
    kinds = [one.columns[0].kind for one in find_properties(("euler_number", "extent"), ("0",))]
    assert kinds == ["integer", "number"]
    hole = np.pad(np.zeros((1, 1), bool), 1, constant_values=True)
    assert region_values(hole, None, (0, 0), find_properties(("euler_number",), ("0",))) == [[0]]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "solidty",
            "property 'solidty' is unknown to skimage.measure.regionprops; did you mean 'solidity'?",
        ),
        ("mean_intensity", "property 'mean_intensity' is unknown"),
        ("_cache", "property '_cache' is unknown"),
        ("coords", "property 'coords' is not a number, or some, for each object"),
        ("image", "property 'image' is not a number"),
        ("slice", "property 'slice' is not a number"),
    ],
)
def test_what_fits_in_no_table_is_refused(name: str, line: str) -> None:
    with pytest.raises(InputError) as refused:
        find_properties(("area", name), ("0",))
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)
