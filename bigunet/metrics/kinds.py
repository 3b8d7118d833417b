"""How masks are to be read: as objects or as classes. What is not clear is not guessed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.metrics.contingency import as_ids
from bigunet.metrics.sources import Source

__all__ = ["KINDS", "Evidence", "Kind", "choose_kind", "gather_evidence"]

Array: TypeAlias = npt.NDArray[Any]
Kind: TypeAlias = Literal["instances", "classes", "probabilities"]

KINDS: tuple[Kind, ...] = ("instances", "classes", "probabilities")

SAMPLE = 2048  # side of the window in the middle of a plane that is looked at, in pixels
MOST_CLASSES = 255
PARTS_OF_OBJECT = 1.25  # components an object has on average, at most
PARTS_OF_CLASS = 2.0  # components a class has on average, at least
FEW = 5  # fewer values with a component each may be classes as well as objects


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen in some planes."""

    values: frozenset[int]
    """All values but 0."""
    occurrences: int
    """Values but 0, counted in each plane anew."""
    parts: int
    """4-connected components of equal values."""

    @property
    def is_binary(self) -> bool:
        """Whether there is one value beside 0: 1 or the largest of a type as a rule."""
        return len(self.values) <= 1

    @property
    def reading(self) -> Kind | None:
        """Objects or classes; None where it may be both."""
        if self.is_binary:
            return "classes"
        parts = self.parts / self.occurrences
        if parts <= PARTS_OF_OBJECT and (len(self.values) >= FEW or max(self.values) > 255):
            return "instances"
        if parts >= PARTS_OF_CLASS and max(self.values) <= MOST_CLASSES:
            return "classes"
        return None


def gather_evidence(planes: Iterable[Source]) -> Evidence:
    """Look at the middle of planes."""
    values, occurrences, parts = set[int](), 0, 0
    for plane in planes:
        y, x = (_middle(size) for size in plane.shape)
        labels = as_ids(plane.read(y, x))
        found = [int(value) for value in np.unique(labels) if value]
        values.update(found)
        occurrences += len(found)
        parts += _count_parts(labels)
    return Evidence(values=frozenset(values), occurrences=occurrences, parts=parts)


def choose_kind(evidence: Evidence, name: str) -> Kind:
    """Choose how a truth is read.

    Raises
    ------
    InputError
        If it may be both; names both readings.
    """
    if evidence.reading is None:
        values = sorted(evidence.values)
        shown = ", ".join(map(str, values[:4])) + (" …" if len(values) > 4 else "")
        raise InputError(
            f"{name} holds the values {shown} in {evidence.parts} regions: --kind instances "
            f"reads {len(values)} objects, --kind classes reads {len(values)} classes; say which"
        )
    return evidence.reading


def _middle(size: int) -> slice:
    start = max(0, (size - SAMPLE) // 2)
    return slice(start, min(size, start + SAMPLE))


def _count_parts(labels: Array) -> int:
    """Count the 4-connected components of equal values."""
    # Between every two pixels lies one that says whether they are equal.
    height, width = labels.shape
    cut = np.zeros((2 * height - 1, 2 * width - 1), dtype=bool)
    cut[::2, ::2] = labels != 0
    cut[1::2, ::2] = (labels[1:] == labels[:-1]) & (labels[1:] != 0)
    cut[::2, 1::2] = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != 0)
    return int(ndimage.label(cut)[1])
