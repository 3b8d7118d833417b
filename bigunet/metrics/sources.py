"""What is evaluated, as pairs of planes: arrays, files, folders, OME-Zarr labels.

An array or a file is one plane in memory. The planes (t, z) of an OME-Zarr label are
read window by window, and each is scored as an image of its own, as it was segmented.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError, NotFoundError
from bigunet.images.open import Plane, image_planes, open_image, read_provenance
from bigunet.metrics.files import list_files, read_file

__all__ = ["Given", "Match", "Pair", "Source", "Window", "match_names", "open_pairs", "windows"]

Array: TypeAlias = npt.NDArray[Any]
Window: TypeAlias = tuple[slice, slice]
Given: TypeAlias = npt.NDArray[Any] | str | os.PathLike[str]

BLOCK = 2048
"""Side of the windows that are read at once, in pixels."""


class Source(Protocol):
    """A plane whose pixels are read when they are needed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its pixels."""
        ...

    def read(self, y: slice, x: slice) -> Array:
        """Read a window, (Y, X)."""
        ...


@dataclass(frozen=True, eq=False)
class Stored:
    """A plane in memory."""

    array: Array

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.array.shape[0], self.array.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its pixels."""
        return self.array.dtype

    def read(self, y: slice, x: slice) -> Array:
        """Read a window, (Y, X)."""
        window: Array = self.array[y, x]
        return window


@dataclass(frozen=True)
class Layer:
    """A plane of an OME-Zarr label, or of one channel of probabilities."""

    plane: Plane

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.plane.shape[1], self.plane.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its pixels."""
        return self.plane.dtype

    def read(self, y: slice, x: slice) -> Array:
        """Read a window, (Y, X)."""
        window: Array = self.plane.read(y, x)[0]
        return window


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A plane of the prediction and the same of the truth."""

    name: str
    prediction: Source
    truth: Source
    probable: bool = False
    """Whether the prediction is probabilities by what it is: floats, or channels."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.truth.shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Match:
    """A prediction and its truth, not opened yet."""

    name: str
    prediction: Given
    truth: Given


def windows(shape: tuple[int, int], block: int = BLOCK) -> Iterator[Window]:
    """Yield the windows of a plane in raster order."""
    for y in range(0, shape[0], block):
        for x in range(0, shape[1], block):
            yield slice(y, min(y + block, shape[0])), slice(x, min(x + block, shape[1]))


def match_names(prediction: Given, truth: Given) -> tuple[tuple[Match, ...], tuple[str, ...]]:
    """Pair what is given; files of two folders by their names without suffix.

    Returns
    -------
    matches : tuple of Match
    notes : tuple of str
        What was left out.

    Raises
    ------
    NotFoundError
        If something is not there.
    InputError
        If a truth has no prediction, or only one of the two is a folder.
    """
    folders = [_is_folder(prediction), _is_folder(truth)]
    if folders == [False, False]:
        return (Match(name=_name(truth), prediction=prediction, truth=truth),), ()
    if isinstance(prediction, np.ndarray) or isinstance(truth, np.ndarray) or not all(folders):
        raise InputError(
            "a folder of masks is compared with a folder of masks: give two folders, two files "
            "or two labels"
        )
    found, wanted = list_files(Path(prediction)), list_files(Path(truth))
    missing = [name for name in wanted if name not in found]
    if missing:
        names = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise InputError(
            f"{len(missing)} of {len(wanted)} masks of {truth} have no prediction of the same "
            f"name in {prediction}: {names}"
        )
    extra = len(found) - len(wanted)
    notes = (f"{extra} predictions have no truth and were left out",) if extra else ()
    return tuple(Match(name=n, prediction=found[n], truth=wanted[n]) for n in wanted), notes


def open_pairs(match: Match) -> tuple[Pair, ...]:
    """Open a match: a pair for each plane.

    Raises
    ------
    InputError
        If one of them cannot be read, or the two do not fit each other.
    """
    predictions, probable = _planes(match.prediction)
    truths, truth_probable = _planes(match.truth)
    if truth_probable:
        raise InputError(f"{match.name}: a truth is ids or classes, and this one is probabilities")
    if len(predictions) != len(truths):
        raise InputError(
            f"{match.name}: the prediction has {len(predictions)} planes and the truth "
            f"{len(truths)}"
        )
    names = [match.name] if len(truths) == 1 else [f"{match.name} {where}" for where, _ in truths]
    pairs = [
        Pair(name=name, prediction=p, truth=t, probable=probable)
        for name, (_, p), (_, t) in zip(names, predictions, truths, strict=True)
    ]
    for pair in pairs:
        _check_shapes(pair)
    return tuple(pairs)


def _check_shapes(pair: Pair) -> None:
    if pair.prediction.shape != pair.truth.shape:
        sizes = [" × ".join(map(str, one.shape)) for one in (pair.prediction, pair.truth)]
        raise InputError(
            f"{pair.name}: the prediction has {sizes[0]} pixels and the truth {sizes[1]}; "
            "compare labels of the same level"
        )
    if 0 in pair.shape:
        raise InputError(f"{pair.name}: it has no pixels")


def _planes(given: Given) -> tuple[list[tuple[str, Source]], bool]:
    """Return the planes with their places, and whether they are probabilities."""
    if isinstance(given, np.ndarray):
        if given.ndim != 2:
            raise InputError(f"an array of shape {given.shape} is no plane; give it plane by plane")
        return [("", Stored(given))], given.dtype.kind == "f"
    path = Path(given)
    if path.is_file():
        array = read_file(path)
        return [("", Stored(array))], array.dtype.kind == "f"
    return _zarr_planes(path)


def _zarr_planes(path: Path) -> tuple[list[tuple[str, Source]], bool]:
    image = open_image(path)
    channels = len(image.channels) if "c" in image.axis_names else 0
    if channels not in (0, 2) or (image.labels and read_provenance(image) is None):
        name = image.labels[0] if image.labels else "NAME"
        raise InputError(
            f"{path} is an image, no label: give the path of a label, such as "
            f"{path / 'labels' / name}, or of probabilities of two classes"
        )
    chosen = image_planes(image, 0, (1,) if channels else (0,))
    axes = [axis for axis in image.axis_names if axis not in "cyx"]
    named: list[tuple[str, Source]] = [
        (" ".join(f"{a}={i}" for a, i in zip(axes, plane.index, strict=True)), Layer(plane))
        for plane in chosen
    ]
    return named, channels > 0 or np.dtype(image.levels[0].dtype).kind == "f"


def _is_folder(given: Given) -> bool:
    """Tell whether this is a folder of files, not an array, a file or a Zarr."""
    if isinstance(given, np.ndarray):
        return False
    path = Path(given)
    if not path.exists():
        raise NotFoundError(f"{path} does not exist")
    marks = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
    return path.is_dir() and not any((path / mark).is_file() for mark in marks)


def _name(given: Given) -> str:
    return "array" if isinstance(given, np.ndarray) else Path(given).name
