"""Which properties of regions are measured, and the columns that they fill."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import DependencyError, InputError

__all__ = ["BASE", "DEFAULT", "Column", "Kind", "Property", "find_properties", "region_values"]

Kind: TypeAlias = Literal["integer", "unsigned", "number", "text"]
Value: TypeAlias = int | float | str | None

BASE = ("label", "area", "bbox", "centroid")
"""What every row has, in pixels of level 0."""

DEFAULT = (
    "perimeter",
    "eccentricity",
    "solidity",
    "orientation",
    "intensity_mean",
    "intensity_min",
    "intensity_max",
    "intensity_std",
)
"""Properties that are measured where none are asked for."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table."""

    name: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Property:
    """A property of `skimage.measure.regionprops`."""

    name: str
    columns: tuple[Column, ...]
    """One, or one for each entry of an array, in C order."""
    of_image: bool
    """Whether it depends on the image, not on the shape alone."""


def find_properties(names: Sequence[str], channels: Sequence[str]) -> tuple[Property, ...]:
    """Find out which columns properties fill, by measuring two small regions.

    Columns are called as `skimage.measure.regionprops_table` calls them, but channels
    have their names: ``intensity_mean-DAPI``. Those of `BASE` are left out.

    Parameters
    ----------
    names : sequence of str
        Of properties.
    channels : sequence of str
        Names of the channels that are measured, one at least.

    Raises
    ------
    InputError
        If scikit-image has no such property, or it is not a number for each object.
    DependencyError
        If scikit-image is not installed.
    """
    wanted = [name for name in dict.fromkeys(names) if name not in BASE]
    return tuple(_find(name, channels) for name in wanted)


def region_values(
    mask: npt.NDArray[np.bool_],
    pixels: npt.NDArray[Any] | None,
    low: tuple[int, int],
    properties: Sequence[Property],
) -> list[list[Value]]:
    """Measure one object.

    Parameters
    ----------
    mask : (h, w) bool array
        The object in its box.
    pixels : (h, w, C) array, optional
        The image in the same box; needed for properties of the image.
    low : (y, x)
        First corner of the box.

    Returns
    -------
    list of lists
        The values of the columns of each property.
    """
    if not properties:
        return []
    # A region with one intensity (nan / 0), a line or a point is no news to users.
    with np.errstate(all="ignore"):
        region = _region(mask, pixels, low)
        return [_flat(_value(region, one.name, low)) for one in properties]


def _region(
    mask: npt.NDArray[np.bool_], pixels: npt.NDArray[Any] | None, low: tuple[int, int]
) -> Any:
    try:
        from skimage.measure import regionprops
    except ImportError as error:
        raise DependencyError(
            "properties are measured by the package scikit-image: "
            "install it with pip install 'bigunet[measure]'"
        ) from error
    return regionprops(mask.view(np.uint8), intensity_image=pixels, offset=low)[0]


def _value(region: Any, name: str, low: tuple[int, int]) -> Any:
    if name == "centroid_weighted":
        # The only place in a table where scikit-image leaves out where the region lies.
        return np.array(region["centroid_weighted_local"]) + np.reshape(low, (2, 1))
    return region[name]


def _flat(value: Any) -> list[Value]:
    values: list[Value] = np.asarray(value).reshape(-1).tolist()
    return values


def _find(name: str, channels: Sequence[str]) -> Property:
    shapes = [(3, 3), (4, 5)]
    with np.errstate(all="ignore"):
        values = [_probe(name, shape, len(channels)) for shape in shapes]
        of_image = _probe(name, shapes[0], 0) is None
    if values[0] is None or values[1] is None:
        raise InputError(f"property {name!r} is unknown{_alternatives(name)}")
    first, second = (np.asarray(value) for value in values)
    if first.dtype.kind not in "biuf" or first.shape != second.shape:
        raise InputError(
            f"property {name!r} is not a number, or some, for each object: it fits in no table"
        )
    kind: Kind = "number" if first.dtype.kind == "f" else "integer"
    columns = [
        Column(name=_column_name(name, i, of_image, channels), kind=kind)
        for i in np.ndindex(first.shape)
    ]
    return Property(name=name, columns=tuple(columns), of_image=of_image)


def _probe(name: str, shape: tuple[int, int], channels: int) -> Any:
    """Measure a small region; None where there is no such property."""
    pixels = np.zeros((*shape, channels), dtype=np.uint8) if channels else None
    region = _region(np.ones(shape, dtype=bool), pixels, (0, 0))
    known = name in list(region) or hasattr(type(region), name)  # not its outdated names
    if not known or name.startswith("_"):
        return None
    try:
        return region[name]
    except (AttributeError, KeyError):
        return None


def _column_name(name: str, index: tuple[int, ...], of_image: bool, channels: Sequence[str]) -> str:
    # The last axis of what depends on the image is that of the channels.
    parts = [*index[:-1], channels[index[-1]]] if of_image else index
    return "-".join([name, *map(str, parts)])


def _alternatives(name: str) -> str:
    region = _region(np.ones((3, 3), dtype=bool), np.zeros((3, 3, 1), dtype=np.uint8), (0, 0))
    near = difflib.get_close_matches(name, list(region), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f" to skimage.measure.regionprops{hint}"
