"""OME-Zarr metadata, versions 0.1 to 0.5, as plain facts; no pixel and no array is touched.

What differs between the versions ends here:

* 0.1 and 0.2 have five axes without names (t, c, z, y, x) and no scale;
* 0.3 names the axes;
* 0.4 gives them types and units, and every level a scale (and translation);
* 0.5 is 0.4 in Zarr v3, under the key ``ome``.

The files are made by others and may lie: whatever is not as it must be is an
`InputError` of one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeAlias

from bigunet.errors import InputError

__all__ = [
    "Axis",
    "Channel",
    "Dataset",
    "Group",
    "Multiscale",
    "checked_path",
    "micrometres",
    "parse_channels",
    "parse_labels",
    "parse_multiscale",
    "parse_paths",
    "read_group",
    "relative_scales",
]

Json: TypeAlias = Mapping[str, Any]
Numbers: TypeAlias = tuple[float, ...]

AXIS_ORDER = "tczyx"
AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}

LARGEST = 1e100
"""Of the numbers in a transformation; JSON has integers of any length, and NaN."""

MICROMETRES = {
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "decimeter": 1e5,
    "meter": 1e6,
    "kilometer": 1e9,
    "inch": 25_400.0,
    "foot": 304_800.0,
    "yard": 914_400.0,
}
"""Units of length, as NGFF spells them."""
UNIT_ALIASES = {
    "pm": "picometer",
    "å": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # the micro sign
    "μm": "micrometer",  # the Greek letter
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}
"""Spellings that writers use although the specification has only the long ones."""


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


@dataclass(frozen=True, kw_only=True)
class Group:
    """What the metadata file of a folder says."""

    zarr_format: Literal[2, 3]
    node: Literal["group", "array"]
    ome: Json
    """The attributes; in Zarr v3 those under the key ``ome``."""
    attributes: Json
    """All attributes."""


def read_group(folder: Path) -> Group | None:
    """Read the metadata of a Zarr group or array; None where the folder is neither.

    Raises
    ------
    InputError
        If the metadata file is there but is not what it should be.
    """
    if (folder / "zarr.json").is_file():
        content = _read_json(folder / "zarr.json")
        attributes = _mapping(content.get("attributes"))
        node: Literal["group", "array"] = (
            "array" if content.get("node_type") == "array" else "group"
        )
        ome = _mapping(attributes.get("ome"))
        return Group(zarr_format=3, node=node, ome=ome, attributes=attributes)
    is_array = (folder / ".zarray").is_file()
    if not is_array and not (folder / ".zgroup").is_file():
        return None
    attributes = _read_json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
    return Group(
        zarr_format=2,
        node="array" if is_array else "group",
        ome=attributes,
        attributes=attributes,
    )


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
    common = [t for t in _list(entry, "coordinateTransformations") if "output" not in _mapping(t)]
    datasets = tuple(_dataset(d, common, len(axes)) for d in _list(entry, "datasets"))
    if not datasets:
        raise InputError("its multiscales metadata lists no level")
    return Multiscale(version=version, axes=axes, datasets=datasets)


def parse_channels(ome: Json, count: int) -> tuple[Channel, ...]:
    """Name `count` channels, by ``omero`` as far as it goes."""
    listed = _mapping(ome.get("omero")).get("channels")
    entries = listed if isinstance(listed, list) else []
    entries = entries[:count] + [None] * (count - len(entries))
    return tuple(_channel(i, _mapping(entry)) for i, entry in enumerate(entries))


def parse_labels(ome: Json) -> tuple[str, ...]:
    """List the label images that a ``labels`` group names; unusable entries are left out."""
    listed = ome.get("labels")
    names = listed if isinstance(listed, list) else []
    return tuple(name for name in names if isinstance(name, str) and _is_inner(name))


def parse_paths(entries: Any) -> tuple[str, ...]:
    """Take the paths out of the wells of a plate, the images of a well or a list of series."""
    found = entries if isinstance(entries, list) else []
    paths = [e.get("path") if isinstance(e, Mapping) else e for e in found]
    return tuple(path for path in paths if isinstance(path, str) and _is_inner(path))


def checked_path(path: Any) -> str:
    """Refuse a path that is not a plain one, or that leads out of its group."""
    if not isinstance(path, str) or not path:
        raise InputError(f"a level has no path but {path!r}")
    if not _is_inner(path):
        raise InputError(f"its level path {path!r} leaves the store; it is not read")
    return path


def micrometres(unit: str | None) -> float | None:
    """Micrometres in one `unit`; None where it is no length.

    Examples
    --------
    >>> micrometres("nanometer")
    0.001
    """
    plain = (unit or "").strip().lower().replace("metre", "meter")
    plain = plain.removesuffix("s") if plain.endswith(("meters", "microns")) else plain
    return MICROMETRES.get(UNIT_ALIASES.get(plain, plain))


def relative_scales(shapes: Sequence[Sequence[int]]) -> tuple[Numbers, ...]:
    """Scales of levels, in pixels of the first, from nothing but their shapes.

    A whole number is taken wherever it explains the shape (439 → 219 is 2).

    Examples
    --------
    >>> relative_scales([(3, 439), (3, 219), (3, 109)])
    ((1.0, 1.0), (1.0, 2.0), (1.0, 4.0))
    """
    first = shapes[0]
    return tuple(tuple(_ratio(a, b) for a, b in zip(first, s, strict=True)) for s in shapes)


def _ratio(whole: int, part: int) -> float:
    factor = max(1, round(whole / part))
    fits = whole // factor <= part <= -(-whole // factor)
    return float(factor) if fits else whole / part


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
    given = list(AXIS_ORDER) if version in {"0.1", "0.2"} else _list(entry, "axes")
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
    name = _plain(fields.get("name"))
    unit = fields.get("unit")
    return Axis(
        name=name,
        type=_plain(fields.get("type") or AXIS_TYPES.get(name, "unknown")),
        unit=unit if isinstance(unit, str) and unit else None,
    )


def _dataset(dataset: Any, common: Iterable[Any], ndim: int) -> Dataset:
    fields = _mapping(dataset)
    own = _list(fields, "coordinateTransformations")
    scale, translation = (1.0,) * ndim, (0.0,) * ndim
    for transformation in [*own, *common]:
        scale, translation = _applied(_mapping(transformation), scale, translation)
    if min(scale[-2:]) < 1 / LARGEST or max(map(abs, scale + translation)) > LARGEST:
        raise InputError(f"its scale {list(scale)} is not above 0 and finite in y and x")
    return Dataset(
        path=checked_path(fields.get("path")),
        scale=scale,
        translation=translation,
        has_scale=any(_mapping(t).get("type") == "scale" for t in own),
    )


def _applied(transformation: Json, scale: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
    """Follow ``x * scale + shift`` by one more transformation."""
    kind = transformation.get("type")
    if kind == "identity":
        return scale, shift
    if kind not in {"scale", "translation"}:
        raise InputError(f"a coordinate transformation of type {kind!r} is not read")
    values = _numbers(transformation.get(kind), kind, len(scale))
    if kind == "translation":
        return scale, tuple(s + v for s, v in zip(shift, values, strict=True))
    by = tuple(zip(scale, shift, values, strict=True))
    return tuple(s * v for s, _, v in by), tuple(t * v for _, t, v in by)


def _numbers(values: Any, kind: str, ndim: int) -> Numbers:
    found = values if isinstance(values, list) else []
    numbers = [v for v in found if isinstance(v, int | float) and abs(v) <= LARGEST]
    if len(numbers) != len(found) or len(found) != ndim:
        raise InputError(f"its {kind} {values!r} is not {ndim} finite numbers, one for each axis")
    return tuple(float(v) for v in numbers)


def _channel(index: int, entry: Json) -> Channel:
    label, color = entry.get("label"), entry.get("color")
    name = "" if label is None else _plain(label)
    return Channel(
        index=index,
        name=name or f"channel {index}",
        color=color if isinstance(color, str) and color else None,
    )


def _is_inner(path: str) -> bool:
    parts = PurePosixPath(path).parts
    windows = PureWindowsPath(path)
    leaves = ".." in parts or ".." in windows.parts or bool(windows.anchor)
    return bool(parts) and parts[0] != "/" and path.isprintable() and not leaves


def _plain(text: Any) -> str:
    """One line without control characters, whatever the file holds."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()


def _mapping(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _list(fields: Json, key: str) -> list[Any]:
    value = fields.get(key)
    if value is not None and not isinstance(value, list):
        raise InputError(f"its {key} metadata is not a list")
    return value or []


def _read_json(file: Path) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} cannot be read as JSON: {reason}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a JSON object")
    return content
