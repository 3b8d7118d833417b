"""What makes objects of a class map, beside touching: gap, holes, sizes, splitting.

The route from blocks of classes to objects of the whole array; every step but the
merges looks at one block and what is around it::

    classes (block + rules.halo)                              only to split
      split_classes     → values                              bigunet.instances.split
      label_block       → Runs, BlockRecord                   bigunet.instances.block
    merge_objects(all records)        → Objects               bigunet.instances.collect
    ids (block + rules.ring)                                  only if rules.refine
      refine_block      → Runs, RefinedRecord                 bigunet.instances.refine
    merge_refined(all records)        → Objects               bigunet.instances.collect
    Runs.expand(Objects.table(block)) → ids of the block
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError

__all__ = ["Rules"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How objects are made; the defaults are plain 4-connected objects of each class.

    All lengths are in pixels of the array that is labelled.

    Raises
    ------
    InputError
        A value that cannot be meant; the message names it.
    """

    gap: int = 0
    """Background between two objects, up to this wide, is given to the nearer; 0: none."""
    fill_holes: bool = False
    """Fill background that one object encloses."""
    min_area: int = 0
    """Objects of fewer pixels are removed."""
    max_area: int | None = None
    """Objects of more pixels are removed; None: none."""
    split: Literal["distance"] | None = None
    """How objects that grew together are split; None: not at all."""
    max_diameter: int | None = None
    """Longest side of the box of what hangs together, needed to split: the halo of a block."""

    def __post_init__(self) -> None:
        for name in ("gap", "min_area"):
            _check_count(name, getattr(self, name), 0)
        for name in ("max_area", "max_diameter"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), 1)
        if self.max_area is not None and self.max_area < self.min_area:
            raise InputError(
                f"min_area {self.min_area} is above max_area {self.max_area}: no object is left"
            )
        if self.split not in (None, "distance"):
            raise InputError(f"split {self.split!r}: only 'distance' is known")
        if (self.split is None) != (self.max_diameter is None):
            raise InputError(
                f"split {self.split!r} with max_diameter {self.max_diameter}: give both or neither"
            )

    @property
    def halo(self) -> int:
        """Pixels of the class map around a block that splitting looks at."""
        return self.max_diameter or 0

    @property
    def ring(self) -> int:
        """Pixels of ids around a block that `refine_block` looks at."""
        return self.gap + int(self.fill_holes)

    @property
    def refine(self) -> bool:
        """Whether merged objects have to be looked at once more, block by block."""
        return self.gap > 0 or self.fill_holes

    def kept(self, area: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell of each area, (N,) in pixels, whether such an object stays."""
        most = np.iinfo(np.int64).max if self.max_area is None else self.max_area
        kept: npt.NDArray[np.bool_] = (area >= self.min_area) & (area <= most)
        return kept


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} {value!r}: a whole number of pixels from {least} is needed")
