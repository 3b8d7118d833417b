"""From annotated objects to what a network is asked for, and back.

Objects are kept as ids for as long as possible (reading, warping); the class map that
a network learns is made from them last, with a gap between objects that touch, so
that connected components give the objects back. Neighbours share an edge throughout
(4-connectivity): pixels that meet at a corner only are apart already.

Letters: Y and X pixels, N the largest id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.training.masks import class_components

__all__ = [
    "IGNORE",
    "check_instances",
    "classes_from_instances",
    "instances_from_classes",
    "lost_ids",
    "separate",
]

Ids: TypeAlias = npt.NDArray[Any]
"""Integers (Y, X); 0 is background, every other value one object."""
Classes: TypeAlias = npt.NDArray[np.uint8]
Index: TypeAlias = tuple[slice, slice]

IGNORE = 255
"""Class of pixels that nobody judged: they weigh 0 and count nowhere."""

_EDGES: tuple[tuple[Index, Index], ...] = (
    (np.s_[1:, :], np.s_[:-1, :]),
    (np.s_[:, 1:], np.s_[:, :-1]),
)
"""The two ends of all vertical, then of all horizontal pairs of neighbours."""


def check_instances(instances: Ids) -> Ids:
    """Return the ids as an array, or refuse what is no map of ids.

    Raises
    ------
    InputError
        Another rank than 2, values that are no integers, negative ids.
    """
    ids = np.asarray(instances)
    if ids.ndim != 2:
        raise InputError(f"instances of shape {ids.shape}: a plane (Y, X) is needed")
    if ids.dtype.kind not in "iu":
        raise InputError(f"instances of type {ids.dtype}: integer ids are needed")
    if ids.dtype.kind == "i" and ids.size and ids.min() < 0:
        raise InputError(f"instances hold the id {ids.min()}: ids are 0 (background) and above")
    return ids


def separate(instances: Ids, gap: int = 2) -> Ids:
    """Ids with background between objects that touch.

    Two objects touch where pixels of theirs share an edge. ``gap / 2`` pixels are taken
    off each side of every touch, and nowhere else.

    Law: every 4-connected component of what is left belongs to one object; no pixel
    changes its id; for ``gap=2``, pixels that touch no other object stay.

    An object of one or two pixels' width between others would lose everything. Such an
    object keeps its pixels instead, and only its neighbours make room, so that the gap
    there is one-sided. Where several such objects touch one another, each first gets
    one pixel, the smallest object before the larger ones, and then whatever touches
    no other. An object vanishes only if every pixel of it touches one that was kept for
    another such object (single pixels of different ids, say); `lost_ids` names it.
    An object with a narrow neck at a touch can fall into several components.

    Objects of different classes need no gap: call this once for each class.

    Parameters
    ----------
    instances : (Y, X) integer array
    gap : int
        Width of the gap in pixels: even, for the same is taken off both sides; 0 takes
        nothing.

    Returns
    -------
    (Y, X) array of the same type

    Raises
    ------
    InputError
        Not a map of ids; a gap that is odd or negative.

    Examples
    --------
    >>> separate(np.array([[1, 1, 1, 2, 2, 2, 0, 3]]))
    array([[1, 1, 0, 0, 2, 2, 0, 3]])
    >>> separate(np.array([[1, 1, 1, 2, 3, 3, 3]]))
    array([[1, 1, 0, 2, 0, 3, 3]])
    """
    if gap < 0 or gap % 2:
        raise InputError(f"gap {gap}: an even number is needed, half of it for each side")
    ids = check_instances(instances)
    if not gap:
        return ids.copy()
    taken = _touching(ids)
    for _ in range(gap // 2 - 1):
        taken = _one_further(taken, ids)
    target: Ids = np.where(taken, ids.dtype.type(0), ids)
    lost = lost_ids(ids, target)
    if lost.size:
        _keep_something(target, ids, lost)
    return target


def lost_ids(instances: Ids, target: Ids) -> Ids:
    """Ids, in order, that are in `instances` and not in `target`; both (Y, X).

    Examples
    --------
    >>> crowd = np.array([[1, 2, 3]])
    >>> lost_ids(crowd, separate(crowd))
    array([2])
    """
    lost: Ids = np.setdiff1d(np.unique(instances), np.unique(target), assume_unique=True)
    return lost[lost > 0]


def _touching(ids: Ids) -> npt.NDArray[np.bool_]:
    """Pixels (Y, X) of an object that share an edge with another object."""
    touching = np.zeros(ids.shape, dtype=bool)
    for here, there in _EDGES:
        touch = (ids[here] != ids[there]) & (ids[here] != 0) & (ids[there] != 0)
        touching[here] |= touch
        touching[there] |= touch
    return touching


def _one_further(mask: npt.NDArray[np.bool_], ids: Ids) -> npt.NDArray[np.bool_]:
    """Grow a mask (Y, X) by one pixel inside each object that it lies in."""
    grown = mask.copy()
    for here, there in _EDGES:
        same = ids[here] == ids[there]
        grown[here] |= mask[there] & same
        grown[there] |= mask[here] & same
    return grown


def _keep_something(target: Ids, ids: Ids, lost: Ids) -> None:
    """Give pixels back, in place, to objects that would vanish; see `separate`.

    A pixel may come back if no neighbour belongs to another object in the target. All
    that survived the first round is no danger, for it touches no other object.
    """
    width = ids.shape[1] + 2
    steps = np.array([-width, -1, 1, width])
    # A frame of background, so that every pixel has four neighbours.
    before, after = np.pad(ids, 1).ravel(), np.pad(target, 1).ravel()
    weak = np.isin(before, lost)
    objects = sorted(_pixels_of_objects(before, weak), key=len)

    def free(own: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        around = after[own[:, None] + steps]
        alone: npt.NDArray[np.bool_] = (around == 0) | (around == before[own[0]])
        return own[alone.all(axis=1)]

    for own in objects:
        if (candidates := free(own)).size:
            around = candidates[:, None] + steps
            rivals = (weak[around] & (before[around] != before[own[0]])).sum(axis=1)
            best = candidates[rivals.argmin()]
            after[best] = before[best]
    for own in objects:
        after[free(own)] = before[own[0]]
    target[:] = after.reshape(-1, width)[1:-1, 1:-1]


def _pixels_of_objects(flat: Ids, mask: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the indices of each object's pixels, of those in the mask; both are flat."""
    pixels = np.flatnonzero(mask)
    pixels = pixels[np.argsort(flat[pixels], kind="stable")]
    yield from np.split(pixels, np.flatnonzero(np.diff(flat[pixels])) + 1)


def classes_from_instances(
    instances: Ids,
    ignore: npt.NDArray[np.bool_] | None = None,
    *,
    class_of: npt.NDArray[np.uint8] | None = None,
) -> Classes:
    """Class map of objects.

    Parameters
    ----------
    instances : (Y, X) integer array
    ignore : (Y, X) bool array, optional
        Pixels that nobody judged. Nothing is ignored unasked.
    class_of : (N + 1,) uint8 array, optional
        Class of each id from 0, as in `bigunet.training.masks.Annotation`. Without it
        every object is of class 1.

    Returns
    -------
    (Y, X) uint8 array
        0 for background, the object's class, `IGNORE` for pixels to be ignored.

    Raises
    ------
    InputError
        Not a map of ids; an id that `class_of` does not reach.

    Examples
    --------
    >>> ids = np.array([[0, 7, 7, 9]])
    >>> classes_from_instances(ids, ignore=ids == 9)
    array([[  0,   1,   1, 255]], dtype=uint8)
    """
    ids = check_instances(instances)
    classes: Classes
    if class_of is None:
        classes = (ids != 0).astype(np.uint8)
    elif ids.size and ids.max() >= len(class_of):
        raise InputError(f"id {ids.max()}: classes are known for ids up to {len(class_of) - 1}")
    else:
        classes = class_of[ids]
    if ignore is not None:
        classes[ignore] = IGNORE
    return classes


def instances_from_classes(class_map: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Objects of a class map: the 4-connected components of each class.

    Parameters
    ----------
    class_map : (Y, X) integer array
        Neither 0, background, nor `IGNORE` makes objects.

    Returns
    -------
    (Y, X) int32 array
        Ids from 1, class by class, and inside a class in the order of their first pixels.

    Raises
    ------
    InputError
        Not a plane of integers from 0.

    Examples
    --------
    >>> instances_from_classes(np.array([[1, 1, 0, 2], [0, 0, 1, 2]]))
    array([[1, 1, 0, 3],
           [0, 0, 2, 3]], dtype=int32)
    """
    classes = check_instances(class_map)
    ids, _ = class_components(np.where(classes == IGNORE, 0, classes))
    return ids
