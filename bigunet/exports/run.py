"""``bigunet export``: which file is asked for, and how it is made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bigunet.cluster import Where, available_memory, check_scheduler, open_executor
from bigunet.errors import InputError
from bigunet.exports.geojson import feature_maker, write_collection
from bigunet.exports.identity import label_identity
from bigunet.exports.tiff import load_tifffile, write_label_tiff
from bigunet.files import check_new_file, written_aside
from bigunet.images.frames import label_frame
from bigunet.images.image import Image, check_chunk_memory
from bigunet.images.open import image_planes, open_image, open_labels
from bigunet.walk import walk_objects

__all__ = ["Export", "export_labels"]

GEOJSON = (".geojson", ".geojson.gz")
TIFF = (".ome.tif", ".ome.tiff")
SIDE = 1024
"""Most that a block has on a side where outlines are made, in pixels."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written."""

    path: Path
    objects: int | None
    """Outlines in a GeoJSON; None of a TIFF, where nobody counts them."""
    seconds: float

    def lines(self) -> list[str]:
        """Return the file, and how many objects it has."""
        what = "the label" if self.objects is None else f"{self.objects:,} objects"
        return [f"{what} in {self.seconds:.1f} s", str(self.path)]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "path": str(self.path),
            "objects": self.objects,
            "seconds": round(self.seconds, 3),
        }


def export_labels(
    path: str | os.PathLike[str],
    labels: str,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    scheduler: Where | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write a label of an image for other programs.

    Parameters
    ----------
    path : path
        OME-Zarr image, local.
    labels : str
        Name of labels inside the image, or path of a label image elsewhere.
    out : path
        ``.geojson`` or ``.geojson.gz``: outlines of all objects in pixels of level 0, as
        QuPath reads them. ``.ome.tif`` or ``.ome.tiff``: the label itself.
    overwrite : bool
        Whether `out` may be replaced.
    scheduler : {"threads", "sync", "processes"}, address or file
        Where outlines are made; a TIFF is written by this process.
    workers : int, optional
        Blocks of the label at once.
    progress : callable, optional
        Called with the pixels done so far, and in all.

    Returns
    -------
    Export

    Raises
    ------
    NotFoundError
        If there is no such image, or it has no such labels.
    InputError
        If `out` has another ending, or the labels are not of integers or do not fit the image.
    OutputExistsError, OutputError
        If `out` is there already or cannot be written.
    DependencyError
        If a TIFF is asked for, and tifffile is not installed.
    RunError
        If it began and could not be finished; `out` is as it was.
    """
    out, began = Path(out).expanduser().absolute(), time.monotonic()
    write = _writer(out)
    check_scheduler(scheduler)
    image = open_image(path)
    chosen = open_labels(image, labels)
    label_frame(image, chosen)
    check_chunk_memory(chosen, 0, available_memory())
    check_new_file(out, overwrite=overwrite)
    with written_aside(out) as aside:
        objects = write(
            aside, image, chosen, scheduler=scheduler, workers=workers, progress=progress
        )
    return Export(path=out, objects=objects, seconds=time.monotonic() - began)


def _writer(out: Path) -> Callable[..., int | None]:
    """Choose by the ending of the name what is written."""
    name = out.name.lower()
    if name.endswith(GEOJSON):
        return partial(_write_geojson, zipped=name.endswith(".gz"))
    if name.endswith(TIFF):
        load_tifffile()
        return _write_tiff
    raise InputError(
        f"{out.name}: the ending says what to write; {' or '.join(GEOJSON)} is outlines for "
        f"QuPath, {' or '.join(TIFF)} the label itself"
    )


def _write_geojson(
    path: Path,
    image: Image,
    labels: Image,
    *,
    zipped: bool,
    scheduler: Where | None,
    workers: int | None,
    progress: Progress | None,
) -> int:
    maker = feature_maker(image, labels)
    with open_executor(scheduler, workers) as executor:
        planes = image_planes(labels, 0, (0,))
        block = _block_sides(planes[0].chunks)
        features = walk_objects(planes, maker, executor, block=block, progress=progress)
        return write_collection(path, features, zipped=zipped)


def _block_sides(chunks: tuple[int, int]) -> tuple[int, int] | None:
    """Return small blocks, as outlines take more memory than pixels; None for large chunks."""
    if max(chunks) > SIDE:
        return None
    height, width = (SIDE // chunk * chunk for chunk in chunks)
    return height, width


def _write_tiff(
    path: Path, image: Image, labels: Image, *, progress: Progress | None, **_: Any
) -> None:
    write_label_tiff(path, labels, label_identity(image, labels), progress)
