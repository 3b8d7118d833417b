"""The metadata of result images: what a reader needs to show a label or probabilities."""

from __future__ import annotations

import colorsys
import string
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from bigunet.errors import InputError
from bigunet.images.ngff import PROVENANCE
from bigunet.images.output import Output

__all__ = ["PROVENANCE", "Color", "default_color", "parse_color", "result_attributes"]

Color: TypeAlias = str | Sequence[int]
"""``RRGGBB`` or ``RRGGBBAA`` with or without ``#``, or three or four integers of 0 to 255."""
Json: TypeAlias = dict[str, Any]

AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def result_attributes(
    output: Output,
    *,
    name: str,
    source: str | None,
    provenance: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[Color] | None = None,
) -> Json:
    """Build the attributes of the group of a complete result.

    Parameters
    ----------
    source : str or None
        Relative path of the image that a label belongs to.
    provenance : mapping
        How the result was made; plain values, as they become JSON.
    class_names, class_colors : sequences, optional
        One for each class. Class 0 is background and transparent in labels.

    Raises
    ------
    InputError
        If a colour is none.
    """
    count = max(len(class_names or ()), len(class_colors or ()), output.channels)
    names = [*(class_names or ())] or [f"class {value}" for value in range(count)]
    colors = [parse_color(color) for color in class_colors or ()]
    colors += [default_color(value) for value in range(len(colors), len(names))]
    ome: Json = {"multiscales": [_multiscale(output, name)]}
    if output.kind == "probabilities":
        ome["omero"] = {"channels": _channels(names, colors)}
    elif output.kind == "objects":
        # No colours: viewers give each id its own, and nobody reads a million of them.
        ome["image-label"] = {"version": "0.5"} | _source(source)
    else:
        ome["image-label"] = _image_label(names, colors, source)
    if output.zarr_format == 3:
        return {"ome": {"version": "0.5"} | ome, PROVENANCE: dict(provenance)}
    for part in (ome["multiscales"][0], ome.get("omero"), ome.get("image-label")):
        if part is not None:
            part["version"] = "0.4"
    return ome | {PROVENANCE: dict(provenance)}


def parse_color(color: Color) -> tuple[int, int, int, int]:
    """Read a colour as red, green, blue and opacity of 0 to 255.

    Examples
    --------
    >>> parse_color("#ff8000"), parse_color([0, 10, 20])
    ((255, 128, 0, 255), (0, 10, 20, 255))
    """
    values = _hex_values(color) if isinstance(color, str) else [int(value) for value in color]
    if len(values) not in (3, 4) or not all(0 <= value <= 255 for value in values):
        raise InputError(f"{color!r} is not a colour; write it as RRGGBB, such as FF8000")
    red, green, blue, alpha = (*values, 255)[:4]
    return red, green, blue, alpha


def default_color(value: int) -> tuple[int, int, int, int]:
    """Colour of a class that has none of its own; grey is the background's."""
    if value == 0:
        return 128, 128, 128, 255
    # Steps of the golden angle keep any number of hues apart.
    rgb = colorsys.hsv_to_rgb((0.14 + 0.618034 * (value - 1)) % 1, 0.85, 1.0)
    red, green, blue = (round(255 * part) for part in rgb)
    return red, green, blue, 255


def _hex_values(color: str) -> list[int]:
    digits = color.removeprefix("#")
    if len(digits) not in (6, 8) or not set(digits) <= set(string.hexdigits):
        return []
    return list(bytes.fromhex(digits))


def _multiscale(output: Output, name: str) -> Json:
    axes = [
        {"name": axis.name, "type": AXIS_TYPES[axis.name]}
        | ({"unit": axis.unit} if axis.unit else {})
        for axis in output.axes
    ]
    shift = [{"type": "translation", "translation": list(output.translation)}]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": list(scale)},
                *(shift if any(output.translation) else []),
            ],
        }
        for level, scale in enumerate(output.scales)
    ]
    method = "mean" if output.kind == "probabilities" else "nearest"
    return {"name": name, "axes": axes, "datasets": datasets, "type": method}


def _image_label(
    names: Sequence[str], colors: Sequence[tuple[int, ...]], source: str | None
) -> Json:
    rgba = [[*color] if value else [0, 0, 0, 0] for value, color in enumerate(colors)]
    return {
        "version": "0.5",
        "colors": [{"label-value": value, "rgba": color} for value, color in enumerate(rgba)],
        # The values must be those of the colours.
        "properties": [{"label-value": value, "class": name} for value, name in enumerate(names)],
        **_source(source),
    }


def _source(source: str | None) -> Json:
    return {"source": {"image": source}} if source else {}


def _channels(names: Sequence[str], colors: Sequence[tuple[int, ...]]) -> list[Json]:
    return [
        {
            "label": name,
            "color": bytes(color[:3]).hex().upper(),
            "window": {"min": 0, "max": 255, "start": 0, "end": 255},
            # Background would be laid over everything else.
            "active": value > 0,
        }
        for value, (name, color) in enumerate(zip(names, colors, strict=True))
    ]
