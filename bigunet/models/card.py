"""What a model file says beside the weights: names, colours, and what the pixels must be like."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from bigunet.errors import InputError
from bigunet.images.intensity import IntensityRule

__all__ = ["ModelCard", "default_class_names", "default_colors"]

# The name becomes a label's folder and part of a URL, so it can name nothing else.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COLOR = re.compile(r"#[0-9a-f]{6}")
# Okabe and Ito's palette, told apart by colour-blind readers; the background is black.
_PALETTE = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_ABOUT = ("data", "licence", "recipe", "note")
_LATER = {"instances", "diameters", "about", "scores"}
"""Entries that files of earlier versions do not have; their defaults say that nothing is known."""
# What a stranger's file says is shown to people, so it is short and controls no terminal.
_MOST_SIGNS = 1000
_MOST_SCORES = 100


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Settings that travel with a network; the defaults are those of a bare one.

    Raises
    ------
    InputError
        A value that cannot be meant; the message names it.
    """

    name: str = "unet"
    """Name of the model, and of the labels it makes: letters, digits, ``.``, ``_``, ``-``."""
    class_names: tuple[str, ...] = ()
    """One per class; empty: `default_class_names`."""
    class_colors: tuple[str, ...] = ()
    """``#rrggbb``, one per class; empty: `default_colors`."""
    intensity: IntensityRule | None = None
    """How pixels are normalised; None: not at all."""
    pixel_size: float | None = None
    """Side of the pixels it was trained on, in micrometres; None: not known."""
    border: Literal["symmetric"] = "symmetric"
    """How the image goes on beyond its end, in numpy's words."""
    gap: int = 0
    """Background pixels that training put between touching objects, to be undone."""
    instances: bool = False
    """Whether it was trained on objects, so that objects are what it is asked for."""
    diameters: tuple[float, float] | None = None
    """Equivalent diameters of objects it was trained on, in pixels: 1st and 99th percentile."""
    about: Mapping[str, str] = field(default_factory=dict)
    """For people: `data`, `licence`, `recipe` and `note`, as far as something is said."""
    scores: Mapping[str, float | str] = field(default_factory=dict)
    """For people: how good it is, by what it was scored on."""

    def __post_init__(self) -> None:
        name: Any = self.name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(
                f"model name {name!r}: use up to 100 letters, digits, '.', '_' or '-', "
                "the first a letter or digit"
            )
        for what in ("class_names", "class_colors"):
            object.__setattr__(self, what, _strings(getattr(self, what), what))
        object.__setattr__(self, "class_colors", tuple(c.lower() for c in self.class_colors))
        for color in self.class_colors:
            if not _COLOR.fullmatch(color):
                raise InputError(f"class color {color!r}: use '#rrggbb'")
        if len(set(self.class_names)) < len(self.class_names) or "" in self.class_names:
            raise InputError(f"class names {self.class_names}: each must be different, none empty")
        if self.intensity is not None and not isinstance(self.intensity, IntensityRule):
            raise InputError(f"intensity {self.intensity!r}: an IntensityRule or None is needed")
        if self.pixel_size is not None:
            object.__setattr__(self, "pixel_size", _micrometres(self.pixel_size))
        if isinstance(self.gap, bool) or not isinstance(self.gap, int) or self.gap < 0:
            raise InputError(f"gap {self.gap!r}: a number of pixels from 0 is needed")
        if self.border != "symmetric":
            raise InputError(f"border {self.border!r}: only 'symmetric' is known")
        if not isinstance(self.instances, bool):
            raise InputError(f"instances {self.instances!r}: True or False is needed")
        if self.diameters is not None:
            object.__setattr__(self, "diameters", _diameters(self.diameters))
        object.__setattr__(self, "about", _about(self.about))
        object.__setattr__(self, "scores", _scores(self.scores))

    def check_classes(self, classes: int) -> None:
        """Raise InputError unless names and colours, where given, are one per class."""
        for what in ("class_names", "class_colors"):
            given = len(getattr(self, what))
            if given not in (0, classes):
                raise InputError(f"{given} {what} for {classes} classes: give one each, or none")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as they stand in a model file."""
        return {
            **asdict(self),
            "class_names": list(self.class_names),
            "class_colors": list(self.class_colors),
            "diameters": None if self.diameters is None else list(self.diameters),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """Build a card from `to_dict`'s values, of this version or an earlier one.

        Raises
        ------
        InputError
            Unknown or missing entries, or values that cannot be meant.
        """
        names = {entry.name for entry in fields(cls)}
        _check_keys(values, names, "card", optional=_LATER)
        intensity = values["intensity"]
        if intensity is not None:
            _check_keys(intensity, {entry.name for entry in fields(IntensityRule)}, "intensity")
            intensity = IntensityRule(**intensity)
        return cls(**{**values, "intensity": intensity})


def default_class_names(classes: int) -> tuple[str, ...]:
    """Return background, foreground; or background, class 1 and so on.

    Examples
    --------
    >>> default_class_names(3)
    ('background', 'class 1', 'class 2')
    """
    if classes == 2:
        return ("background", "foreground")
    return tuple(f"class {c}" if c else "background" for c in range(classes))


def default_colors(classes: int) -> tuple[str, ...]:
    """Return a colour ``#rrggbb`` per class: black, then a palette that repeats."""
    return tuple(_PALETTE[1 + (c - 1) % (len(_PALETTE) - 1) if c else 0] for c in range(classes))


def _strings(values: Any, what: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise InputError(f"{what} {values!r:.80}: a list of strings is needed")
    for text in values:
        _check_text(text, what)
    return tuple(map(str, values))  # plain ones: torch reads no others back


def _micrometres(value: Any) -> float:
    if not _is_number(value) or not value > 0:
        raise InputError(f"pixel size {value!r}: micrometres above 0 are needed")
    return float(value)


def _diameters(values: Any) -> tuple[float, float]:
    if isinstance(values, list | tuple) and len(values) == 2 and all(map(_is_number, values)):
        low, high = map(float, values)
        if 0 < low <= high:
            return low, high
    raise InputError(f"diameters {values!r:.80}: two numbers of pixels above 0 are needed")


def _about(values: Any) -> dict[str, str]:
    """Return what is said under known headings, and nothing of what is empty."""
    if not isinstance(values, Mapping) or not set(values) <= set(_ABOUT):
        raise InputError(f"about {values!r:.80}: a table of {', '.join(_ABOUT)} is needed")
    said = {what: values[what] for what in _ABOUT if what in values}
    for what, text in said.items():
        _check_text(text, what)
    return {what: str(text) for what, text in said.items() if text}


def _scores(values: Any) -> dict[str, float | str]:
    if not isinstance(values, Mapping) or len(values) > _MOST_SCORES:
        raise InputError(f"scores: a table of up to {_MOST_SCORES} lines is needed")
    for what, score in values.items():
        _check_text(what, "the name of a score")
        if not _is_number(score):
            _check_text(score, f"score of {what}")
    return {str(k): float(v) if _is_number(v) else str(v) for k, v in values.items() if v != ""}


def _is_number(value: Any) -> bool:
    # No NaN, and no whole number that is too large for a float.
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return usable and abs(value) < 1e300


def _check_text(text: Any, what: str) -> None:
    if not isinstance(text, str) or not text.isprintable() or len(text) > _MOST_SIGNS:
        raise InputError(f"{what} {text!r:.80}: one line of up to {_MOST_SIGNS} signs is needed")


def _check_keys(
    values: Any, expected: set[str], what: str, *, optional: Collection[str] = ()
) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"{what} is not a table of settings")
    odd = (set(values) ^ expected) - (expected & set(optional))
    if odd:
        names = ", ".join(sorted(repr(key) for key in odd))
        raise InputError(f"{what} has entries missing or unknown: {names}")
