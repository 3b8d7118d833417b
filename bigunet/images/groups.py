"""What the metadata files of Zarr groups and arrays say, and how far they are believed.

The files are made by others and may lie: whatever is not as it must be is an
`InputError` of one line, and what is optional and unusable is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeAlias

from bigunet.errors import InputError

__all__ = [
    "Group",
    "Json",
    "checked_path",
    "is_inner_path",
    "listed",
    "mapping",
    "one_line",
    "parse_paths",
    "plain_text",
    "read_group",
]

Json: TypeAlias = Mapping[str, Any]


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
        attributes = mapping(content.get("attributes"))
        node: Literal["group", "array"] = (
            "array" if content.get("node_type") == "array" else "group"
        )
        ome = mapping(attributes.get("ome"))
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


def parse_paths(entries: Any) -> tuple[str, ...]:
    """Take the paths out of the wells of a plate, the images of a well or a list of series."""
    found = entries if isinstance(entries, list) else []
    paths = [e.get("path") if isinstance(e, Mapping) else e for e in found]
    return tuple(path for path in paths if isinstance(path, str) and is_inner_path(path))


def checked_path(path: Any) -> str:
    """Refuse a path that is not a plain one, or that leads out of its group."""
    if not isinstance(path, str) or not path:
        raise InputError(f"a level has no path but {path!r}")
    if not is_inner_path(path):
        raise InputError(f"its level path {path!r} leaves the store; it is not read")
    return path


def is_inner_path(path: str) -> bool:
    """Whether a path stays in its group, whatever system it was written for."""
    parts = PurePosixPath(path).parts
    windows = PureWindowsPath(path)
    leaves = ".." in parts or ".." in windows.parts or bool(windows.anchor)
    return bool(parts) and parts[0] != "/" and path.isprintable() and not leaves


def plain_text(text: Any) -> str:
    """One line without control characters, whatever the file holds."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()


def mapping(value: Any) -> Json:
    """Return the value, or an empty mapping in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def listed(fields: Json, key: str) -> list[Any]:
    """Return the list under a key, an empty one where there is none."""
    value = fields.get(key)
    if value is not None and not isinstance(value, list):
        raise InputError(f"its {key} metadata is not a list")
    return value or []


def one_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _read_json(file: Path) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a JSON object")
    return content
