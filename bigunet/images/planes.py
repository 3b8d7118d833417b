"""The pixels of an image: planes that are read on demand and fail loudly."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.tokenize import tokenize

from bigunet.errors import RunError
from bigunet.images.arrays import open_array
from bigunet.images.containers import store_root
from bigunet.images.groups import one_line
from bigunet.images.image import Image, checked_level
from bigunet.images.selection import channel_index

__all__ = ["Plane", "image_planes"]

TASK_SIDE = 1024
"""Chunks smaller than this are joined to one dask task, in pixels a side."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A 2-D plane of a level with the chosen channels; small, picklable, read on demand.

    Every process opens the array once. Safe to read from several threads.
    """

    store: str
    """Folder of the store; nothing outside it is read."""
    key: str
    """Path of the level's array in the store."""
    zarr_format: int
    axes: str
    """Axes of the array, such as ``tczyx``."""
    channels: tuple[int, ...]
    index: tuple[int, ...]
    """Position along the axes other than c, y and x, in their order; () for yx and cyx."""
    shape: tuple[int, int, int]
    """(C, Y, X)."""
    dtype: np.dtype[Any]
    """In native byte order."""
    chunks: tuple[int, int]
    """(Y, X) of what is stored in one piece, cut to the shape: the shard where there is one."""
    decoded: tuple[int, int]
    """(Y, X) of what is decoded in one piece, cut to the shape: the chunk, also in a shard."""
    layers: int
    """Channels and planes that are decoded where this plane's channels are read: chunks may hold
    more of them than were asked for."""

    def read(self, y: slice, x: slice) -> npt.NDArray[Any]:
        """Read a window.

        Parameters
        ----------
        y, x : slice
            Pixels, without step and not negative; cut to the plane.

        Returns
        -------
        ndarray
            (C, h, w), in native byte order.

        Raises
        ------
        RunError
            If a chunk cannot be read or decoded; names the array, the plane and the chunk.
        """
        y, x = _window(y, self.shape[1]), _window(x, self.shape[2])
        try:
            return _fetch(self, y, x)
        except Exception as error:
            # Codecs raise whatever they like: RuntimeError, ValueError, EOFError, MemoryError ...
            raise RunError(_what_broke(self, y, x, error)) from error

    def check(self) -> None:
        """Open the array, and read no pixel.

        Raises
        ------
        RunError
            If it cannot be opened here, or has another shape.
        """
        try:
            array = _array(self)
        except Exception as error:
            raise RunError(f"{Path(self.store, self.key)}: {one_line(error)}") from error
        if len(array.shape) != len(self.axes) or array.shape[-2:] != self.shape[1:]:
            raise RunError(
                f"{Path(self.store, self.key)} has the shape {array.shape} here, and not "
                f"{self.shape[1]} x {self.shape[2]} px"
            )

    def lazy(self) -> da.Array:
        """Return the plane as a dask array (C, Y, X): a task per stored chunk, small ones joined."""
        sides = [c * max(1, TASK_SIDE // c) for c in self.chunks]
        chunks = da.core.normalize_chunks((-1, *sides), shape=self.shape, dtype=self.dtype)
        array: da.Array = da.map_blocks(
            _read_block,
            self,
            tuple(sides),
            chunks=chunks,
            meta=np.empty((0, 0, 0), dtype=self.dtype),
            name=f"plane-{tokenize(self)}",
        )
        return array


def image_planes(image: Image, level: int, channels: Sequence[int]) -> tuple[Plane, ...]:
    """List the planes of a level, over t, then z.

    Raises
    ------
    InputError
        If there is no such level or channel.
    """
    facts = checked_level(image, level)
    chosen = tuple(channel_index(image, c) for c in channels)
    root, names = store_root(image.path), image.axis_names
    first = Plane(
        store=str(root),
        key=(image.path.relative_to(root) / facts.path).as_posix(),
        zarr_format=image.zarr_format,
        axes=names,
        channels=chosen,
        index=(),
        shape=(len(chosen), facts.shape[-2], facts.shape[-1]),
        dtype=np.dtype(facts.dtype),
        chunks=_cut(facts.stored, facts.shape),
        decoded=_cut(facts.chunks, facts.shape),
        layers=_layers(names, chosen, facts.chunks, facts.shape),
    )
    sizes = [n for name, n in zip(names, facts.shape, strict=True) if name not in "cyx"]
    return tuple(replace(first, index=index) for index in itertools.product(*map(range, sizes)))


_LOCK = threading.Lock()


@functools.lru_cache(maxsize=64)
def _opened(store: str, key: str, zarr_format: int, changed_ns: int) -> zarr.Array[Any]:
    return open_array(store, key, zarr_format)


def _array(plane: Plane) -> zarr.Array[Any]:
    """Open the plane's array once per process, anew where its metadata has changed."""
    file = Path(plane.store, plane.key, "zarr.json" if plane.zarr_format == 3 else ".zarray")
    with _LOCK:
        return _opened(plane.store, plane.key, plane.zarr_format, file.stat().st_mtime_ns)


def _fetch(plane: Plane, y: slice, x: slice) -> npt.NDArray[Any]:
    array, channels, index = _array(plane), plane.channels, iter(plane.index)
    run = slice(channels[0], channels[-1] + 1)
    is_run = channels == tuple(range(run.start, run.stop))
    pick: dict[str, Any] = {"c": run if is_run else list(channels), "y": y, "x": x}
    selection: Any = tuple(pick[a] if a in pick else next(index) for a in plane.axes)
    found = array[selection] if is_run else array.oindex[selection]
    return np.asarray(found, dtype=plane.dtype).reshape(len(channels), *np.shape(found)[-2:])


def _cut(chunks: Sequence[int], shape: Sequence[int]) -> tuple[int, int]:
    """Return the (Y, X) of chunks, no larger than the plane."""
    return min(chunks[-2], shape[-2]), min(chunks[-1], shape[-1])


def _layers(axes: str, channels: Sequence[int], chunks: Sequence[int], shape: Sequence[int]) -> int:
    """Return the values at one (y, x) in the chunks that hold some channels of a plane, cut to the shape."""
    layers = 1
    for axis, chunk, size in zip(axes[:-2], chunks, shape, strict=False):
        touched = {channel // chunk for channel in channels} if axis == "c" else {0}
        layers *= sum(min(chunk, size - chunk * number) for number in touched)
    return layers


def _window(pixels: slice, size: int) -> slice:
    start, stop, step = pixels.indices(size)
    if step != 1 or min(pixels.start or 0, pixels.stop or 0) < 0:
        raise ValueError(f"a window is a slice without step or negative numbers, not {pixels}")
    return slice(start, max(start, stop))


def _read_block(
    plane: Plane, sides: tuple[int, int], block_id: tuple[int, ...]
) -> npt.NDArray[Any]:
    y, x = (slice(i * n, (i + 1) * n) for i, n in zip(block_id[1:], sides, strict=True))
    return plane.read(y, x)


def _what_broke(plane: Plane, y: slice, x: slice, error: Exception) -> str:
    """Say in one line which chunks of a window cannot be read, by reading them one by one."""
    names = [axis for axis in plane.axes if axis not in "cyx"]
    where = " ".join(f"{a}={i}" for a, i in zip(names, plane.index, strict=True))
    what = f"{Path(plane.store, plane.key)}{where and f', plane {where}'}"
    try:
        broken = list(itertools.islice(_broken_chunks(plane, y, x), 4))
    except Exception:
        # The array itself cannot be opened (any more): the first error says why.
        broken = []
    if not broken:
        return f"{what}: cannot be read: {one_line(error)}"
    more = " and more" if len(broken) > 3 else ""
    return f"{what}: cannot read chunk {', '.join(broken[:3])}{more}"


def _broken_chunks(plane: Plane, y: slice, x: slice) -> Iterator[str]:
    array = _array(plane)
    stored = dict(zip(plane.axes, array.shards or array.chunks, strict=True))
    rows, columns = _chunks_of(y, stored["y"]), _chunks_of(x, stored["x"])
    for channel, row, column in itertools.product(plane.channels, rows, columns):
        part_y, part_x = _part(y, row, stored["y"]), _part(x, column, stored["x"])
        try:
            _fetch(replace(plane, channels=(channel,)), part_y, part_x)
        except Exception as error:
            index = iter(plane.index)
            first = {"c": channel, "y": part_y.start, "x": part_x.start}
            place = ((first[a] if a in first else next(index)) // stored[a] for a in plane.axes)
            yield f"({', '.join(map(str, place))}): {one_line(error)}"


def _chunks_of(pixels: slice, chunk: int) -> range:
    return range(pixels.start // chunk, -(-pixels.stop // chunk))


def _part(pixels: slice, index: int, chunk: int) -> slice:
    return slice(max(pixels.start, index * chunk), min(pixels.stop, (index + 1) * chunk))
