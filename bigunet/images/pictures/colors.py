"""Colours of channels and of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, cycle, repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "CHANNEL_COLORS",
    "LARGEST",
    "Color",
    "composite",
    "distinct_colors",
    "label_edges",
    "paint_labels",
]

Array: TypeAlias = npt.NDArray[Any]
Color: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

LARGEST = 3e38  # what float32 can hold
PERCENTILES = (1.0, 99.8)  # become black and white
CHANNEL_COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")


def composite(image: Array, channel_colors: Sequence[str | None] | None = None) -> Array:
    """Turn an image into (Y, X, 3) float, 0 to 255."""
    stack = image[None] if image.ndim == 2 else image
    if stack.shape[0] == 3 and stack.dtype == np.uint8:
        return np.moveaxis(stack, 0, -1).astype(np.float32)
    if stack.shape[0] == 1:
        return np.repeat(_stretched(stack[0])[..., None], 3, axis=-1)
    picture = np.zeros((*stack.shape[1:], 3), np.float32)
    given = chain(channel_colors or (), repeat(None))
    for channel, color, other in zip(stack, given, cycle(CHANNEL_COLORS), strict=False):
        rgb = np.array(_hex(color) or _hex(other), np.float32)
        picture += _stretched(channel)[..., None] * (rgb / 255)
    return np.minimum(picture, 255)


def paint_labels(
    labels: Array, colors: Mapping[int, Sequence[int]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the colour of each pixel's label, (Y, X, 3), and where one is drawn."""
    values, place = np.unique(labels, return_inverse=True)
    table = distinct_colors(values)
    drawn = values != 0
    for k, value in enumerate(values.tolist()):
        if value in colors and value != 0:
            rgba = colors[value]
            table[k] = rgba[:3]
            drawn[k] = len(rgba) < 4 or rgba[3] > 0
    place = place.reshape(labels.shape)
    return table[place], drawn[place]


def distinct_colors(values: Array) -> npt.NDArray[np.float32]:
    """Give each id a bright colour by hashing it, (n, 3): neighbours' ids look different."""
    mixed = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    hue = (mixed >> np.uint64(40)).astype(np.float32)[:, None] / np.float32(2**24)
    light = 0.75 + 0.25 * (mixed >> np.uint64(20) & np.uint64(1)).astype(np.float32)[:, None]
    turn = np.abs((hue + np.array([0, 2 / 3, 1 / 3], np.float32)) % 1 * 6 - 3) - 1
    return np.asarray(255 * light * (0.2 + 0.8 * np.clip(turn, 0, 1)), np.float32)


def label_edges(labels: Array) -> npt.NDArray[np.bool_]:
    """Find pixels of an object that have another label beside them."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        first, second = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        differ = first != second
        along = np.moveaxis(edge, axis, 0)
        along[:-1] |= differ
        along[1:] |= differ
    edge &= labels != 0
    return edge


def _stretched(channel: Array) -> Array:
    """Stretch the contrast between percentiles, to 0 to 255."""
    values = np.nan_to_num(channel.astype(np.float64), posinf=0, neginf=0).clip(-LARGEST, LARGEST)
    low, high = np.percentile(values, PERCENTILES)
    spread = (high - low) or (values.max() - low) or 1.0
    stretched: Array = np.clip((values - low) / spread, 0, 1).astype(np.float32) * np.float32(255)
    return stretched


def _hex(color: str | None) -> Color | None:
    try:
        value = int(color or "", 16)
    except ValueError:
        return None
    return value >> 16 & 255, value >> 8 & 255, value & 255
