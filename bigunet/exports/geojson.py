"""Objects as GeoJSON, the way QuPath writes and reads it.

A feature is a detection: its outline in pixels of level 0, its class, its area. QuPath
adds the plane to the geometry where it is not the first one.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from bigunet.exports.identity import label_identity, object_uuid
from bigunet.images.classification import Classification, read_classification
from bigunet.images.frames import LabelFrame, label_frame
from bigunet.images.image import Image
from bigunet.instances.outlines import Polygon, mask_polygons, piece_polygons
from bigunet.instances.whole import WholeObject
from bigunet.walk import LargeObject, Window

__all__ = ["FeatureMaker", "feature_maker", "write_collection"]

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMaker:
    """Makes a feature, as the bytes of a line of JSON, of every object it visits."""

    label: uuid.UUID
    axes: str
    """Axes of the label other than y and x."""
    frame: LabelFrame
    pixel_area: float | None
    """Of level 0, in square micrometres."""
    classification: Classification

    def visit(
        self, plane: tuple[int, ...], window: Window, objects: Iterable[WholeObject]
    ) -> Iterator[bytes]:
        """Make the features of objects that were read whole."""
        for one in objects:
            outline = mask_polygons(one.mask)
            yield self._feature(one.id, plane, outline, one.low, int(one.mask.sum()))

    def visit_large(self, large: LargeObject) -> bytes:
        """Make the feature of an object that is read in pieces: it is whole nevertheless."""
        outline = piece_polygons((piece.low, piece.mask) for piece in large.pieces())
        return self._feature(large.id, large.plane, outline, (0, 0), large.area)

    def _feature(
        self,
        number: int,
        plane: tuple[int, ...],
        outline: list[Polygon],
        low: tuple[int, int],
        pixels: int,
    ) -> bytes:
        feature = {
            "type": "Feature",
            "id": str(object_uuid(self.label, plane, number)),
            "geometry": self._geometry(outline, low) | self._plane(plane),
            "properties": {
                "objectType": "detection",
                "name": str(number),
                **self._class(number),
                "measurements": self._measurements(pixels),
            },
        }
        return _encode(feature).encode()

    def _geometry(self, outline: list[Polygon], low: tuple[int, int]) -> dict[str, Any]:
        scale = np.array([_whole(by) for by in self.frame.scale[::-1]])
        corners = [[((ring + low[::-1]) * scale).tolist() for ring in part] for part in outline]
        if len(corners) == 1:
            return {"type": "Polygon", "coordinates": corners[0]}
        return {"type": "MultiPolygon", "coordinates": corners}

    def _plane(self, index: tuple[int, ...]) -> dict[str, Any]:
        if not any(index):
            return {}
        where = dict(zip(self.axes, self.frame.plane(index), strict=True))
        return {"plane": {"c": -1, "z": where.get("z", 0), "t": where.get("t", 0)}}

    def _class(self, number: int) -> dict[str, Any]:
        found = self.classification.of(number)
        return {"classification": {"name": found.name, "color": found.color}} if found else {}

    def _measurements(self, pixels: int) -> dict[str, float]:
        area = _whole(pixels * self.frame.scale[0] * self.frame.scale[1])
        # The names are those that QuPath gives to its own.
        metric = {} if self.pixel_area is None else {"Area µm^2": area * self.pixel_area}
        return {"Area px^2": area, **metric}


def feature_maker(image: Image, labels: Image) -> FeatureMaker:
    """Prepare to make the features of a label.

    Raises
    ------
    InputError
        If the label has the shape of no level of the image.
    RunError
        If the classes of its objects cannot be read.
    """
    side = image.pixel_size(0)
    return FeatureMaker(
        label=label_identity(image, labels),
        axes=labels.axis_names[:-2],
        frame=label_frame(image, labels),
        pixel_area=None if side is None else side**2,
        classification=read_classification(labels),
    )


def write_collection(path: Path, features: Iterable[list[bytes]], *, zipped: bool) -> int:
    """Write a collection of features as they come, one a line; returns their number."""
    count = 0
    with _opened(path, zipped=zipped) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        for some in features:
            for feature in some:
                file.write(b",\n" if count else b"\n")
                file.write(feature)
                count += 1
        file.write(b"\n]}\n")
    return count


@contextmanager
def _opened(path: Path, *, zipped: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if not zipped:
            yield file
            return
        # Neither name nor time: the same objects give the same bytes.
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as archive:
            # A GzipFile is written to as any file, but is not declared as one.
            yield archive  # type: ignore[misc]


def _whole(number: float) -> float:
    """Return a whole number as an integer: exact, and short in JSON."""
    return int(number) if number == int(number) else number
