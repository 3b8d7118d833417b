"""What a mask means for blocks: which are needed, what is left of them, which objects it cuts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.geometry import Block, Span, Tiling
from bigunet.masking.mask import Mask

__all__ = ["apply_mask", "blocks_inside", "cut_ids", "flag_cut"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Array: TypeAlias = npt.NDArray[Any]


def blocks_inside(
    mask: Mask, tiling: Tiling, region: tuple[Span, Span] | None = None, planes: int = 1
) -> Bools:
    """Tell which blocks need the network: those with a pixel inside.

    Returns
    -------
    (planes * blocks,) bool array
        Plane after plane, in the order of `Tiling.blocks`, as `Plan.work` counts.
    """
    rows, columns = ([span.slice for span in spans] for spans in tiling.spans(region))
    known: dict[int, Bools] = {}
    for at in range(planes):
        if mask.number(at) not in known:
            known[mask.number(at)] = mask.touches(at, rows, columns).ravel()
    return np.concatenate([known[mask.number(at)] for at in range(planes)])


def apply_mask(results: Mapping[str, Array], inside: Bools) -> dict[str, Array]:
    """Make background of what lies outside; pixels inside are left as they are.

    Parameters
    ----------
    results : mapping
        ``classes`` (y, x) and ``probabilities`` (K, y, x) uint8, as far as there are any.
    inside : (y, x) bool array

    Returns
    -------
    dict
        New arrays: outside the class is 0, and no class has a probability, as in blocks that are
        never written.
    """
    return {kind: np.where(inside, data, data.dtype.type(0)) for kind, data in results.items()}


def cut_ids(ids: Array, mask: Mask, at: int, block: Block) -> Array:
    """Return the objects of a block that the mask cuts, ascending.

    An object is cut where one of its pixels has a 4-neighbour that lies outside the mask
    and inside the slide. The union over all blocks does not depend on the blocks.

    Parameters
    ----------
    ids : (y, x) integer array
        Of the block: 0 is background, and so is what lies outside the mask.
    at : int
        Number of the plane.
    """
    around = [Span(span.start - 1, span.stop + 1) for span in (block.y, block.x)]
    y, x = (span.cut(Span(0, size)) for span, size in zip(around, mask.shape, strict=True))
    outside = ~mask.read(at, y.slice, x.slice)
    # Beyond the slide nothing is cut: the image ends there, not the mask.
    pairs = zip(around, (y, x), strict=True)
    outside = np.pad(outside, [(n.start - m.start, m.stop - n.stop) for m, n in pairs])
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    found: Array = np.unique(ids[beside & (ids != 0)])
    return found


def flag_cut(count: int, found: Iterable[Array]) -> Bools:
    """Return for each id of 0 … count whether a mask cuts it, from `cut_ids` of all blocks."""
    cut = np.zeros(count + 1, dtype=bool)
    for ids in found:
        cut[ids] = True
    cut[0] = False
    return cut
