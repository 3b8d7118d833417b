"""Label a lazy array as if it were labelled whole.

label(mask) == scipy.ndimage.label(whole mask)      for any chunks, workers, order
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.base import tokenize

from bigunet.errors import InputError
from bigunet.instances.block import BlockRecord, Runs, label_block
from bigunet.instances.graph import Place, stage_blocks
from bigunet.instances.merge import Merged, id_dtype, merge_records
from bigunet.instances.neighbours import as_structure, check_positions

__all__ = ["label"]


def label(mask: Any, structure: Any = None, *, by_class: bool = False) -> tuple[da.Array, da.Array]:
    """Give every object of a mask an id, without seams between chunks.

    Values are those of `scipy.ndimage.label` of the whole array, for any chunks,
    number of workers and order of work.

    Parameters
    ----------
    mask : dask or numpy array, one axis or more
        What is not zero is foreground; booleans, integers or floats.
    structure : (3, …) array_like, optional
        Which neighbours of a pixel belong to the same object, 3 wide along every axis
        and symmetric. By default those that share a face (4-connectivity in 2-D).
    by_class : bool
        Join only pixels of equal value, as `skimage.measure.label` with
        ``background=0`` does; booleans or integers only. (Its ids are in another
        order for volumes with an axis of one pixel; these are in raster order always.)

    Returns
    -------
    labels : dask array of the same shape and chunks
        0 for background; 1 … N in raster order of each object's first pixel. uint32
        where the array has fewer than 2**32 pixels, uint64 otherwise.
    count : dask array of shape (), int64
        N. ``dask.compute(labels, count)`` labels once for both.

    Raises
    ------
    InputError
        The mask or the structure cannot be used as given.

    Examples
    --------
    >>> mask = da.from_array(np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 2, 2]]), chunks=2)
    >>> labels, count = label(mask)
    >>> labels.compute(), int(count)
    (array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 2, 2]], dtype=uint32), 3)
    """
    array = _as_mask(mask, by_class)
    step = _LabelBlock(as_structure(structure, array.ndim), array.shape, by_class)
    check_positions(array.shape)
    token = tokenize(array, step.structure, by_class)
    staged = stage_blocks(array, array.chunks, step, ("label", token))
    return staged.labels(id_dtype(array.size)), staged.derived("count", _count, (), np.int64)


@dataclass(frozen=True)
class _LabelBlock:
    structure: npt.NDArray[np.bool_]
    whole: tuple[int, ...]
    by_class: bool

    def __call__(self, mask: Any, place: Place) -> tuple[Runs, BlockRecord]:
        return label_block(
            np.asarray(mask),
            self.structure,
            origin=tuple(start for start, _ in place),
            whole=self.whole,
            by_class=self.by_class,
        )

    def merge(self, records: Sequence[BlockRecord]) -> Merged:
        return merge_records(records, self.structure, self.whole)


def _count(merged: Merged) -> np.int64:
    return np.int64(merged.count)


def _as_mask(mask: Any, by_class: bool) -> da.Array:
    """Return the mask as a dask array that can be labelled."""
    array = mask if isinstance(mask, da.Array) else da.asarray(mask)
    wanted = "booleans or integers" if by_class else "booleans, integers or floats"
    if array.dtype.kind not in ("biu" if by_class else "biuf"):
        raise InputError(f"a mask of type {array.dtype} cannot be labelled; give {wanted}")
    if array.ndim == 0:
        raise InputError("a mask without axes has no objects; give an array of at least one axis")
    if any(math.isnan(size) for size in array.shape):
        raise InputError(
            f"mask has unknown chunk sizes (shape {array.shape}); call compute_chunk_sizes() first"
        )
    return array
