"""How a result appears: all at once, with its metadata last.

A *fresh* result is written where it will stay. It is no result for any reader
before its metadata say so, and a folder beside it, the staging folder, marks it
as unfinished. A result that *replaces* one is written inside the staging folder
and swapped in by two renames::

    target  → parked            the old one goes
    staging/new → target        the new one comes

A run can be killed between any two steps; `recover` and `claim` put in order
whatever it left. The only files written here are small, and each is replaced in
one step.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bigunet.images.consolidated import METADATA, ZarrFormat, read_json, refresh_consolidated
from bigunet.images.ngff import read_group

__all__ = [
    "Place",
    "claim",
    "has_image",
    "is_complete",
    "is_interrupted",
    "is_visible",
    "label_place",
    "list_label",
    "listed_labels",
    "output_place",
    "publish",
    "recover",
    "swap",
    "take_over",
    "write_attributes",
]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a result goes, and where it is staged until then."""

    target: Path
    """The group of the result."""
    staging: Path
    """A folder that exists until the result is committed."""
    parked: Path
    """Where a replaced result lies between the two renames of a swap."""
    incoming: Path
    """Where the new one lies between the two renames of a swap."""
    listing: Path | None
    """The ``labels`` group that lists the result; None for an image of its own."""
    zarr_format: ZarrFormat

    @property
    def replacement(self) -> Path:
        """Where the new result is written while the old one stays readable."""
        return self.staging / "new"

    def mark(self, run: str) -> Path:
        """Return the file that says which run owns the staging folder: its ledger."""
        return self.staging / f"{run}.run"

    def marks(self) -> list[Path]:
        """Return the files of all runs that own the staging folder; one, but after a kill."""
        return sorted(self.staging.glob("*.run"))


def label_place(image: Path, name: str, zarr_format: ZarrFormat) -> Place:
    """Place of a label inside its image."""
    labels = image / "labels"
    staging = labels / f".bigunet-{name}"
    return Place(
        target=labels / name,
        staging=staging,
        parked=staging / "old",
        incoming=staging / "new",
        listing=labels,
        zarr_format=zarr_format,
    )


def output_place(path: Path, zarr_format: ZarrFormat) -> Place:
    """Place of an image of its own; its staging folder is inside and moves with it."""
    parked = path.parent / f".bigunet-{path.name}"
    return Place(
        target=path,
        staging=path / ".bigunet",
        parked=parked,
        incoming=parked / ".bigunet" / "new",
        listing=None,
        zarr_format=zarr_format,
    )


def has_image(folder: Path) -> bool:
    """Whether a folder is a Zarr group with ``multiscales``."""
    group = read_group(folder)
    return group is not None and "multiscales" in group.ome


def listed_labels(labels: Path) -> list[Any]:
    """Names that a ``labels`` group lists, as they stand there."""
    group = read_group(labels)
    listed = None if group is None else group.ome.get("labels")
    return list(listed) if isinstance(listed, list) else []


def is_visible(place: Place) -> bool:
    """Whether there is a result that readers find."""
    if not has_image(place.target):
        return False
    return place.listing is None or place.target.name in listed_labels(place.listing)


def is_complete(place: Place) -> bool:
    """Whether there is a result that readers find, or that somebody took off the list."""
    return is_visible(place) or (has_image(place.target) and not place.staging.exists())


def is_interrupted(place: Place) -> bool:
    """Whether a run was killed between the two renames of a swap."""
    return not place.target.exists() and has_image(place.parked)


def claim(place: Place, run: str) -> None:
    """Sweep what a killed run left and mark the place as this run's.

    What lies at the target is removed unless readers find it.
    """
    recover(place)
    place.staging.mkdir(parents=True, exist_ok=True)
    for left in sorted(place.staging.iterdir(), key=Path.is_dir):
        # Marks go first: from then on a run that still lives cannot write here.
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    place.mark(run).touch()
    if not is_visible(place):
        list_label(place, listed=False)
        _remove_target(place)
    _refresh(place)


def take_over(place: Place, run: str) -> None:
    """Leave one mark only: from then on no other run writes to what is unfinished here."""
    for left in sorted(place.staging.iterdir()):
        is_other = left.suffix == ".run" and left != place.mark(run)
        if is_other or left.suffix == ".partial":
            left.unlink()


def recover(place: Place) -> bool:
    """Finish a commit that was killed after its result was complete; True where it was.

    An interrupted swap is rolled forward (back where the new result is gone).
    What is incomplete, and a run that still writes its replacement, is left alone.
    """
    if is_interrupted(place):
        source = place.incoming if has_image(place.incoming) else place.parked
        source.rename(place.target)
    elif not is_visible(place):
        return False
    elif has_image(place.replacement):
        swap(place)
    elif place.replacement.exists():
        return False
    if not place.staging.exists() and not place.parked.exists():
        return False
    place.staging.mkdir(exist_ok=True)
    publish(place)
    return True


def publish(*places: Place) -> None:
    """Show complete results to readers: list them, refresh consolidated metadata, clean up.

    Labels of the same image are listed in one step.
    """
    list_label(*places, listed=True)
    for place in places:
        _refresh(place)
    for place in places:
        _clean_up(place)


def swap(place: Place) -> None:
    """Put the replacement where the old result is; that one is parked."""
    # Copies of the old metadata would misread the new chunks, so they go first.
    _refresh(place, gone=True)
    place.target.rename(place.parked)
    place.incoming.rename(place.target)


def write_attributes(place: Place, folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make a folder a Zarr group with these attributes, and keep what else its file holds."""
    if place.zarr_format == 3:
        new = {"zarr_format": 3, "node_type": "group"}
        content = (read_json(folder / "zarr.json") or new) | {"attributes": attributes}
        _write_json(place, folder / "zarr.json", content)
        return
    if not (folder / ".zgroup").exists():
        _write_json(place, folder / ".zgroup", {"zarr_format": 2})
    _write_json(place, folder / ".zattrs", attributes)


def list_label(place: Place, *more: Place, listed: bool) -> None:
    """List labels of one image, or take them off the list, in one step.

    The group is made when it is first needed.
    """
    labels, new = place.listing, [one.target.name for one in (place, *more)]
    if labels is None or all((name in listed_labels(labels)) == listed for name in new):
        return
    others = [entry for entry in listed_labels(labels) if entry not in new]
    names = {"labels": [*others, *new] if listed else others}
    group = read_group(labels)
    attributes = dict(group.attributes) if group else {}
    if place.zarr_format == 3:
        ome = dict(group.ome) if group else {}
        # ome-zarr-py leaves the version out; ome-zarr-models does not read it then.
        attributes["ome"] = {"version": "0.5"} | ome | names
    else:
        attributes |= names
    write_attributes(place, labels, attributes)


def _clean_up(place: Place) -> None:
    """Remove what is not needed once the result can be read.

    Nobody is helped if a run fails here: what cannot be removed is left to the
    next run.
    """
    with contextlib.suppress(OSError):
        for name in METADATA[place.zarr_format]:
            # First of all, so that half of it is never taken for a result to roll back to.
            (place.parked / name).unlink(missing_ok=True)
        shutil.rmtree(place.parked, ignore_errors=True)
        shutil.rmtree(place.staging, ignore_errors=True)


def _remove_target(place: Place) -> None:
    """Take an unfinished result away; out of readers' sight first, by renames."""
    if not place.target.exists():
        return
    trash = place.staging / "trash"
    if place.listing is not None:
        place.target.rename(trash)
    else:
        trash.mkdir()
        # Attributes first: without them what is left of the root is no group.
        for child in sorted(place.target.iterdir(), key=Path.is_dir):
            if child != place.staging:
                child.rename(trash / child.name)
    shutil.rmtree(trash, ignore_errors=True)


def _refresh(place: Place, *, gone: bool = False) -> None:
    refresh_consolidated(place.target, place.zarr_format, partial(_write_json, place), gone=gone)


def _write_json(place: Place, file: Path, content: Mapping[str, Any]) -> None:
    """Replace a file in one step; what a killed run leaves of it lies in the staging folder."""
    part = place.staging / "metadata.partial"
    with part.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    if file.exists():
        shutil.copymode(file, part)
    part.replace(file)
