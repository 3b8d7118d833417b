"""One annotated plane: looked at once, then read when it is needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.images.image import sizes_text
from bigunet.training.files import read_image, read_mask
from bigunet.training.mask_rules import MaskRule, count_values
from bigunet.training.masks import Annotation, annotate
from bigunet.training.pairs import Pair, Source, source_path

__all__ = ["Example", "Facts", "inspect"]

Array: TypeAlias = npt.NDArray[Any]

_ALL = slice(None)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One annotated plane; small and picklable, its pixels are read on demand."""

    name: str
    """Of the image; planes of one image share it."""
    group: str
    """What is held back together: a field of tiles, a film, or the image itself."""
    pixels: Source
    mask: Source
    rule: MaskRule
    shape: tuple[int, int, int]
    """(C, Y, X)."""
    dtype: np.dtype[Any]
    has_objects: bool

    def image(self) -> Array:
        """Read the pixels, (C, Y, X), as stored."""
        return read_image(self.pixels) if isinstance(self.pixels, Path) else _plane(self.pixels)

    def annotation(self) -> Annotation:
        """Read objects, their classes, and what is not known."""
        try:
            return annotate(_mask(self.mask), self.rule)
        except InputError as error:
            raise InputError(f"{self.mask_path}: {error}") from error

    def instances(self) -> npt.NDArray[np.int32]:
        """Read the objects, (Y, X): 0 is background, 1 to n are objects."""
        return self.annotation().instances

    def ignore(self) -> npt.NDArray[np.bool_]:
        """Read where nothing is known, (Y, X)."""
        return self.annotation().ignore

    @property
    def mask_path(self) -> Path:
        """File or array of the mask."""
        return source_path(self.mask)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What one look at a pair tells."""

    pair: Pair
    shape: tuple[int, int, int]
    """(C, Y, X)."""
    dtype: np.dtype[Any]
    values: Counter[int]
    """Pixels of each value in the mask."""

    def example(self, rule: MaskRule, group: str) -> Example:
        """Return the example, once it is known how masks are read."""
        return Example(
            name=self.pair.name,
            group=group,
            pixels=self.pair.pixels,
            mask=self.pair.mask,
            rule=rule,
            shape=self.shape,
            dtype=self.dtype,
            has_objects=rule.has_objects(self.values),
        )


def inspect(pair: Pair) -> Facts:
    """Look at an image and its mask once; of a file all is decoded, of a plane the mask.

    Raises
    ------
    InputError
        One cannot be read, or their sizes differ; names the file.
    """
    if isinstance(pair.pixels, Path):
        image = read_image(pair.pixels)
        channels, height, width = image.shape
        dtype = image.dtype
    else:
        (channels, height, width), dtype = pair.pixels.shape, pair.pixels.dtype
    mask = _mask(pair.mask)
    if mask.shape != (height, width):
        raise InputError(
            f"{source_path(pair.pixels)} has {sizes_text((height, width))} pixels and its mask "
            f"{source_path(pair.mask)} has {sizes_text(mask.shape)}: the sizes have to be the same"
        )
    shape = (channels, height, width)
    return Facts(pair=pair, shape=shape, dtype=dtype, values=Counter(count_values(mask)))


def _mask(source: Source) -> Array:
    return read_mask(source) if isinstance(source, Path) else _plane(source)[0]


def _plane(source: Any) -> Array:
    pixels: Array = source.read(_ALL, _ALL)
    return pixels
