"""What a mask says: objects with an id each, their classes, and what is not known."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.training.mask_rules import MaskRule, count_values

__all__ = ["Annotation", "annotate", "class_components", "renumber"]

Array: TypeAlias = npt.NDArray[Any]

_TABLE = 2**24
"""Up to this id a table per id is small; above, ids are sorted."""


class Annotation(NamedTuple):
    """What is known of an image's pixels."""

    instances: npt.NDArray[np.int32]
    """(Y, X); 0 is background, 1 to n are objects."""
    classes: npt.NDArray[np.uint8]
    """(n + 1,); ``classes[instances]`` is the class map."""
    ignore: npt.NDArray[np.bool_]
    """(Y, X); True where nothing is known."""


def annotate(mask: Array, rule: MaskRule) -> Annotation:
    """Return the objects of a mask, their classes and what is not known.

    Parameters
    ----------
    mask : (Y, X) integer array
    rule : MaskRule

    Returns
    -------
    Annotation
        Ids are 1 to n without gaps: instances in the order of their values, objects of
        class maps by class, then in raster order.

    Raises
    ------
    InputError
        A class map holds a value that is no class.
    """
    ignored = np.zeros(mask.shape, bool) if rule.ignore is None else mask == rule.ignore
    if rule.kind == "instances":
        ids, number = renumber(np.where(ignored, 0, mask))
        table = np.full(number + 1, 1, np.uint8)
        table[0] = 0
        return Annotation(ids, table, ignored)
    class_map = np.zeros(mask.shape, np.uint8)
    known = ignored | (mask == rule.background)
    for k, value in enumerate(rule.values[1:], 1):
        here = (mask == value) & ~ignored
        class_map[here] = k
        known |= here
    if not known.all():
        odd = ", ".join(map(str, list(count_values(mask[~known]))[:5]))
        raise InputError(f"values that are no class of {list(rule.values)}: {odd}")
    return Annotation(*class_components(class_map), ignored)


def class_components(classes: Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Return the 4-connected components of each class but 0, and the class of each.

    Parameters
    ----------
    classes : (Y, X) integer array

    Returns
    -------
    ids : (Y, X) int32 array
        1 to n, by class, then in raster order; 0 where the class is 0.
    table : (n + 1,) uint8 array
        ``table[ids]`` is the class map again.

    Examples
    --------
    >>> class_components(np.array([[1, 0, 1, 2]]))
    (array([[1, 0, 2, 3]], dtype=int32), array([0, 1, 1, 2], dtype=uint8))
    """
    ids = np.zeros(classes.shape, np.int32)
    table = [0]
    for k in (value for value in count_values(classes) if value):
        parts, number = ndimage.label(classes == k)
        inside = parts > 0
        ids[inside] = parts[inside] + (len(table) - 1)
        table += [k] * number
    return ids, np.array(table, np.uint8)


def renumber(ids: Array) -> tuple[npt.NDArray[np.int32], int]:
    """Renumber ids to 1 to n in the order of their values; 0 stays 0.

    Parameters
    ----------
    ids : (Y, X) integer array, 0 or more

    Returns
    -------
    (Y, X) int32 array
    int
        n.

    Examples
    --------
    >>> renumber(np.array([[7, 0, 300]]))
    (array([[1, 0, 2]], dtype=int32), 2)
    """
    if ids.size and ids.max() < _TABLE:
        used = np.zeros(int(ids.max()) + 1, bool)
        used[ids] = True
        used[0] = False
        table = np.cumsum(used, dtype=np.int32) * used
        return table[ids].astype(np.int32, copy=False), int(used.sum())
    values, inverse = np.unique(ids, return_inverse=True)
    shift = 0 if values.size and values[0] == 0 else 1
    return (inverse.reshape(ids.shape) + shift).astype(np.int32), int((values > 0).sum())
