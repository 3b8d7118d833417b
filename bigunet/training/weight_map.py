"""How much each pixel counts while a network learns.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, arXiv:1505.04597, section 3, equation 2::

    w(x) = w_c(x) + w0 · exp(−(d1(x) + d2(x))² / (2 σ²))

w_c balances the classes; d1 and d2 are the distances to the nearest and to the second
nearest cell, so that the narrow background between two cells weighs most.

Letters: Y and X pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bigunet.errors import InputError
from bigunet.training.targets import (
    IGNORE,
    Ids,
    check_instances,
    classes_from_instances,
)

__all__ = ["balanced_weights", "border_weights", "class_frequencies", "weight_map"]

SMALLEST = 1e-6
"""Border term that is still computed; what is less may be taken for 0."""


def weight_map(
    instances: Ids,
    w0: float = 10.0,
    sigma: float = 5.0,
    balance: bool = True,
    *,
    class_weights: Sequence[float] | npt.NDArray[Any] | None = None,
    ignore: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Weight of every pixel: equation 2 of the paper.

    Law: it depends on where the cells are, not on their ids; `instances` is not changed.

    Parameters
    ----------
    instances : (Y, X) integer array
        0 is background, every other value one cell, connected or not. Where cells touch
        there is no background to be weighted: `separate` them first.
    w0 : float
        The border term where d1 + d2 is 0.
    sigma : float
        How fast it falls, in pixels.
    balance : bool
        Whether w_c balances background and cells, or is 1 everywhere.
    class_weights : two floats, optional
        w_c of background and of cells, from the whole training set; see
        `balanced_weights`. Without it they are balanced in this image alone.
    ignore : (Y, X) bool array, optional
        Pixels that nobody judged: they weigh 0, belong to no cell and are not counted.

    Returns
    -------
    (Y, X) float32 array
        Above 0 wherever pixels count.

    Raises
    ------
    InputError
        Not a map of ids; `w0` or `sigma` out of range; class weights that are not two
        positive numbers, or were given although nothing is to be balanced.

    See Also
    --------
    border_weights : the second term alone, for targets of more classes.

    Examples
    --------
    >>> weight_map(np.array([[1, 0, 0, 2]]), balance=False).round(2)
    array([[1.  , 9.35, 9.35, 1.  ]], dtype=float32)
    """
    if class_weights is not None and not balance:
        raise InputError("class weights were given with balance=False: leave out one of the two")
    classes = classes_from_instances(instances, ignore)
    table = _class_table(classes, class_weights) if balance else np.ones(2)
    weights = np.zeros(classes.shape)
    valid = classes != IGNORE
    weights[valid] = table[classes[valid]]
    cells = instances if ignore is None else np.where(ignore, 0, instances)
    weights[valid] += border_weights(cells, w0, sigma)[valid]
    return weights.astype(np.float32)


def border_weights(instances: Ids, w0: float = 10.0, sigma: float = 5.0) -> npt.NDArray[np.float64]:
    """Weight of the background between cells: the second term of equation 2.

    Distances are Euclidean, in pixels, from a pixel's centre to the centre of the
    nearest pixel of a cell. They are looked for as far as they matter: up to
    ``d1 + d2 = σ · sqrt(2 ln(w0 / 1e-6))``, which is 28.4 pixels for the defaults. What
    is further apart has a term below 1e-6, and may be given 0.

    Parameters
    ----------
    instances, w0, sigma
        As for `weight_map`.

    Returns
    -------
    (Y, X) float64 array
        0 on cells, and everywhere where there are fewer than two of them.

    Raises
    ------
    InputError
        Not a map of ids; `w0` or `sigma` out of range.
    """
    if not 0 <= w0 < math.inf or not 0 < sigma < math.inf:
        raise InputError(f"w0 {w0:g} and sigma {sigma:g}: w0 from 0 and sigma above 0 are needed")
    cells = check_instances(instances)
    if w0 <= SMALLEST:
        return np.zeros(cells.shape)
    reach = sigma * math.sqrt(2 * math.log(w0 / SMALLEST))
    d1, d2 = _two_nearest(_small_ids(cells), reach)
    border = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    return np.where(cells == 0, border, 0.0)


def _two_nearest(
    cells: Ids, reach: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distances (Y, X) to the nearest and the second nearest cell, infinite where unknown.

    One distance transform per cell, of the cell's bounding box and `reach` around
    it: there the distance to this cell is exact, and beyond it is larger than `reach`.
    So all distances up to `reach` are right, whatever the order of the cells.
    """
    d1, d2 = np.full((2, *cells.shape), np.inf)
    boxes = ndimage.find_objects(cells)
    if sum(box is not None for box in boxes) < 2:
        return d1, d2
    for cell, box in enumerate(boxes, start=1):
        if box is not None:
            near = _grown(box, math.ceil(reach))
            distance: Any = ndimage.distance_transform_edt(cells[near] != cell)
            d2[near] = np.minimum(d2[near], np.maximum(d1[near], distance))
            d1[near] = np.minimum(d1[near], distance)
    return d1, d2


def _grown(box: tuple[slice, ...], pixels: int) -> tuple[slice, ...]:
    """Return the box with so many pixels around it; slicing ends at the image's end."""
    return tuple(slice(max(0, side.start - pixels), side.stop + pixels) for side in box)


def _small_ids(cells: Ids) -> Ids:
    """Return other ids for the same cells where a list over all ids would not fit."""
    if int(cells.max(initial=0)) <= max(cells.size, 2**16):
        return cells.astype(np.int32, copy=False)
    small = np.zeros(cells.shape, dtype=np.int32)
    small[cells != 0] = 1 + np.unique(cells[cells != 0], return_inverse=True)[1]
    return small


def _class_table(
    classes: npt.NDArray[np.uint8], given: Sequence[float] | npt.NDArray[Any] | None
) -> npt.NDArray[np.float64]:
    """w_c of background and of cells."""
    if given is None:
        return balanced_weights(class_frequencies([classes], 2))
    table = np.asarray(given, dtype=np.float64)
    if table.shape != (2,) or not (np.isfinite(table) & (table > 0)).all():
        raise InputError(f"class weights {given}: two positive numbers, background and cells")
    return table


def class_frequencies(
    targets: Iterable[npt.NDArray[Any]], classes: int, ignore: int | None = IGNORE
) -> npt.NDArray[np.int64]:
    """Pixels of each class over a training set; one target is in memory at a time.

    Parameters
    ----------
    targets : iterable of (Y, X) integer arrays
        Class maps, of any sizes.
    classes : int
        Number K of classes.
    ignore : int, optional
        A value that is not counted.

    Returns
    -------
    (K,) int64 array

    Raises
    ------
    InputError
        A class that is not among 0 … K − 1.

    Examples
    --------
    >>> class_frequencies([np.array([[0, 0, 1]]), np.array([[0, 255]])], classes=2)
    array([3, 1])
    """
    total = np.zeros(classes, dtype=np.int64)
    for target in targets:
        values = np.asarray(target).ravel()
        values = values if ignore is None else values[values != ignore]
        if values.size and not 0 <= values.min() <= values.max() < classes:
            wrong = values.min() if values.min() < 0 else values.max()
            raise InputError(f"class {wrong} in a target: {classes} classes are 0 to {classes - 1}")
        total += np.bincount(values.astype(np.intp), minlength=classes)
    return total


def balanced_weights(frequencies: npt.NDArray[np.int64] | Sequence[int]) -> npt.NDArray[np.float64]:
    """w_c of each class, so that all classes together weigh the same.

    ``w_k = N / (M · n_k)`` for a class with n_k pixels; N is the sum of all n_k, M the
    number of classes that occur. So the mean weight over all pixels counted is 1,
    and the learning rate means the same with and without balance. A class that
    does not occur is given 1.

    Parameters
    ----------
    frequencies : (K,) integers
        Pixels of each class, see `class_frequencies`.

    Returns
    -------
    (K,) float64 array

    Examples
    --------
    >>> balanced_weights([75, 25])
    array([0.66666667, 2.        ])
    """
    counts = np.asarray(frequencies, dtype=np.float64)
    occurs = counts > 0
    weights = np.ones_like(counts)
    np.divide(counts.sum() / max(1, occurs.sum()), counts, out=weights, where=occurs)
    return weights
