"""From pixels to lengths: scales, translations and units of OME-Zarr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from bigunet.errors import InputError
from bigunet.images.groups import Json, mapping

__all__ = ["Numbers", "combine_transformations", "micrometres", "relative_scales"]

Numbers: TypeAlias = tuple[float, ...]

LARGEST = 1e100
"""Of the numbers in a transformation; JSON has integers of any length, and NaN."""

MICROMETRES = {
    "picometer": 1e-6,
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "decimeter": 1e5,
    "meter": 1e6,
    "kilometer": 1e9,
    "inch": 25_400.0,
    "foot": 304_800.0,
    "yard": 914_400.0,
}
"""Units of length, as NGFF spells them."""
UNIT_ALIASES = {
    "pm": "picometer",
    "å": "angstrom",
    "nm": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",  # the micro sign
    "μm": "micrometer",  # the Greek letter
    "micron": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
}
"""Spellings that writers use although the specification has only the long ones."""


def combine_transformations(transformations: Iterable[Any], ndim: int) -> tuple[Numbers, Numbers]:
    """Combine transformations, one after the other, to a scale and a translation.

    Law: ``pixel * scale + translation`` is where the whole chain puts the pixel.

    Raises
    ------
    InputError
        If one is neither identity, scale nor translation, or has not `ndim` finite
        numbers, or if they make pixels without a size.
    """
    scale, translation = (1.0,) * ndim, (0.0,) * ndim
    for transformation in transformations:
        scale, translation = _applied(mapping(transformation), scale, translation)
    if min(scale[-2:]) < 1 / LARGEST or max(map(abs, scale + translation)) > LARGEST:
        raise InputError(f"its scale {list(scale)} is not above 0 and finite in y and x")
    return scale, translation


def micrometres(unit: str | None) -> float | None:
    """Micrometres in one `unit`; None where it is no length.

    Examples
    --------
    >>> micrometres("nanometer")
    0.001
    """
    plain = (unit or "").strip().lower().replace("metre", "meter")
    plain = plain.removesuffix("s") if plain.endswith(("meters", "microns")) else plain
    return MICROMETRES.get(UNIT_ALIASES.get(plain, plain))


def relative_scales(shapes: Sequence[Sequence[int]]) -> tuple[Numbers, ...]:
    """Scales of levels, in pixels of the first, from nothing but their shapes.

    A whole number is taken wherever it explains the shape (439 → 219 is 2).

    Examples
    --------
    >>> relative_scales([(3, 439), (3, 219), (3, 109)])
    ((1.0, 1.0), (1.0, 2.0), (1.0, 4.0))
    """
    first = shapes[0]
    return tuple(tuple(_ratio(a, b) for a, b in zip(first, s, strict=True)) for s in shapes)


def _ratio(whole: int, part: int) -> float:
    factor = max(1, round(whole / part))
    fits = whole // factor <= part <= -(-whole // factor)
    return float(factor) if fits else whole / part


def _applied(transformation: Json, scale: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
    """Follow ``x * scale + shift`` by one more transformation."""
    kind = transformation.get("type")
    if kind == "identity":
        return scale, shift
    if kind not in {"scale", "translation"}:
        raise InputError(f"a coordinate transformation of type {kind!r} is not read")
    values = _numbers(transformation.get(kind), kind, len(scale))
    if kind == "translation":
        return scale, tuple(s + v for s, v in zip(shift, values, strict=True))
    by = tuple(zip(scale, shift, values, strict=True))
    return tuple(s * v for s, _, v in by), tuple(t * v for _, t, v in by)


def _numbers(values: Any, kind: str, ndim: int) -> Numbers:
    found = values if isinstance(values, list) else []
    numbers = [v for v in found if isinstance(v, int | float) and abs(v) <= LARGEST]
    if len(numbers) != len(found) or len(found) != ndim:
        raise InputError(f"its {kind} {values!r} is not {ndim} finite numbers, one for each axis")
    return tuple(float(v) for v in numbers)
