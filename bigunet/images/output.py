"""One result image on disk, and the windows that are written to it.

Zarr writes whole *write units* (chunks, or shards of several chunks): two tasks that
write into the same one lose each other's pixels. So a run may cut its windows only where a unit ends,
or where the run itself ends::

        unit ┬────────┬────────┬────────┐
             │     ┌╌╌┼╌╌╌╌╌╌╌╌┼╌╌┐     │    ╌ region of the run
             │     ╎ A│   B    │C ╎     │    A, B, C: windows of three tasks;
             ├─────┼──┼────────┼──┼─────┤    no unit is touched by two of them
             │     └╌╌┼╌╌╌╌╌╌╌╌┼╌╌┘     │
             └────────┴────────┴────────┘
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray

from bigunet.errors import RunError, TakenOverError
from bigunet.geometry import Span
from bigunet.images.ngff import Axis

__all__ = [
    "Output",
    "assert_disjoint_writes",
    "check_owned",
    "check_writable",
    "read_window",
    "write_window",
]

Array: TypeAlias = NDArray[Any]
Window: TypeAlias = tuple[slice, slice]
"""Rows and columns, both with a start and a stop."""

_AXES = ("rows", "columns")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A result image that a run writes; small, so it travels with every task."""

    kind: Literal["objects", "classes", "probabilities"]
    """Ids and classes are kept in the lower levels, probabilities are averaged."""
    path: Path
    """The group while the run goes on."""
    final: Path
    """The group once it is committed."""
    mark: Path
    """A file that exists as long as this run owns `path`."""
    axes: tuple[Axis, ...]
    """In NGFF's order; y and x are the last two."""
    shapes: tuple[tuple[int, ...], ...]
    """Of each level."""
    chunk: tuple[int, int]
    """(Y, X) of a chunk of level 0; lower levels have the same, clipped to their shape."""
    shard: tuple[int, int] | None = None
    """(Y, X) of a shard, whole chunks of level 0; None where each chunk is a file."""
    dtype: str
    """numpy's name; of objects it is known for sure when they are counted."""
    scales: tuple[tuple[float, ...], ...]
    """Of each level, per axis."""
    translation: tuple[float, ...]
    """Of all levels, per axis."""
    region: tuple[tuple[int, int], tuple[int, int]]
    """(first, last + 1) row and column of level 0 that this run writes."""
    zarr_format: Literal[2, 3]

    @property
    def axis_names(self) -> str:
        """The letters of the axes, such as ``tzyx``."""
        return "".join(axis.name for axis in self.axes)

    @property
    def planes(self) -> tuple[int, ...]:
        """Sizes of t and z, as far as there are such axes."""
        pairs = zip(self.axis_names[:-2], self.shapes[0], strict=False)
        return tuple(size for name, size in pairs if name != "c")

    @property
    def channels(self) -> int:
        """Size of the channel axis; 1 where there is none."""
        return self.shapes[0][self.axis_names.index("c")] if "c" in self.axis_names else 1

    def array_path(self, level: int) -> Path:
        """Folder of a level's array, while the run goes on."""
        return self.path / str(level)

    def level_chunk(self, level: int) -> tuple[int, int]:
        """Rows and columns of a chunk of a level."""
        height, width = self.shapes[level][-2:]
        return min(self.chunk[0], height), min(self.chunk[1], width)

    def unit(self, level: int) -> tuple[int, int]:
        """Rows and columns of a write unit of a level: whole chunks, so it may reach beyond."""
        chunk = self.level_chunk(level)
        if self.shard is None:
            return chunk
        y, x = (
            min(shard, -(-size // side) * side)
            for shard, size, side in zip(self.shard, self.shapes[level][-2:], chunk, strict=True)
        )
        return y, x

    def select(self, index: tuple[int, ...], y: slice, x: slice, channel: Any) -> tuple[Any, ...]:
        """Build the selection of a window of one plane for the array of a level."""
        if len(index) != len(self.planes):
            raise ValueError(f"plane {index} does not fit the axes {self.axis_names}")
        others = iter(index)
        leading = (channel if name == "c" else next(others) for name in self.axis_names[:-2])
        return (*leading, y, x)


def assert_disjoint_writes(output: Output, rows: Iterable[Span], columns: Iterable[Span]) -> None:
    """Check before the first write that no two windows of level 0 share a write unit.

    Parameters
    ----------
    rows, columns : iterable of Span
        The tasks of one plane are going to write all pairs of them. Pairs are
        disjoint where the spans of both axes are.

    Raises
    ------
    ValueError
        If a span is cut inside a write unit, lies outside the region of the
        run, or two of an axis meet; a defect of the plan, never the user's fault.
    """
    for axis, spans in enumerate((rows, columns)):
        taken = 0
        for span in sorted(spans, key=lambda span: span.start):
            _check_span(output, 0, axis, span.slice)
            units = _units(span.slice, output.unit(0)[axis])
            if units.start < taken:
                raise ValueError(
                    f"two tasks would write {_AXES[axis]} {span.start}:{span.stop} of {output.final}"
                )
            taken = units.stop


def write_window(
    output: Output, level: int, index: tuple[int, ...], y: slice, x: slice, data: Array
) -> None:
    """Write a window of one plane that shares no write unit with another task's, and bring it to disk.

    Parameters
    ----------
    index : tuple of int
        Position along t and z, as far as there are such axes.
    data : (Y, X) array, or (C, Y, X) where the output has channels

    Raises
    ------
    ValueError
        If the window is cut inside a write unit or does not fit `data`.
    RunError
        If the place cannot be written to (any more), or another run took it over.
    """
    _check_window(output, level, (y, x))
    shape = (y.stop - y.start, x.stop - x.start)
    if data.shape != ((output.channels, *shape) if "c" in output.axis_names else shape):
        raise ValueError(f"data of shape {data.shape} do not fit {_place((y, x))}")
    check_owned(output)
    selection = output.select(index, y, x, slice(None))
    try:
        array = zarr.open_array(output.array_path(level), mode="r+")
        units = list(_unit_files(output.array_path(level), array, selection))
        _store(array, selection, data, units)
        _sync(units)
    except Exception as error:
        # Codecs raise whatever they like where a chunk is completed by its second part.
        raise _failed("write", output, level, index, (y, x), error) from error


def check_owned(output: Output) -> None:
    """Refuse to write where this run's place is not its own any more.

    Raises
    ------
    RunError
        If another run took it over.
    """
    if not output.mark.exists():
        raise TakenOverError(
            f"{output.final} was taken over by another run, or its staged data were removed; "
            "start again, one run at a time"
        )


def check_writable(output: Output) -> None:
    """Try whether this process sees the place of a run, and may write there.

    Raises
    ------
    RunError
        If it does not, or may not.
    """
    if not output.mark.exists():
        raise RunError(f"{output.mark.parent} is not to be seen here")
    probe = output.mark.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(f"cannot write in {output.mark.parent}: {error.strerror}") from error


def read_window(
    output: Output,
    level: int,
    index: tuple[int, ...],
    y: slice,
    x: slice,
    channel: int | slice = slice(None),
) -> Array:
    """Read a window of one plane while the run goes on, as `write_window` takes it.

    Raises
    ------
    RunError
        If what is stored there cannot be read.
    """
    selection = output.select(index, y, x, channel)
    try:
        return np.asarray(zarr.open_array(output.array_path(level), mode="r")[selection])
    except Exception as error:
        raise _failed("read", output, level, index, (y, x), error) from error


def _store(
    array: zarr.Array[Any], selection: tuple[Any, ...], data: Array, units: Iterable[_UnitFile]
) -> None:
    """Write a selection; what was damaged in units that it covers does not matter.

    Zarr reads a shard before it writes to it, also where nothing of it is going to stay.
    """
    try:
        array[selection] = data
    except OSError:
        raise
    except Exception:
        if array.shards is None:
            raise
        for unit in units:
            if unit.is_covered:
                unit.path.unlink(missing_ok=True)
        array[selection] = data


def _sync(units: Iterable[_UnitFile]) -> None:
    """Bring files to disk; units of nothing but 0 have none."""
    for unit in units:
        with suppress(FileNotFoundError), unit.path.open("rb+") as file:
            os.fsync(file.fileno())


class _UnitFile(NamedTuple):
    """Where a write unit is stored, and whether a selection covers it."""

    path: Path
    is_covered: bool


def _unit_files(
    folder: Path, array: zarr.Array[Any], selection: tuple[Any, ...]
) -> Iterator[_UnitFile]:
    """Yield the write units that a selection of an array touches."""
    along = []
    for part, size, unit in zip(selection, array.shape, array.shards or array.chunks, strict=True):
        whole = part if isinstance(part, slice) else slice(part, part + 1)
        start, stop, _ = whole.indices(size)
        along.append(
            [
                (n, start <= n * unit and min(size, (n + 1) * unit) <= stop)
                for n in range(start // unit, -(-stop // unit))
            ]
        )
    for places in product(*along):
        key = array.metadata.encode_chunk_key(tuple(n for n, _ in places))
        yield _UnitFile(folder / key, all(covered for _, covered in places))


def _units(window: slice, unit: int) -> slice:
    return slice(window.start // unit, -(-window.stop // unit))


def _check_window(output: Output, level: int, window: Window) -> None:
    for axis, part in enumerate(window):
        _check_span(output, level, axis, part)


def _check_span(output: Output, level: int, axis: int, part: slice) -> None:
    unit = output.unit(level)[axis]
    first, last = output.region[axis] if level == 0 else (0, output.shapes[level][axis - 2])
    inside = first <= part.start < part.stop <= last
    if not inside or any(
        edge % unit and edge not in (first, last) for edge in (part.start, part.stop)
    ):
        raise ValueError(
            f"{_AXES[axis]} {part.start}:{part.stop} of level {level} of {output.final} are not "
            f"cut at its write units of {unit} or the run's region {first}:{last}"
        )


def _place(window: Window) -> str:
    rows, columns = window
    return f"rows {rows.start}:{rows.stop}, columns {columns.start}:{columns.stop}"


def _failed(
    verb: str,
    output: Output,
    level: int,
    index: tuple[int, ...],
    window: Window,
    error: Exception,
) -> RunError:
    names = [name for name in output.axis_names[:-2] if name != "c"]
    plane = " ".join(f"{name}={i}" for name, i in zip(names, index, strict=True))
    where = _place(window) + (f", plane {plane}" if plane else "")
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return RunError(f"cannot {verb} {output.array_path(level)}, {where}: {reason}")
