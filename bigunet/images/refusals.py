"""What is refused before a result is begun: names, places, what is there already."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from bigunet.errors import InputError, OutputError, OutputExistsError
from bigunet.images import commit
from bigunet.images.attributes import PROVENANCE
from bigunet.images.commit import Place
from bigunet.images.consolidated import consolidated_above
from bigunet.images.ngff import read_group

__all__ = ["check_name", "check_place", "check_save", "unwritable"]

KINDS = ("objects", "classes", "probabilities")
WINDOWS_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_name(name: str) -> None:
    """Refuse what is no folder on some system, or hidden, or reserved by Zarr."""
    bad = sorted({c for c in name if c in '/\\<>:"|?*' or not c.isprintable()})
    if not name or bad or name != name.strip() or name.startswith((".", "__")):
        raise InputError(f"{name!r} is no name for a label: use letters, digits, - and _")
    if name.endswith(".") or len(name.encode()) > 200 or WINDOWS_NAMES.fullmatch(name):
        raise InputError(f"{name!r} is no name for a label on every system; choose another")
    if name == "zarr.json":
        raise InputError("'zarr.json' is no name for a label: Zarr needs it; choose another")


def check_save(save: Sequence[str], classes: int, *, has_output: bool) -> None:
    """Refuse what cannot be saved, or not there."""
    unknown = [kind for kind in save if kind not in KINDS]
    if unknown or not save:
        raise InputError(
            f"{', '.join(unknown) or 'nothing'} cannot be saved: {', '.join(KINDS)} can"
        )
    if "probabilities" in save and not has_output:
        raise InputError(
            "probabilities are an image of their own: say where with --output NEW.zarr"
        )
    if "objects" in save and classes < 2:
        raise InputError("a model of one class finds no objects: save classes")
    if not 1 <= classes <= 256:
        raise InputError(f"{classes} classes do not fit a class map, 1 to 256 do")


def check_place(place: Place, source: Path, name: str, *, overwrite: bool) -> None:
    """Refuse a place that holds what may not be replaced, or that cannot be written to.

    Parameters
    ----------
    source : Path
        The image, links resolved.
    """
    try:
        if place.listing is None:
            _check_output(place, source, name)
        else:
            _check_labels_group(place)
        _check_existing(place, overwrite)
        _check_writable(place)
    except PermissionError as error:
        raise unwritable(place, f"no permission to look into {error.filename}") from error


def unwritable(place: Place, reason: str) -> OutputError:
    """Build the error for a place that cannot be written to, with the way out."""
    if place.listing is None:
        return OutputError(f"{place.target} cannot be written: {reason}; choose another --output")
    return OutputError(
        f"{place.listing} cannot be written: {reason}; "
        "put the result elsewhere with --output NEW.zarr"
    )


def _check_labels_group(place: Place) -> None:
    """Refuse a ``labels`` that is no group of the image's own, or cannot be added to."""
    labels = place.target.parent
    for path in (labels, place.target, place.staging):
        if path.is_symlink():
            raise OutputError(f"{path} is a link and is not written through; use --output NEW.zarr")
    if not labels.exists():
        return
    group = read_group(labels) if labels.is_dir() else None
    fits = group is None or (group.node == "group" and group.zarr_format == place.zarr_format)
    listed = [] if group is None else group.ome.get("labels", [])
    if not labels.is_dir() or not fits or not isinstance(listed, list):
        raise OutputError(
            f"{labels} is not a Zarr v{place.zarr_format} group that lists labels; "
            "mend it or use --output NEW.zarr"
        )


def _check_output(place: Place, source: Path, name: str) -> None:
    """Refuse an output that is inside the image or holds what is not this result."""
    path = place.target
    if path.is_relative_to(source) or source.is_relative_to(path):
        raise InputError(
            f"--output {path} and the image {source} lie in each other; choose another"
        )
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path} is a file; choose another --output")
    inner = path / "labels"
    if commit.is_complete(place) and inner.is_dir():
        others = [
            p.name
            for p in inner.iterdir()
            if p.is_dir() and p.name not in {name, f"{name}-classes", f".bigunet-{name}"}
        ]
        if others:
            raise OutputExistsError(
                f"{path} also holds the label {sorted(others)[0]}; choose another --output"
            )


def _check_existing(place: Place, overwrite: bool) -> None:
    target = place.target
    other = "--output" if place.listing is None else "--name"
    if commit.is_complete(place) or commit.is_interrupted(place):
        group = read_group(target if target.exists() else place.parked)
        if group is None or PROVENANCE not in group.attributes:
            raise OutputExistsError(
                f"{target} was not written by bigunet and is left alone; choose another {other}"
            )
        if not overwrite:
            raise OutputExistsError(
                f"{target} exists; replace it with --overwrite or choose another {other}"
            )
    elif target.exists() and not place.staging.is_dir() and not _is_empty(target):
        raise OutputExistsError(
            f"{target} exists and is no result of bigunet; choose another {other}"
        )


def _check_writable(place: Place) -> None:
    parent = place.target.parent
    nearest = next(folder for folder in (parent, *parent.parents) if folder.exists())
    if not nearest.is_dir():
        raise unwritable(place, f"{nearest} is a file")
    touched = [nearest, *(p for p in (place.target, place.staging) if p.exists())]
    touched += [file.parent for file in consolidated_above(nearest, place.zarr_format)]
    for folder in touched:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise unwritable(place, f"no permission to write in {folder}")


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
