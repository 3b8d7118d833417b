"""OME-Zarr metadata, versions 0.1 to 0.5, as plain facts; no pixel and no array is touched.

What differs between the versions ends here:

* 0.1 and 0.2 have five axes without names (t, c, z, y, x) and no scale;
* 0.3 names the axes;
* 0.4 gives them types and units, and every level a scale (and translation);
* 0.5 is 0.4 in Zarr v3, under the key ``ome``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bigunet.errors import InputError
from bigunet.images.groups import (
    Group,
    Json,
    checked_path,
    is_inner_path,
    listed,
    mapping,
    plain_text,
    read_group,
)
from bigunet.images.transformations import Numbers, combine_transformations

__all__ = [
    "PROVENANCE",
    "Axis",
    "Channel",
    "Dataset",
    "Group",
    "Multiscale",
    "parse_channels",
    "parse_labels",
    "parse_multiscale",
    "read_group",
]

PROVENANCE = "bigunet"
"""Key of the attributes that tells that bigunet wrote a result, and how."""

AXIS_ORDER = "tczyx"
AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of an image."""

    name: str
    """One of t, c, z, y, x."""
    type: str
    """time, channel or space."""
    unit: str | None = None
    """As the file spells it."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel of an image."""

    index: int
    name: str
    """From ``omero``; ``channel 0`` and so on where there is none."""
    color: str | None = None
    """RRGGBB."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A pyramid level as the metadata names it."""

    path: str
    """Relative to the group of the image."""
    scale: Numbers
    """Per axis, in the axis' unit; 1 where the file says nothing."""
    translation: Numbers
    """Per axis, in the axis' unit."""
    has_scale: bool
    """Whether the file gives this level a scale of its own."""


@dataclass(frozen=True, kw_only=True)
class Multiscale:
    """The first entry of ``multiscales``."""

    version: str
    """0.1 to 0.5."""
    axes: tuple[Axis, ...]
    datasets: tuple[Dataset, ...]

    @property
    def axis_names(self) -> str:
        """The axes as one word, such as ``czyx``."""
        return "".join(axis.name for axis in self.axes)


def parse_multiscale(group: Group) -> Multiscale:
    """Parse the first multiscale image of a group.

    Transformations of the levels and of the whole are combined to one scale and
    one translation per level.

    Raises
    ------
    InputError
        If the version is not one of 0.1 to 0.5, the axes are not t, c, z, y, x
        or some of them in this order, or a level or transformation is broken.
    """
    entries = group.ome.get("multiscales")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], Mapping):
        raise InputError("its multiscales metadata is not a list with an image")
    entry: Json = entries[0]
    version = _version(group, entry)
    axes = _axes(entry, version)
    # Transformations with an "output" are SpatialData's: alternatives, not parts of the pixel size.
    common = [t for t in listed(entry, "coordinateTransformations") if "output" not in mapping(t)]
    datasets = tuple(_dataset(d, common, len(axes)) for d in listed(entry, "datasets"))
    if not datasets:
        raise InputError("its multiscales metadata lists no level")
    return Multiscale(version=version, axes=axes, datasets=datasets)


def parse_channels(ome: Json, count: int) -> tuple[Channel, ...]:
    """Name `count` channels, by ``omero`` as far as it goes."""
    given = mapping(ome.get("omero")).get("channels")
    entries = given[:count] if isinstance(given, list) else []
    entries += [None] * (count - len(entries))
    return tuple(_channel(i, mapping(entry)) for i, entry in enumerate(entries))


def parse_labels(ome: Json) -> tuple[str, ...]:
    """List the label images that a ``labels`` group names; unusable entries are left out."""
    given = ome.get("labels")
    names = given if isinstance(given, list) else []
    return tuple(name for name in names if isinstance(name, str) and is_inner_path(name))


def _version(group: Group, entry: Json) -> str:
    given = group.ome.get("version") if group.zarr_format == 3 else entry.get("version")
    version = str(given) if given is not None else _guessed_version(group, entry)
    # 0.4.1 would be 0.4; a development version promises nothing.
    known = re.fullmatch(r"(0\.[1-5])(\.\d+)*", version)
    if known is None:
        raise InputError(
            f"OME-Zarr version {version!r} is not read, 0.1 to 0.5 are: convert the image to 0.5"
        )
    if (known[1] == "0.5") != (group.zarr_format == 3):
        raise InputError(
            f"it says OME-Zarr {known[1]} but is stored as Zarr v{group.zarr_format}: "
            "0.5 needs Zarr v3, older versions Zarr v2"
        )
    return known[1]


def _guessed_version(group: Group, entry: Json) -> str:
    if group.zarr_format == 3:
        return "0.5"
    axes = entry.get("axes")
    if not isinstance(axes, list) or not axes:
        return "0.1"
    return "0.4" if isinstance(axes[0], Mapping) else "0.3"


def _axes(entry: Json, version: str) -> tuple[Axis, ...]:
    given = list(AXIS_ORDER) if version in {"0.1", "0.2"} else listed(entry, "axes")
    axes = tuple(_axis(axis) for axis in given)
    names = [axis.name for axis in axes]
    legal = [name for name in AXIS_ORDER if name in names]
    if names != legal or names[-2:] != ["y", "x"]:
        raise InputError(
            f"its axes are {', '.join(names) or 'none'}; bigunet reads t, c, z, y, x in this "
            "order, where only y and x are needed"
        )
    return axes


def _axis(axis: Any) -> Axis:
    fields = axis if isinstance(axis, Mapping) else {"name": axis}
    name = plain_text(fields.get("name"))
    unit = fields.get("unit")
    return Axis(
        name=name,
        type=plain_text(fields.get("type") or AXIS_TYPES.get(name, "unknown")),
        unit=unit if isinstance(unit, str) and unit else None,
    )


def _dataset(dataset: Any, common: Iterable[Any], ndim: int) -> Dataset:
    fields = mapping(dataset)
    own = listed(fields, "coordinateTransformations")
    scale, translation = combine_transformations([*own, *common], ndim)
    return Dataset(
        path=checked_path(fields.get("path")),
        scale=scale,
        translation=translation,
        has_scale=any(mapping(t).get("type") == "scale" for t in own),
    )


def _channel(index: int, entry: Json) -> Channel:
    label, color = entry.get("label"), entry.get("color")
    name = "" if label is None else plain_text(label)
    return Channel(
        index=index,
        name=name or f"channel {index}",
        color=color if isinstance(color, str) and color else None,
    )
