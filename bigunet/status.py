"""What became of the runs on an image: results that are complete, and runs that are not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigunet.errors import NotFoundError
from bigunet.images.commit import Place, is_visible, label_place, output_place
from bigunet.images.consolidated import ZarrFormat
from bigunet.images.destination import read_record
from bigunet.images.ngff import PROVENANCE, read_group
from bigunet.ledger import Record

__all__ = ["ImageStatus", "LabelStatus", "image_status"]

_NAMED_FAILURES = 20


@dataclass(frozen=True, kw_only=True)
class LabelStatus:
    """One result of bigunet, or several of one run that did not finish."""

    names: tuple[str, ...]
    path: Path
    """Of the first."""
    model: str
    record: Record | None
    """Of an unfinished run; None of a result that is complete."""

    @property
    def blocks(self) -> dict[str, int] | None:
        """``total``, ``done``, ``skipped`` and ``failed``; None of a result that is complete."""
        if self.record is None:
            return None
        return {
            "total": self.record.blocks,
            "done": len(self.record.done),
            "skipped": len(self.record.skipped),
            "failed": len(self.record.failed),
        }

    def lines(self) -> list[str]:
        """Return how far it is, and what failed."""
        name, record = ", ".join(self.names), self.record
        if record is None:
            return [f"{name}: complete, model {self.model}"]
        done = len(record.done) + len(record.skipped)
        share = 100 * done // max(1, record.blocks)
        ago = _ago(time.time() - record.updated)
        failures = list(record.failed.items())
        left = len(failures) - _NAMED_FAILURES
        return [
            f"{name}: unfinished, model {self.model}: {done} of {record.blocks} blocks ({share} %), "
            f"{len(failures)} failed; last change {ago} ago; the same command goes on",
            *(f"  {where}: {cause}" for where, cause in failures[:_NAMED_FAILURES]),
            *([f"  and {left} more (see --json)"] if left > 0 else []),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        record = self.record
        return {
            "labels": list(self.names),
            "path": str(self.path),
            "state": "complete" if record is None else "unfinished",
            "model": self.model,
            "blocks": self.blocks,
            "failures": {} if record is None else dict(record.failed),
            "updated": None if record is None else record.updated,
        }


@dataclass(frozen=True, kw_only=True)
class ImageStatus:
    """All that bigunet made, or is making, of an image."""

    path: Path
    labels: tuple[LabelStatus, ...]

    def lines(self) -> list[str]:
        """Return a line or more for each result."""
        if not self.labels:
            return [f"{self.path}: no results of bigunet, and no unfinished runs"]
        return [line for label in self.labels for line in label.lines()]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {"image": str(self.path), "results": [label.as_dict() for label in self.labels]}


def image_status(path: str | Path) -> ImageStatus:
    """Tell which results of an image, or of one of ``--output``, are complete and which are not.

    Raises
    ------
    NotFoundError
        There is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is no folder; give an OME-Zarr image, or an --output")
    found: dict[str, LabelStatus] = {}
    for place in _places(folder):
        label = _status(place)
        if label is None:
            continue
        # Labels of one run are one line, with the ledger that has its blocks.
        key = str(label.path) if label.record is None else label.record.family
        found[key] = _joined(found[key], label) if key in found else label
    return ImageStatus(path=folder, labels=tuple(found.values()))


def _places(folder: Path) -> Iterator[Place]:
    zarr_format: ZarrFormat = 3 if (folder / "zarr.json").exists() else 2
    yield output_place(folder, zarr_format)
    labels = folder / "labels"
    if labels.is_dir():
        names = {path.name.removeprefix(".bigunet-") for path in labels.iterdir() if path.is_dir()}
        for name in sorted(names):
            yield label_place(folder, name, zarr_format)


def _status(place: Place) -> LabelStatus | None:
    """Return what is known of a place; None where bigunet never was."""
    record = read_record(place)
    if record is not None:
        model = str(record.settings["model"]["name"])
    elif is_visible(place):
        group = read_group(place.target)
        made = None if group is None else group.attributes.get(PROVENANCE)
        named = made.get("model") if isinstance(made, dict) else None
        if not isinstance(named, dict):
            # Somebody else's, or nothing that was segmented: a sample, tissue that was found.
            return None
        model = str(named.get("name", "?"))
    else:
        return None
    return LabelStatus(names=(place.target.name,), path=place.target, model=model, record=record)


def _joined(one: LabelStatus, other: LabelStatus) -> LabelStatus:
    assert one.record is not None and other.record is not None
    first, second = (one, other) if len(one.record.done) >= len(other.record.done) else (other, one)
    return replace(first, names=(*first.names, *second.names))


def _ago(seconds: float) -> str:
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
