"""A block's record as plain arrays with names, as they are kept on disk, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.instances.block import BlockRecord, Extents, Face

__all__ = ["record_arrays", "record_from_arrays"]

Array: TypeAlias = npt.NDArray[Any]

_EXTENTS = ("area", "low", "high")
_FACE = ("start", "length", "label")


def record_arrays(record: BlockRecord) -> dict[str, Array]:
    """Return what a record is made of, by name; faces without a run are left out."""
    arrays = {"first": record.first, "axes": np.array(len(record.faces))}
    if record.value is not None:
        arrays["value"] = record.value
    if record.extents is not None:
        arrays |= {name: getattr(record.extents, name) for name in _EXTENTS}
    for axis, faces in enumerate(record.faces):
        for side, face in enumerate(faces):
            if face.start.size:
                arrays |= {f"face-{axis}-{side}-{name}": getattr(face, name) for name in _FACE}
    return arrays


def record_from_arrays(arrays: Mapping[str, Array]) -> BlockRecord:
    """Return the record whose arrays these are.

    Raises
    ------
    KeyError
        One is missing.
    """
    return BlockRecord(
        first=arrays["first"],
        faces=tuple(
            (_face(arrays, axis, 0), _face(arrays, axis, 1)) for axis in range(int(arrays["axes"]))
        ),
        value=arrays.get("value"),
        extents=Extents(**{name: arrays[name] for name in _EXTENTS}) if "area" in arrays else None,
    )


def _face(arrays: Mapping[str, Array], axis: int, side: int) -> Face:
    name = f"face-{axis}-{side}"
    if f"{name}-start" not in arrays:
        none = np.zeros(0, np.int64)
        return Face(start=none, length=none.astype(np.int32), label=none.astype(np.int32))
    return Face(**{part: arrays[f"{name}-{part}"] for part in _FACE})
