"""Areas and lengths as users give them: in pixels, or in micrometres with their unit."""

from __future__ import annotations

import math
import re
from typing import TypeAlias

from bigunet.errors import InputError

__all__ = ["Size", "parse_area", "parse_length"]

Size: TypeAlias = float | str
"""Pixels, or text: ``20`` pixels, ``20um2`` or ``20um``."""

_NUMBER = r"\s*(\d+\.?\d*|\.\d+)\s*"


def parse_area(name: str, size: Size, pixel_size: float | None) -> float:
    """Return an area in pixels.

    Parameters
    ----------
    name : str
        What it is, for errors.
    size : float or str
        ``20`` pixels or ``"20um2"``.
    pixel_size : float or None
        Micrometres per pixel.

    Raises
    ------
    InputError
        It is no area, or the image has no unit.

    Examples
    --------
    >>> parse_area("min_area", 20, None), parse_area("min_area", "20um2", 0.5)
    (20.0, 80.0)
    """
    return _parse(name, size, pixel_size, "um2", 2)


def parse_length(name: str, size: Size, pixel_size: float | None) -> float:
    """Return a length in pixels, as `parse_area` does of ``15`` pixels or ``"15um"``."""
    return _parse(name, size, pixel_size, "um", 1)


def _parse(name: str, size: Size, pixel_size: float | None, unit: str, power: int) -> float:
    text = str(size).replace("µ", "u").replace("μ", "u").replace("²", "2")
    match = re.fullmatch(rf"{_NUMBER}(px|{unit})?\s*", text)
    if match is None or not math.isfinite(float(match[1])):
        raise InputError(
            f"{name} '{size}' is no size; give pixels such as 20, or micrometres such as 20{unit}"
        )
    if match[2] != unit:
        return float(match[1])
    if pixel_size is None:
        raise InputError(
            f"{name} '{size}' is in micrometres, but the image does not say how large its pixels "
            f"are; give pixels"
        )
    return float(match[1]) / pixel_size**power
