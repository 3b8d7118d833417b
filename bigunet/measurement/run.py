"""``bigunet measure``: what is measured of which pixels, and the table that is written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from bigunet import __version__
from bigunet.cluster import Where, available_memory, check_scheduler, open_executor
from bigunet.errors import InputError
from bigunet.files import check_new_file
from bigunet.images.classification import read_classification
from bigunet.images.frames import LabelFrame, label_frame
from bigunet.images.image import Image, check_chunk_memory
from bigunet.images.open import image_planes, open_image, open_labels, read_provenance
from bigunet.images.selection import choose_channels
from bigunet.images.transformations import micrometres
from bigunet.measurement.properties import DEFAULT, Property, find_properties
from bigunet.measurement.rows import Rows
from bigunet.measurement.table import check_format, open_table
from bigunet.measurement.visitor import Measurer, Planes
from bigunet.walk import LARGEST_BOX, walk_objects

__all__ = ["Measurement", "measure_objects"]

Units: TypeAlias = Literal["auto", "px", "um"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was written."""

    path: Path
    objects: int
    """Rows of the table."""
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    """What a reader of the table should know."""
    seconds: float

    def lines(self) -> list[str]:
        """Return the file, and how many objects it has."""
        speed = self.objects / max(self.seconds, 1e-9)
        return [
            f"{self.objects:,} objects in {self.seconds:.1f} s ({speed:,.0f} objects/s)",
            *self.notes,
            str(self.path),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "path": str(self.path),
            "objects": self.objects,
            "columns": list(self.columns),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def measure_objects(
    path: str | os.PathLike[str],
    labels: str,
    output: str | os.PathLike[str] | None = None,
    *,
    properties: Sequence[str] | None = None,
    channels: Sequence[int | str] | None = None,
    units: Units = "auto",
    overwrite: bool = False,
    scheduler: Where | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Measure all objects of a label, and write a table with a row for each.

    An object is all pixels of one id in one plane. Rows are in raster order of the objects'
    first pixels, plane by plane. The table does not depend on chunks or workers.

    Parameters
    ----------
    path : path
        OME-Zarr image, local, whose intensities are measured: on the level that has the
        shape of the labels.
    labels : str
        Name of labels inside the image, or path of a label image elsewhere.
    output : path, optional
        Ends in .parquet or .csv; by default the name of the labels with .parquet, in the
        current folder.
    properties : sequence of str, optional
        Of `skimage.measure.regionprops`, beside those that every row has; in pixels of the
        labels. By default `bigunet.measurement.properties.DEFAULT`.
    channels : sequence of int or str, optional
        Whose intensities are measured, by index or name; all by default.
    units : {"auto", "px", "um"}
        Micrometres beside pixels where the image has a unit of length, never, or always.
    overwrite : bool
        Whether `output` may be replaced.
    scheduler : {"threads", "sync", "processes"}, address or file
        Where objects are measured.
    workers : int, optional
        Blocks of the label at once.
    progress : callable, optional
        Called with the pixels measured so far, and in all.

    Returns
    -------
    Measurement

    Raises
    ------
    NotFoundError
        If there is no such image, or it has no such labels.
    InputError
        If the labels are not of integers or have the shape of no level, a property or channel
        is unknown, or micrometres are asked for and the image has no unit of length.
    OutputExistsError, OutputError
        If `output` is there already or cannot be written.
    DependencyError
        If scikit-image, or pyarrow for Parquet, is not installed.
    RunError
        If it began and could not be finished; `output` is as it was.
    """
    began = time.monotonic()
    check_scheduler(scheduler)
    image = open_image(path)
    label = open_labels(image, labels)
    out = Path(output or f"{label.path.name}.parquet").expanduser().absolute()
    check_format(out)
    check_new_file(out, overwrite=overwrite)
    measurer = _measurer(image, label, properties, channels)
    rows = _rows(image, label, measurer, units)
    check_chunk_memory(label, 0, available_memory())
    objects, large = 0, 0
    with open_executor(scheduler, workers) as executor:
        planes = image_planes(label, 0, (0,))
        found = walk_objects(planes, measurer, executor, largest_box=LARGEST_BOX, progress=progress)
        with open_table(out, rows.columns, _facts(image, label, rows)) as table:
            for some in found:
                table.write(rows.row(one) for one in some)
                objects, large = objects + len(some), large + sum(one.large for one in some)
    return Measurement(
        path=out,
        objects=objects,
        columns=tuple(column.name for column in rows.columns),
        notes=tuple(_notes(rows, large)),
        seconds=time.monotonic() - began,
    )


def _measurer(
    image: Image,
    label: Image,
    properties: Sequence[str] | None,
    channels: Sequence[int | str] | None,
) -> Measurer:
    """Choose properties, and the planes that they are measured on."""
    frame = label_frame(image, label)
    names = DEFAULT if properties is None else tuple(properties)
    wanted = range(len(image.channels)) if channels is None else channels
    chosen = choose_channels(image, list(wanted), len(wanted))
    found = find_properties(names, _channel_names(image, chosen))
    if properties is None and channels is None and _is_probabilities(image):
        # What they say of an object is its probability.
        found = tuple(one for one in found if not one.of_image)
    classification = read_classification(label)
    return Measurer(
        properties=found,
        image=_planes(image, frame, label, chosen) if _any_of_image(found) else {},
        probabilities={} if classification.numbers is None else _probabilities(image, label),
        classification=classification,
    )


def _rows(image: Image, label: Image, measurer: Measurer, units: Units) -> Rows:
    sides = None if units == "px" else _pixel_sides(image)
    if sides is None and units == "um":
        raise InputError(
            f"{image.path} gives no unit of length, so nothing can be told in micrometres; "
            "leave the units out to have pixels"
        )
    height, width = image.levels[0].shape[-2:]
    return Rows(
        axes=label.axis_names[:-2],
        frame=label_frame(image, label),
        shape=(height, width),
        micrometres=sides,
        classification=measurer.classification,
        probability=bool(measurer.probabilities),
        properties=measurer.properties,
    )


def _pixel_sides(image: Image) -> tuple[float, float] | None:
    """Return the sides (y, x) of a pixel of level 0 in micrometres, where they are known."""
    y, x = (micrometres(axis.unit) for axis in image.axes[-2:])
    if y is None or x is None:
        return None
    return image.levels[0].scale[-2] * y, image.levels[0].scale[-1] * x


def _channel_names(image: Image, chosen: Sequence[int]) -> list[str]:
    """Return names of channels for columns; numbers where names are none, or not unique."""
    names = [channel.name for channel in image.channels]
    plain = [name == f"channel {i}" or names.count(name) > 1 for i, name in enumerate(names)]
    return [str(i) if plain[i] else names[i] for i in chosen]


def _any_of_image(properties: Sequence[Property]) -> bool:
    return any(one.of_image for one in properties)


def _planes(image: Image, frame: LabelFrame, label: Image, channels: Sequence[int]) -> Planes:
    """List the planes of an image by the planes of a label that lie on them."""
    check_chunk_memory(image, frame.level, available_memory())
    pairs = zip(
        image_planes(label, 0, (0,)), image_planes(image, frame.level, channels), strict=True
    )
    return {of_label.index: of_image for of_label, of_image in pairs}


def _probabilities(image: Image, label: Image) -> Planes:
    """Find class probabilities: the image itself, or the one that holds the label."""
    holder = label.path.parent.parent
    inside = label.path.parent.name == "labels" and holder != image.path
    for one in (image, *([open_image(holder)] if inside else [])):
        if _is_probabilities(one):
            every = range(len(one.channels))
            return _planes(one, label_frame(one, label), label, every)
    return {}


def _is_probabilities(image: Image) -> bool:
    """Tell whether this is what ``bigunet segment --save probabilities`` writes."""
    is_bytes = np.dtype(image.levels[0].dtype) == np.uint8
    return read_provenance(image) is not None and is_bytes and "c" in image.axis_names


def _facts(image: Image, label: Image, rows: Rows) -> dict[str, str]:
    facts = {
        "version": __version__,
        "image": image.name,
        "labels": label.path.name,
        "level": rows.frame.level,
        "micrometres": rows.micrometres,
    }
    return {"bigunet": json.dumps(facts)}


def _notes(rows: Rows, large: int) -> list[str]:
    notes = []
    if rows.frame.level and rows.properties:
        notes.append(
            f"properties of shape are in pixels of level {rows.frame.level}; areas, centroids "
            "and boxes are in pixels of level 0"
        )
    if large:
        notes.append(
            f"{large} objects have boxes of more than {LARGEST_BOX / 1e6:.1f} Mpx: properties "
            "that do not add up from pieces, such as the perimeter, are empty for them"
        )
    return notes
