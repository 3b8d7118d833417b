"""Metadata files: what is believed, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bigunet.errors import InputError
from bigunet.images.groups import Group, checked_path, read_group
from bigunet.images.ngff import parse_labels


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../other/0",
        "a/../../b",
        "/etc",
        "C:/data",
        "..\\x",
        "\\\\host\\x",
        "",
        ".",
        "a\nb",
        3,
    ],
)
def test_level_paths_that_leave_are_refused(path: Any) -> None:
    with pytest.raises(InputError):
        checked_path(path)


def test_groups_of_both_formats(tmp_path: Path) -> None:
    assert read_group(tmp_path) is None
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    assert read_group(tmp_path) == Group(zarr_format=2, node="group", ome={}, attributes={})
    (tmp_path / ".zattrs").write_text('{"labels": ["a"]}')
    assert parse_labels(read_group(tmp_path).ome) == ("a",)
    # Where both are, Zarr v3 is taken, like zarr does.
    attributes = {"ome": {"version": "0.5"}, "other": 1}
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    assert read_group(tmp_path) == Group(
        zarr_format=3, node="group", ome={"version": "0.5"}, attributes=attributes
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"3"])
def test_metadata_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(InputError, match=r"zarr\.json"):
        read_group(tmp_path)
