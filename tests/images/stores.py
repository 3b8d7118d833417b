"""OME-Zarr images made for tests, and what an honest reader sees of their labels."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from bigunet.images.labels import Destination, plan_destination, write_window
from bigunet.images.open import open_image
from bigunet.images.pyramid import pyramid_tasks, reduce_window

PROVENANCE = {"version": "0.1.0", "model": "sha256:0", "settings": {"block": 64}}
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SIZES = {"t": 2, "c": 3, "z": 2, "y": 50, "x": 37}


def write_image(
    path: Path,
    axes: str = "yx",
    version: str = "0.5",
    levels: int = 3,
    *,
    consolidated: bool = False,
    translation: tuple[float, ...] | None = None,
    sizes: dict[str, int] | None = None,
) -> Path:
    """Write a small image with a scale of 0.5 micrometers in y and x."""
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(path, zarr_format=zarr_format)
    shape = [(SIZES | (sizes or {}))[a] for a in axes]
    datasets = []
    for k in range(levels):
        level_shape = tuple(
            -(-n >> k) if a in "yx" else n for a, n in zip(axes, shape, strict=True)
        )
        names = {"dimension_names": tuple(axes)} if zarr_format == 3 else {}
        array = group.create_array(
            f"s{k}", shape=level_shape, chunks=level_shape, dtype="uint8", **names
        )
        array[:] = k + 1
        scale = [0.5 * 2**k if a in "yx" else 1.0 for a in axes]
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if translation:
            transforms.append({"type": "translation", "translation": list(translation)})
        datasets.append({"path": f"s{k}", "coordinateTransformations": transforms})
    units = {"y": "micrometer", "x": "micrometer"}
    described = [
        {"name": a, "type": TYPES[a]} | ({"unit": units[a]} if a in units else {}) for a in axes
    ]
    multiscale = {"axes": described, "datasets": datasets, "name": "image"}
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    else:
        group.attrs["multiscales"] = [multiscale | {"version": version}]
    if consolidated:
        consolidate(path)
    return path


def consolidate(path: Path) -> None:
    with warnings.catch_warnings():
        # zarr-python warns that Zarr v3 does not know consolidated metadata yet.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)


def plan(path: Path, level: int = 0, **options: Any) -> Destination:
    options = {"name": "nuclei", "chunk": (16, 8), "classes": 3} | options
    return plan_destination(open_image(path), level, **options)


def fill(destination: Destination, value: int = 1) -> None:
    """Write every output whole: a gradient times `value`, then all its levels."""
    for output in destination.outputs:
        height, width = output.shapes[0][-2:]
        plane = (np.add.outer(np.arange(height), np.arange(width)) % 2 * value).astype(np.uint8)
        data = np.stack([plane] * output.channels) if "c" in output.axis_names else plane
        for index in np.ndindex(output.planes):
            write_window(output, 0, index, slice(0, height), slice(0, width), data)
        for level in range(1, len(output.shapes)):
            for task in pyramid_tasks(output, level):
                reduce_window(output, level, *task)


def run(path: Path, value: int = 1, level: int = 0, **options: Any) -> Destination:
    destination = plan(path, level, **options)
    destination.create()
    fill(destination, value)
    destination.commit(PROVENANCE, ["background", "nucleus", "border"])
    return destination


def metadata(folder: Path) -> dict[str, Any] | None:
    """Attributes of a group, read as plain files; those under ``ome`` in Zarr v3."""
    if (folder / "zarr.json").exists():
        attributes = json.loads((folder / "zarr.json").read_text())["attributes"]
        return attributes.get("ome", {}) | {k: v for k, v in attributes.items() if k != "ome"}
    if not (folder / ".zgroup").exists():
        return None
    file = folder / ".zattrs"
    return json.loads(file.read_text()) if file.exists() else {}


def seen_label(image: Path, name: str) -> np.ndarray | None:
    """Level 0 of a label as a reader finds it; None where it is not listed.

    A label that has ``multiscales`` must be whole, listed or not: all its arrays
    are there.
    """
    listed = name in (metadata(image / "labels") or {}).get("labels", [])
    own = metadata(image / "labels" / name)
    if own is None or "multiscales" not in own:
        return None
    arrays = [
        zarr.open_array(image / "labels" / name / d["path"], mode="r")[:]
        for d in own["multiscales"][0]["datasets"]
    ]
    return arrays[0] if listed else None


def consolidated_view(path: Path) -> dict[str, Any]:
    """Return what consolidated metadata says of every node: attributes, and shape of arrays."""
    group = zarr.open_group(path, mode="r", use_consolidated=True)
    assert group.metadata.consolidated_metadata is not None
    members = dict(group.members(max_depth=None))
    return {
        key: (node.attrs.asdict(), getattr(node, "shape", None)) for key, node in members.items()
    }
