"""A place for results, once it is decided on: made empty, filled by tasks, committed.

`Destination.create` makes empty arrays, tasks fill them with `write_window` and
`reduce_window`, and `commit_all` writes the metadata that make a result of them.
Arrays of objects are made once the objects are counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from bigunet.errors import OutputExistsError, RunError
from bigunet.images import commit
from bigunet.images.attributes import Color, result_attributes
from bigunet.images.commit import Place
from bigunet.images.output import Output, check_owned
from bigunet.images.refusals import unwritable
from bigunet.ledger import Ledger, Record, read_ledger

__all__ = [
    "OBJECT_CLASSES",
    "OBJECT_CUT",
    "Destination",
    "commit_all",
    "create_levels",
    "read_record",
]

OBJECT_CLASSES = "classes"
"""Array in the group of objects: the class of each, index = id, 0 of background."""

OBJECT_CUT = "cut"
"""Array in the group of objects that were made with a mask: 1 for each that it cuts."""

_CLASSES_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a run writes; planned, and nothing more until `create`."""

    name: str
    """Of the label, and of the image of its own."""
    place: Place
    """The group that appears when the run is committed."""
    run: str
    """Identity of this run."""
    replaces: bool
    """Whether there is a complete result, which stays readable until `commit`."""
    source: str
    """Path from the image of its own to the source image."""
    outputs: tuple[Output, ...]
    """What the run writes: objects, classes, probabilities, as far as they are saved."""

    @property
    def path(self) -> Path:
        """The group of the result once it is committed."""
        return self.place.target

    @property
    def root(self) -> Path:
        """The group of the result while the run goes on."""
        return self.place.replacement if self.replaces else self.place.target

    def with_ids(self, dtype: str) -> Destination:
        """Return the same place with ids of a type, by numpy's name."""
        outputs = tuple(
            replace(output, dtype=dtype) if output.kind == "objects" else output
            for output in self.outputs
        )
        return replace(self, outputs=outputs)

    def create(self) -> None:
        """Sweep what a killed run left and make the empty arrays, but those of objects.

        Raises
        ------
        OutputError
            If the place cannot be written to.
        OutputExistsError
            If a result appeared there since the plan was made.
        RunError
            If an array cannot be made.
        """
        try:
            commit.claim(self.place, self.run)
        except OSError as error:
            raise unwritable(self.place, _reason(error)) from error
        if commit.is_visible(self.place) != self.replaces:
            raise OutputExistsError(f"{self.path} has changed since the plan was made; run again")
        try:
            self.root.mkdir(exist_ok=True)
            for output in self.outputs[::-1]:
                output.path.mkdir(parents=True, exist_ok=True)
                commit.write_attributes(self.place, output.path, {})
                if output.kind != "objects":
                    create_levels(output)
        except OSError as error:
            raise RunError(f"cannot prepare {self.path}: {_reason(error)}") from error

    def unfinished(self) -> Record | None:
        """Return the record of a run that can go on here: made the same arrays, and no more."""
        outputs = [output for output in self.outputs if output.kind != "objects"]
        return read_record(self.place) if all(map(_has_array, outputs)) else None

    def begin(self, record: Record) -> Ledger:
        """Begin the ledger of this run with what is known; whoever wrote here before cannot any more.

        Raises
        ------
        RunError
            If it cannot be written.
        """
        try:
            ledger = Ledger(self.place.mark(self.run), record)
            commit.take_over(self.place, self.run)
        except OSError as error:
            raise RunError(f"cannot prepare {self.path}: {_reason(error)}") from error
        return ledger

    def commit(
        self,
        provenance: Mapping[str, Any],
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[Color] | None = None,
    ) -> None:
        """Make a result of what was written; see `commit_all`."""
        commit_all((self,), provenance, class_names, class_colors)

    def describe(
        self,
        provenance: Mapping[str, Any],
        class_names: Sequence[str] | None,
        class_colors: Sequence[Color] | None,
        objects: Mapping[str, Any] | None,
        object_classes: npt.NDArray[np.uint8] | None,
        object_cut: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Write the metadata of all outputs; the root's come last and open the door."""
        if not self.place.mark(self.run).exists():
            raise RunError(f"{self.path} was taken over by another run; start again, one at a time")
        _sweep_partial(self.root)
        for output in sorted(self.outputs, key=lambda output: output.path == self.root):
            made = provenance
            if output.kind == "objects" and object_classes is not None:
                made = {**provenance, "objects": objects}
                _write_classes(output, object_classes, class_names or (), class_colors or ())
                if object_cut is not None:
                    _write_cut(output, object_cut)
            self._describe(output, made, class_names, class_colors)

    def _describe(
        self,
        output: Output,
        provenance: Mapping[str, Any],
        class_names: Sequence[str] | None,
        class_colors: Sequence[Color] | None,
    ) -> None:
        is_inner = output.path != self.root
        attributes = result_attributes(
            output,
            name=output.path.name if is_inner else self.name,
            source="../../" if is_inner or self.place.listing else self.source,
            provenance=provenance,
            class_names=class_names,
            class_colors=class_colors,
        )
        commit.write_attributes(self.place, output.path, attributes)
        if is_inner:
            inner = replace(self.place, target=output.path, listing=output.path.parent)
            commit.list_label(inner, listed=True)


def commit_all(
    destinations: Sequence[Destination],
    provenance: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[Color] | None = None,
    objects: Mapping[str, Any] | None = None,
    object_classes: npt.NDArray[np.uint8] | None = None,
    object_cut: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Make results of what was written, by metadata, which readers see last.

    All new labels of an image appear in one step, for one file lists them; those
    that replace others appear just before, one by one, and each of them whole.

    Parameters
    ----------
    provenance : mapping
        How they were made: version, model, settings, intensity limits.
    class_names, class_colors : sequences, optional
        One for each class; colours as ``RRGGBB`` or integers of 0 to 255.
    objects : mapping, optional
        What else made the objects.
    object_classes : (N + 1,) uint8 array, optional
        Of each object, index = id.
    object_cut : (N + 1,) bool array, optional
        Whether a mask cuts it.

    Raises
    ------
    RunError
        If this fails; what is not listed then is replaced by the next run.
    """
    try:
        for destination in destinations:
            destination.describe(
                provenance, class_names, class_colors, objects, object_classes, object_cut
            )
        for destination in destinations:
            if destination.replaces:
                commit.swap(destination.place)
        commit.publish(*(destination.place for destination in destinations))
    except OSError as error:
        raise RunError(f"cannot commit {destinations[0].path}: {_reason(error)}") from error


def read_record(place: Place) -> Record | None:
    """Return the record of what is unfinished at a place; of several the fullest."""
    records = [record for mark in place.marks() if (record := read_ledger(mark)) is not None]
    return max(records, key=lambda record: (len(record.done), record.updated), default=None)


def create_levels(output: Output) -> None:
    """Make the empty arrays of all levels, anew where there are some.

    Raises
    ------
    RunError
        If one cannot be made, or another run took the place over.
    """
    check_owned(output)
    try:
        for level, shape in enumerate(output.shapes):
            others = (1,) * (len(shape) - 2)
            shards = None if output.shard is None else others + output.unit(level)
            chunks = others + output.level_chunk(level)
            _create_array(output, str(level), shape, chunks, tuple(output.axis_names), shards)
    except OSError as error:
        raise RunError(f"cannot prepare {output.final}: {_reason(error)}") from error


def _write_classes(
    output: Output,
    classes: npt.NDArray[np.uint8],
    class_names: Sequence[str],
    class_colors: Sequence[Color],
) -> None:
    """Write the class of each object, (N + 1,), beside the levels of objects."""
    array = _write_table(output, OBJECT_CLASSES, classes)
    array.attrs.update(
        {
            "description": "class of each object; the index is its id, 0 is background",
            "class_names": list(class_names),
            "class_colors": [
                color if isinstance(color, str) else [*color] for color in class_colors
            ],
        }
    )


def _write_cut(output: Output, cut: npt.NDArray[np.bool_]) -> None:
    """Write whether a mask cuts each object, (N + 1,), beside the levels of objects."""
    array = _write_table(output, OBJECT_CUT, cut.astype(np.uint8))
    array.attrs["description"] = "1 for each object that the mask cuts; the index is its id"


def _write_table(output: Output, name: str, values: npt.NDArray[np.uint8]) -> zarr.Array[Any]:
    output, chunk = replace(output, dtype="uint8"), min(values.size, _CLASSES_CHUNK)
    array = _create_array(output, name, values.shape, (chunk,), ("id",))
    array[:] = values
    return array


def _create_array(
    output: Output,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    axes: Sequence[str],
    shards: tuple[int, ...] | None = None,
) -> zarr.Array[Any]:
    """Make one empty array; its codec has a checksum, so a damaged chunk is noticed."""
    common: dict[str, Any] = {
        "store": output.path / name,
        "shape": shape,
        "chunks": chunks,
        "dtype": output.dtype,
        "fill_value": 0,
        "overwrite": True,
    }
    if output.zarr_format == 2:
        zstd: dict[str, Any] = {"id": "zstd", "level": 3, "checksum": True}
        return zarr.create_array(
            **common,
            zarr_format=2,
            filters=None,
            compressors=zstd,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
    return zarr.create_array(
        **common,
        zarr_format=3,
        shards=shards,
        compressors=ZstdCodec(level=3, checksum=True),
        dimension_names=tuple(axes),
    )


def _has_array(output: Output) -> bool:
    """Tell whether all levels of an output are there as they were planned."""
    try:
        arrays = [
            zarr.open_array(output.array_path(k), mode="r") for k in range(len(output.shapes))
        ]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        array.shape == shape
        and array.dtype == output.dtype
        and array.chunks[-2:] == output.level_chunk(k)
        and (array.shards or array.chunks)[-2:] == output.unit(k)
        for k, (array, shape) in enumerate(zip(arrays, output.shapes, strict=True))
    )


def _sweep_partial(root: Path) -> None:
    """Remove what killed writers left: zarr writes aside and renames."""
    for folder, _, files in os.walk(root):
        for file in files:
            if file.endswith(".partial"):
                Path(folder, file).unlink()


def _reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split())
