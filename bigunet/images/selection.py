"""Which level and which channels of an image are meant."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bigunet.errors import InputError
from bigunet.images.image import Image, checked_level

__all__ = ["channel_index", "choose_channels", "choose_level"]

WARN_RATIO = 1.5
"""How far the pixel size may be off without a warning."""


def choose_level(
    image: Image, level: int | None = None, pixel_size: float | None = None
) -> tuple[int, str | None]:
    """Choose a level by number, or the one whose pixel size is nearest (in ratio).

    Parameters
    ----------
    image : Image
    level : int, optional
        Wins over `pixel_size`, which then only warns.
    pixel_size : float, optional
        Wanted, in micrometres. Without it and `level`: level 0.

    Returns
    -------
    index : int
    line : str or None
        What to tell the user; begins with ``warning:`` where the image has no
        unit of length or is off by more than 1.5×.

    Raises
    ------
    InputError
        If there is no such level, or `pixel_size` is negative, zero or absurd.
    """
    if level is not None:
        checked_level(image, level)
    if pixel_size is None:
        return level or 0, None
    if not 1e-9 <= pixel_size <= 1e9:
        raise InputError(f"{pixel_size} is no pixel size in micrometres")
    sizes = [image.pixel_size(i) for i in range(len(image.levels))]
    ratios = [size / pixel_size for size in sizes if size is not None]
    if not ratios:
        return level or 0, (
            f"warning: {image.path} gives no unit of length, so {pixel_size:g} µm cannot be "
            f"looked for: level {level or 0} is taken"
        )
    nearest = min(range(len(ratios)), key=lambda i: abs(math.log(ratios[i])))
    chosen = nearest if level is None else level
    return chosen, _level_line(chosen, pixel_size, ratios[chosen])


def choose_channels(
    image: Image, wanted: Sequence[int | str] | int | str | None, needed: int
) -> tuple[int, ...]:
    """Choose the channels that a model of `needed` channels gets.

    Parameters
    ----------
    image : Image
    wanted : sequence of int or str, optional
        Indices (also as digits) or names; an index wins over a name of the same
        digits. One may stand more than once. None takes all, where the number fits.
    needed : int
        Channels of the model.

    Returns
    -------
    tuple of int

    Raises
    ------
    InputError
        If a channel does not exist or the number is wrong; lists indices and names.
    """
    if wanted is None:
        chosen = tuple(range(len(image.channels)))
        given = f"the image has {_count(len(chosen), 'channel')}: choose with --channels from"
        if len(chosen) < needed:
            given = f"the image has only {_count(len(chosen), 'channel')}:"
    else:
        asked = [wanted] if isinstance(wanted, int | str) else wanted
        chosen = tuple(channel_index(image, one) for one in asked)
        given = f"{_count(len(chosen), 'channel')} chosen: choose {needed} from"
    if len(chosen) != needed:
        took = f"the model takes {_count(needed, 'channel')} and"
        raise InputError(f"{image.path}: {took} {given} {_channel_list(image)}")
    return chosen


def channel_index(image: Image, wanted: int | str) -> int:
    """Return the index of a channel given by index, digits or name, or say which there are."""
    named = [channel.index for channel in image.channels if channel.name == wanted]
    text = str(wanted).strip()
    if text.isdecimal() and int(text) < len(image.channels):
        return int(text)
    if len(named) == 1:
        return named[0]
    problem = "is the name of several channels: give an index" if named else "is no channel: choose"
    raise InputError(f"{image.path}: {wanted!r} {problem} from {_channel_list(image)}")


def _level_line(level: int, wanted: float, ratio: float) -> str:
    line = f"level {level} has pixels of {wanted * ratio:.4g} µm, wanted are {wanted:.4g} µm"
    off = max(ratio, 1 / ratio)
    return f"warning: {line}: off by {off:.2g}×" if off > WARN_RATIO else line


def _channel_list(image: Image, most: int = 20) -> str:
    named = [f"{channel.index} {channel.name!r}" for channel in image.channels[:most]]
    more = f" and so on to {len(image.channels) - 1}" if len(image.channels) > most else ""
    return ", ".join(named) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
