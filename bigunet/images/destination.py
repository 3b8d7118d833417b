"""A place for results, once it is decided on: made empty, filled by tasks, committed.

`Destination.create` makes empty arrays, tasks fill them with `write_window` and
`reduce_window`, and `Destination.commit` writes the metadata that make a result
of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import ZstdCodec

from bigunet.errors import OutputExistsError, RunError
from bigunet.images import commit
from bigunet.images.attributes import Color, result_attributes
from bigunet.images.commit import Place
from bigunet.images.output import Output
from bigunet.images.refusals import unwritable

__all__ = ["Destination"]


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
    """What the run writes: classes first."""

    @property
    def path(self) -> Path:
        """The group of the result once it is committed."""
        return self.place.target

    @property
    def root(self) -> Path:
        """The group of the result while the run goes on."""
        return self.place.replacement if self.replaces else self.place.target

    def create(self) -> None:
        """Sweep what a killed run left and make the empty arrays of all levels.

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
                for level in range(len(output.shapes)):
                    _create_array(output, level)
        except OSError as error:
            raise RunError(f"cannot prepare {self.path}: {_reason(error)}") from error

    def commit(
        self,
        provenance: Mapping[str, Any],
        class_names: Sequence[str] | None = None,
        class_colors: Sequence[Color] | None = None,
    ) -> None:
        """Make a result of what was written, by metadata, which readers see last.

        Parameters
        ----------
        provenance : mapping
            How it was made: version, model, settings, intensity limits.
        class_names, class_colors : sequences, optional
            One for each class; colours as ``RRGGBB`` or integers of 0 to 255.

        Raises
        ------
        RunError
            If this fails; the result is not listed then, and the next run replaces it.
        """
        if not self.place.mark(self.run).exists():
            raise RunError(f"{self.path} was taken over by another run; start again, one at a time")
        try:
            _sweep_partial(self.root)
            for output in self.outputs:
                self._describe(output, provenance, class_names, class_colors)
            if self.replaces:
                commit.swap(self.place)
            commit.publish(self.place)
        except OSError as error:
            raise RunError(f"cannot commit {self.path}: {_reason(error)}") from error

    def _describe(
        self,
        output: Output,
        provenance: Mapping[str, Any],
        class_names: Sequence[str] | None,
        class_colors: Sequence[Color] | None,
    ) -> None:
        """Write the metadata of one output; the root's come last and open the door."""
        is_inner = output.path != self.root
        attributes = result_attributes(
            output,
            name=self.name,
            source="../../" if is_inner or self.place.listing else self.source,
            provenance=provenance,
            class_names=class_names,
            class_colors=class_colors,
        )
        commit.write_attributes(self.place, output.path, attributes)
        if is_inner:
            inner = replace(self.place, target=output.path, listing=output.path.parent)
            commit.list_label(inner, listed=True)


def _create_array(output: Output, level: int) -> None:
    """Make one empty array; its codec has a checksum, so a damaged chunk is noticed."""
    shape = output.shapes[level]
    common: dict[str, Any] = {
        "store": output.array_path(level),
        "shape": shape,
        "chunks": (1,) * (len(shape) - 2) + output.unit(level),
        "dtype": output.dtype,
        "fill_value": 0,
    }
    if output.zarr_format == 2:
        zstd: dict[str, Any] = {"id": "zstd", "level": 3, "checksum": True}
        zarr.create_array(
            **common,
            zarr_format=2,
            filters=None,
            compressors=zstd,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
    else:
        zarr.create_array(
            **common,
            zarr_format=3,
            compressors=ZstdCodec(level=3, checksum=True),
            dimension_names=tuple(output.axis_names),
        )


def _sweep_partial(root: Path) -> None:
    """Remove what killed writers left: zarr writes aside and renames."""
    for folder, _, files in os.walk(root):
        for file in files:
            if file.endswith(".partial"):
                Path(folder, file).unlink()


def _reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split())
