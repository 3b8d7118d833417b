"""The class of each object of a label, as far as its metadata tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError, RunError
from bigunet.images.arrays import open_array
from bigunet.images.attributes import default_color, parse_color
from bigunet.images.containers import store_root
from bigunet.images.destination import OBJECT_CLASSES, OBJECT_CUT
from bigunet.images.groups import one_line, plain_text, read_group
from bigunet.images.image import Image
from bigunet.images.pictures.classes import label_classes

__all__ = ["Classification", "ObjectClass", "read_classification"]


@dataclass(frozen=True, kw_only=True)
class ObjectClass:
    """A class that objects have."""

    name: str
    color: tuple[int, int, int]
    """Red, green and blue, 0 to 255."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """The classes of all objects of a label; empty where nothing is known."""

    numbers: npt.NDArray[Any] | None = None
    """Class of each object, index = id; None where ids are classes themselves."""
    classes: dict[int, ObjectClass] = field(default_factory=dict)
    """By number."""
    cut: npt.NDArray[Any] | None = None
    """Not 0 for each object that a mask cuts, index = id; None where nothing is known."""

    def number(self, label: int) -> int | None:
        """Return the number of an object's class, by its id."""
        if self.numbers is None:
            return label if label in self.classes else None
        return int(self.numbers[label]) if label < self.numbers.size else None

    def of(self, label: int) -> ObjectClass | None:
        """Return the class of an object, by its id."""
        number = self.number(label)
        return None if number is None else self.classes.get(number)


def read_classification(labels: Image) -> Classification:
    """Read the classes of objects, or the named values of a class map.

    Objects that `bigunet segment` made have an array of their classes beside the levels.

    Raises
    ------
    RunError
        If such an array is there and cannot be read.
    """
    group = read_group(labels.path / OBJECT_CLASSES)
    if group is None or group.node != "array":
        named = [c for c in label_classes(labels) if c.name != str(c.value)]
        return Classification(
            classes={c.value: ObjectClass(name=c.name, color=c.color) for c in named}
        )
    numbers = _read_numbers(labels, OBJECT_CLASSES)
    names, colors = (group.attributes.get(key) for key in ("class_names", "class_colors"))
    return Classification(
        numbers=numbers,
        classes={
            number: ObjectClass(
                name=plain_text(_entry(names, number) or f"class {number}"),
                color=_color(_entry(colors, number), number),
            )
            for number in np.unique(numbers).tolist()
            if number
        },
        cut=_read_numbers(labels, OBJECT_CUT) if (labels.path / OBJECT_CUT).is_dir() else None,
    )


def _read_numbers(labels: Image, name: str) -> npt.NDArray[Any]:
    """Read an array of a number for each object, index = id."""
    path = labels.path / name
    root = store_root(labels.path)
    try:
        array = open_array(root, path.relative_to(root).as_posix(), labels.zarr_format)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError("it is no list of integers")
        return np.asarray(array[:])
    except Exception as error:
        # Codecs raise whatever they like.
        raise RunError(
            f"{path}, a number for each object, cannot be read: {one_line(error)}"
        ) from error


def _entry(listed: Any, number: int) -> Any:
    return listed[number] if isinstance(listed, Sequence) and 0 <= number < len(listed) else None


def _color(given: Any, number: int) -> tuple[int, int, int]:
    try:
        red, green, blue, _ = parse_color(given)
    except (InputError, TypeError, ValueError):
        red, green, blue, _ = default_color(number)
    return red, green, blue
