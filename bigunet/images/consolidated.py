"""Consolidated metadata: copies of metadata in a group above, kept true after a change.

Zarr v2 keeps them in ``.zmetadata``, Zarr v3 inside the group's ``zarr.json``.
Only the entries of the changed node and those on the way to it are renewed:
reading a plate with thousands of wells anew would take long, and could change
what others chose to write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from bigunet.images.ngff import read_group

__all__ = ["METADATA", "ZarrFormat", "consolidated_above", "read_json", "refresh_consolidated"]

Json: TypeAlias = dict[str, Any]
ZarrFormat: TypeAlias = Literal[2, 3]

METADATA = {2: (".zgroup", ".zarray", ".zattrs"), 3: ("zarr.json",)}
"""Files that make a folder a Zarr group or array."""


def consolidated_above(folder: Path, zarr_format: ZarrFormat) -> list[Path]:
    """List the files of a group and of the groups above it that hold consolidated metadata."""
    found = []
    for group in (folder, *folder.parents):
        if not any((group / name).is_file() for name in METADATA[zarr_format]):
            break
        file = group / (".zmetadata" if zarr_format == 2 else "zarr.json")
        if _copies(read_json(file) or {}, zarr_format) is not None:
            found.append(file)
    return found


def refresh_consolidated(
    node: Path,
    zarr_format: ZarrFormat,
    write: Callable[[Path, Json], None],
    *,
    gone: bool = False,
) -> None:
    """Bring a group, which may be new or gone, up to date in all groups above it.

    Parameters
    ----------
    write : callable
        Replaces a file by new content in one step.
    gone : bool
        Whether to write as if the group were not there.
    """
    for file in consolidated_above(node.parent, zarr_format):
        content = read_json(file) or {}
        copies = _copies(content, zarr_format) or {}
        key = node.relative_to(file.parent).as_posix()
        for stale in [k for k in copies if k == key or k.startswith(f"{key}/")]:
            del copies[stale]
        for folder in [*_between(file.parent, node), *([] if gone else _nodes(node))]:
            copies |= _entries(folder, folder.relative_to(file.parent).as_posix(), zarr_format)
        write(file, content)


def read_json(file: Path) -> Json | None:
    """Read a metadata file; None where there is none."""
    return json.loads(file.read_bytes()) if file.is_file() else None


def _copies(content: Json, zarr_format: ZarrFormat) -> Json | None:
    """Find the part of a metadata file that copies others, by their path."""
    holder = content if zarr_format == 2 else content.get("consolidated_metadata")
    copies = holder.get("metadata") if isinstance(holder, Mapping) else None
    return copies if isinstance(copies, dict) else None


def _between(group: Path, node: Path) -> Iterator[Path]:
    """Go through the groups on the way from one group to a node, both left out."""
    steps = node.relative_to(group).parts[:-1]
    for step in steps:
        group = group / step
        yield group


def _nodes(folder: Path) -> Iterator[Path]:
    """Go through the groups and arrays from a folder down."""
    group = read_group(folder)
    if group is None:
        return
    yield folder
    if group.node == "group":
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.name.startswith("."):
                yield from _nodes(child)


def _entries(folder: Path, key: str, zarr_format: ZarrFormat) -> Json:
    """Copy the metadata of one group or array."""
    if zarr_format == 2:
        files = {name: read_json(folder / name) for name in METADATA[2]}
        return {f"{key}/{name}": value for name, value in files.items() if value is not None}
    content = read_json(folder / "zarr.json")
    if content is None:
        return {}
    if content.get("node_type") == "group":
        # As zarr-python writes it: all entries stand in the outermost group.
        inner = {"kind": "inline", "must_understand": False, "metadata": {}}
        content = content | {"consolidated_metadata": inner}
    return {key: content}
