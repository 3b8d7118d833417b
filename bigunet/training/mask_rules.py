"""How the numbers of masks are read: as classes or as instances.

A mask can be read in two ways. In a *class map* a number is a class, and its objects are
found as 4-connected components. In an *instance map* a number is one object. Numbers
alone do not always say which is meant, and training with the wrong reading gives a model
that is wrong in silence; so what is not clear is refused, with both readings named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.models.card import default_class_names

__all__ = ["MaskRule", "choose_rule", "count_values"]

Array: TypeAlias = npt.NDArray[Any]
Kind: TypeAlias = Literal["classes", "instances"]

FEW = 16
"""Up to so many values could be classes; more of them are objects."""
SMOOTHED = 0.9
"""Share of one value among many, from which a mask looks binary with blurred edges."""
MOST_CLASSES = 255
_BINARY = ([255], [65535])
_TABLE = 2**24
"""Up to this value a table per value is small; above, values are sorted."""


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """How the numbers of all masks of a data set are read."""

    kind: Kind
    values: tuple[int, ...] = (0,)
    """Value of every class, for class maps; the first is the background."""
    ignore: int | None = None
    """Value of pixels about which nothing is known; None: there are none."""

    @property
    def background(self) -> int:
        """Value of pixels that belong to no object."""
        return self.values[0]

    def has_objects(self, counts: Mapping[int, int]) -> bool:
        """Tell whether values that were counted in a mask hold an object."""
        return bool(set(counts) - {self.background, self.ignore})


def count_values(mask: Array) -> dict[int, int]:
    """Return how many pixels have each value of an integer array.

    Examples
    --------
    >>> count_values(np.array([[0, 0, 7]]))
    {0: 2, 7: 1}
    """
    if mask.size and mask.min() >= 0 and mask.max() < _TABLE:
        table = np.bincount(mask.ravel().astype(np.intp, copy=False))
        return {int(v): int(table[v]) for v in np.flatnonzero(table)}
    values, counts = np.unique(mask, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}


def choose_rule(
    counts: Mapping[int, int],
    *,
    masks: str = "auto",
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
) -> tuple[MaskRule, tuple[str, ...]]:
    """Choose how masks are read from all the values they hold.

    ``auto`` reads 0 and 255 (or 0 and 65535) as background and foreground, and more
    than `FEW` values as instances. Few values could be either and are refused, unless
    three or more class names are given, which only class maps have. Many values of
    which one has nearly all pixels look like a binary mask with blurred edges, and
    are refused too.

    Classes are the values in ascending order. Where names are given and all values are
    less than their number, a value is its own class: one that is rare may be missing.

    Parameters
    ----------
    counts : mapping of value to pixels
        Over all masks of the data set.
    masks : {"auto", "classes", "instances"}
    classes : sequence of str, optional
        Names, background first.
    ignore : int, optional
        Value of pixels about which nothing is known. Never implied: 0 is background
        unless it is given here.

    Returns
    -------
    MaskRule
    tuple of str
        Names of the classes.

    Raises
    ------
    InputError
        No object, no clear reading, or names that do not fit.
    """
    kept = sorted(value for value in counts if value != ignore)
    names = None if classes is None else _checked_names(classes)
    if kept and kept[0] < 0:
        raise InputError(
            f"the masks hold the value {kept[0]}: values are 0 or more; if it means "
            f"'not known', say so with --ignore {kept[0]}"
        )
    if not set(kept) - {0}:
        raise InputError("the masks are empty: no pixel of any of them belongs to an object")
    if _kind(kept, counts, masks, names) == "classes":
        values, names = _class_values(kept, names, ignore)
        return MaskRule(kind="classes", values=values, ignore=ignore), names
    if ignore == 0:
        raise InputError("instances with --ignore 0 have no background: give it another value")
    if names is not None and len(names) != 2:
        raise InputError(f"{len(names)} class names for instances: give two, background first")
    return MaskRule(kind="instances", ignore=ignore), names or default_class_names(2)


def _kind(
    kept: list[int], counts: Mapping[int, int], masks: str, names: tuple[str, ...] | None
) -> Kind:
    if masks == "classes" or masks == "instances":
        # mypy narrows no str to the literals that it was compared with.
        return masks  # type: ignore[return-value]
    if masks != "auto":
        raise InputError(f"masks {masks!r}: use 'auto', 'classes' or 'instances'")
    objects = [value for value in kept if value]
    if objects in _BINARY or (len(objects) <= FEW and names is not None and len(names) > 2):
        return "classes"
    if len(objects) <= FEW:
        raise InputError(
            f"the masks hold the values {_listed(kept)}: as classes these are {len(kept)} classes, "
            f"as instances up to {_objects(len(objects))} per image; say which with "
            "--masks classes or --masks instances"
        )
    share = max(counts[v] for v in objects) / sum(counts[v] for v in objects)
    if share > SMOOTHED:
        raise InputError(
            f"the masks hold {len(objects)} values and one of them has {share:.0%} of their pixels: "
            "as classes this looks like a binary mask with blurred edges (save it as 0 and 255), "
            "as instances like one very large object; if so, say --masks instances"
        )
    return "instances"


def _class_values(
    kept: list[int], names: tuple[str, ...] | None, ignore: int | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    found = tuple(kept) if ignore == 0 else tuple(sorted({0, *kept}))
    if len(found) < 2:
        raise InputError(f"the masks hold one class only, the value {found[0]}: give two or more")
    if len(found) > MOST_CLASSES:
        raise InputError(
            f"{len(found)} values are too many classes (up to {MOST_CLASSES}): if these are "
            "objects, say --masks instances"
        )
    if names is None:
        return found, default_class_names(len(found))
    if ignore != 0 and found[-1] < len(names):
        return tuple(range(len(names))), names
    if len(found) != len(names):
        problem = "more classes than declared" if len(found) > len(names) else "which is which"
        raise InputError(
            f"the masks hold {len(found)} values ({_listed(found)}) and {len(names)} class names "
            f"are given ({', '.join(names)}): {problem}; name every class, background first"
        )
    return found, names


def _checked_names(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if len(names) < 2 or len(set(names)) < len(names) or "" in names:
        raise InputError(
            f"class names {', '.join(names)!r}: give two or more, all different, background first"
        )
    return names


def _objects(number: int) -> str:
    return f"{number} object{'' if number == 1 else 's'}"


def _listed(values: Sequence[int], most: int = 8) -> str:
    return ", ".join(map(str, values[:most])) + (" and more" if len(values) > most else "")
