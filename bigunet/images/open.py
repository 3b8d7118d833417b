"""Open an OME-Zarr image: its facts, its levels and channels, and its planes as lazy pixels.

Opening reads metadata only. An image is somebody else's file and is not trusted:
nothing outside its store is read, be it by ``..``, by an absolute path or by a
link, and what it claims (sizes, types) is checked before a pixel is asked for.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import shlex
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.tokenize import tokenize
from dask.utils import format_bytes
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from bigunet.errors import BigunetError, InputError, MemoryLimitError, NotFoundError, RunError
from bigunet.images.ngff import (
    Axis,
    Channel,
    Dataset,
    Group,
    Multiscale,
    micrometres,
    parse_channels,
    parse_labels,
    parse_multiscale,
    parse_paths,
    read_group,
    relative_scales,
)

__all__ = [
    "Axis",
    "Channel",
    "Image",
    "Level",
    "Plane",
    "check_chunk_memory",
    "choose_channels",
    "choose_level",
    "image_planes",
    "open_image",
]

ZIPS = {".zip", ".ozx"}
VENDOR_FILES = re.compile(
    r"(\.ome)?\.(tiff?|btf|svs|ndpis?|mrxs|scn|vms|bif|qptiff|czi|lif|lof|xlef|lsm|nd2|vsi|oi[bfr]|ims"
    r"|dv|stk|zvi|flex|dcm|jp2|jpe?g|png|bmp)",
    re.IGNORECASE,
)
"""What bioformats2raw turns into OME-Zarr."""
METADATA_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")

# Above these, a file is a hoax or a mistake; below, Python objects for each still fit in memory.
MOST_CHUNKS = 2**28
"""Chunks in one plane."""
MOST_PLANES = 2**20
MOST_CHANNELS = 2**12

WARN_RATIO = 1.5
"""How far the pixel size may be off without a warning."""
TASK_SIDE = 1024
"""Chunks smaller than this are joined to one dask task, in pixels a side."""
BLOSC_HEADER = 16
"""In bytes."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of an image."""

    path: str
    """Relative to the group of the image."""
    shape: tuple[int, ...]
    dtype: str
    """Name of the NumPy type."""
    chunks: tuple[int, ...]
    """As stored: may be larger than the shape."""
    shards: tuple[int, ...] | None
    """As stored; None where chunks are stored one by one."""
    scale: tuple[float, ...]
    """Per axis, in the axis' unit."""
    translation: tuple[float, ...]
    """Per axis, in the axis' unit."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """What is known of an image without reading a pixel."""

    path: Path
    """The group that holds the multiscales."""
    version: str
    """OME-Zarr 0.1 to 0.5."""
    zarr_format: int
    """2 or 3."""
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    channels: tuple[Channel, ...]
    """One where the image has no axis c."""
    name: str
    labels: tuple[str, ...]
    """Listed label images."""

    @property
    def axis_names(self) -> str:
        """The axes as one word, such as ``czyx``."""
        return "".join(axis.name for axis in self.axes)

    def pixel_size(self, level: int) -> float | None:
        """Side of a pixel in micrometres, the geometric mean of y and x; None without unit."""
        y, x = (micrometres(axis.unit) for axis in self.axes[-2:])
        if y is None or x is None:
            return None
        height, width = (
            n * um for n, um in zip(self.levels[level].scale[-2:], (y, x), strict=True)
        )
        return height if height == width else math.sqrt(height) * math.sqrt(width)


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


def open_image(path: str | os.PathLike[str]) -> Image:
    """Open the OME-Zarr image at a local path; no pixel is read.

    Parameters
    ----------
    path : path
        Group of a multiscale image (OME-Zarr 0.1 to 0.5), or the root of a
        bioformats2raw layout that holds one image.

    Returns
    -------
    Image

    Raises
    ------
    NotFoundError
        If there is nothing at `path`.
    InputError
        If it is no OME-Zarr image that bigunet can read; says what to do.
    """
    try:
        return _image(os.fspath(path))
    except OSError as error:
        if isinstance(error, BigunetError):
            raise
        raise InputError(f"{os.fspath(path)} cannot be read: {_reason(error)}") from error


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
        _checked_level(image, level)
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
    else:
        asked = [wanted] if isinstance(wanted, int | str) else wanted
        chosen = tuple(_channel_index(image, one) for one in asked)
        given = f"{_count(len(chosen), 'channel')} chosen: choose {needed} from"
    if len(chosen) != needed:
        took = f"the model takes {_count(needed, 'channel')} and"
        raise InputError(f"{image.path}: {took} {given} {_channel_list(image)}")
    return chosen


def image_planes(image: Image, level: int, channels: Sequence[int]) -> tuple[Plane, ...]:
    """List the planes of a level, over t, then z.

    Raises
    ------
    InputError
        If there is no such level or channel.
    """
    facts = _checked_level(image, level)
    chosen = tuple(_channel_index(image, c) for c in channels)
    root, names = _store_root(image.path), image.axis_names
    stored = facts.shards or facts.chunks
    first = Plane(
        store=str(root),
        key=(image.path.relative_to(root) / facts.path).as_posix(),
        zarr_format=image.zarr_format,
        axes=names,
        channels=chosen,
        index=(),
        shape=(len(chosen), facts.shape[-2], facts.shape[-1]),
        dtype=np.dtype(facts.dtype),
        chunks=(min(stored[-2], facts.shape[-2]), min(stored[-1], facts.shape[-1])),
    )
    sizes = [n for name, n in zip(names, facts.shape, strict=True) if name not in "cyx"]
    return tuple(replace(first, index=index) for index in itertools.product(*map(range, sizes)))


def check_chunk_memory(image: Image, level: int, allowed_bytes: int) -> None:
    """Refuse a level of which one decoded chunk, or shard, is larger than the memory.

    A chunk is decoded whole, however little of it is asked for, and a few
    kilobytes on disk can decode to gigabytes.

    Parameters
    ----------
    image : Image
    level : int
    allowed_bytes : int
        Memory that one chunk may take, in bytes.

    Raises
    ------
    MemoryLimitError
        Names both figures.
    """
    facts = _checked_level(image, level)
    stored = facts.shards or facts.chunks
    size = math.prod(stored) * np.dtype(facts.dtype).itemsize
    if size > allowed_bytes:
        kind = "shard" if facts.shards else "chunk"
        raise MemoryLimitError(
            f"{image.path / facts.path}: one {kind} of {_times(stored)} {facts.dtype} decodes to "
            f"{format_bytes(size)}, and {format_bytes(allowed_bytes)} are allowed: "
            f"allow more with --memory-limit or store the image in smaller {kind}s"
        )


# What is at a path: refusals first, then the group of the image


def _local_folder(given: str) -> Path:
    # Two letters or more: C:/ is a drive.
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]+:/", given):
        raise InputError(f"{given} is a remote address; only local paths are read: copy it first")
    path = Path(given).expanduser().absolute()
    path = path.resolve() if ".." in path.parts else path
    if path.is_dir():
        return path
    if not path.exists():
        raise NotFoundError(f"{given} does not exist")
    raise InputError(_file_refusal(given, path))


def _file_refusal(given: str, path: Path) -> str:
    if path.suffix.lower() in ZIPS:
        return f"{given} is a zipped Zarr, which is not read: unzip it and pass the folder"
    suffix = "".join(path.suffixes[-2:]) if ".ome." in path.name.lower() else path.suffix
    if VENDOR_FILES.fullmatch(suffix):
        target = f"{given.removesuffix(suffix)}.zarr"
        command = f"bioformats2raw {shlex.quote(given)} {shlex.quote(target)}"
        return f"{given} is not a Zarr; convert it with: {command}"
    return f"{given} is a file and not a Zarr: pass the folder of an OME-Zarr image"


def _store_root(folder: Path) -> Path:
    """Return the topmost of the Zarr groups around a folder, the folder itself if there is none."""
    root = folder
    while root.parent != root and any((root.parent / f).is_file() for f in METADATA_FILES):
        root = root.parent
    return root


def _group(root: Path, folder: Path) -> Group | None:
    for file in METADATA_FILES:
        _check_inside(root, folder / file)
    return read_group(folder)


def _check_inside(root: Path, path: Path) -> None:
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise InputError(f"{path} is a link that leaves the store {root}; it is not read")


def _image_group(root: Path, folder: Path) -> tuple[Path, Group]:
    """Return the group that has the multiscales, or say which paths would have them."""
    group = _group(root, folder)
    if group is None:
        raise InputError(f"{folder} is not a Zarr: it has no zarr.json and no .zgroup")
    if group.node == "array":
        raise InputError(
            f"{folder} is a plain Zarr array and not an OME-Zarr image: pass the image's group"
        )
    if "multiscales" in group.ome:
        return folder, group
    found = list(itertools.islice(_inner_images(root, folder, group), 7))
    single = "bioformats2raw.layout" in group.ome and "plate" not in group.ome
    if single and len(found) == 1:
        return _image_group(root, folder / found[0])
    raise InputError(_container_refusal(folder, found))


def _container_refusal(folder: Path, found: Sequence[str]) -> str:
    if not found:
        return f"{folder} is a Zarr without multiscales metadata: it is not an OME-Zarr image"
    paths = ", ".join(str(folder / path) for path in found[:6])
    more = " and so on" if len(found) > 6 else ""
    return f"{folder} is not one image but holds some: pass one of {paths}{more}"


def _inner_images(root: Path, folder: Path, group: Group) -> Iterator[str]:
    """Yield the paths of images in a plate, a well, a bioformats2raw layout or any other group."""
    for path in _listed_paths(root, folder, group.ome):
        inner = _group(root, folder / path)
        if inner is not None and "multiscales" in inner.ome:
            yield path
        elif inner is not None and "well" in inner.ome:
            yield from (f"{path}/{image}" for image in _paths(inner.ome, "well", "images"))


def _listed_paths(root: Path, folder: Path, ome: Mapping[str, Any]) -> Sequence[str]:
    if "plate" in ome:
        return _paths(ome, "plate", "wells")
    if "well" in ome:
        return _paths(ome, "well", "images")
    if "bioformats2raw.layout" in ome:
        series = _group(root, folder / "OME")
        listed = parse_paths(series.ome.get("series")) if series else ()
        return listed or _children(folder)
    # SpatialData keeps its images in a group of that name.
    return [*_children(folder), *(f"images/{name}" for name in _children(folder / "images"))]


def _paths(ome: Mapping[str, Any], kind: str, key: str) -> tuple[str, ...]:
    entry = ome[kind]
    return parse_paths(entry.get(key)) if isinstance(entry, Mapping) else ()


def _children(folder: Path) -> list[str]:
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(names, key=lambda name: (len(name), name))


def _name(path: Path) -> str:
    """Name an image by its store, and by the path in it: slide.ome.zarr/0 → slide_0."""
    stores = [i for i, part in enumerate(path.parts) if part.lower().endswith(".zarr")]
    parts = path.parts[stores[-1] :] if stores else path.parts[-1:]
    stem = re.sub(r"(\.ome)?\.zarr$", "", parts[0] if parts else "", flags=re.IGNORECASE)
    return "_".join([stem.strip("/\\") or "image", *parts[1:]])


# Levels


def _image(given_path: str) -> Image:
    given = _local_folder(given_path)
    root = _store_root(given)
    folder, group = _image_group(root, given)
    try:
        parsed = parse_multiscale(group)
        levels = _levels(root, folder, parsed, group.zarr_format)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    labels = _group(root, folder / "labels")
    c = "".join(axis.name for axis in parsed.axes).find("c")
    return Image(
        path=folder,
        version=parsed.version,
        zarr_format=group.zarr_format,
        axes=parsed.axes,
        levels=levels,
        channels=parse_channels(group.ome, 1 if c < 0 else levels[0].shape[c]),
        name=_name(given),
        labels=parse_labels(labels.ome) if labels else (),
    )


def _levels(root: Path, folder: Path, parsed: Multiscale, zarr_format: int) -> tuple[Level, ...]:
    axes = "".join(axis.name for axis in parsed.axes)
    levels = [_level(root, folder, d, axes, zarr_format) for d in parsed.datasets]
    if "c" in axes:
        counts = {level.shape[axes.index("c")] for level in levels}
        if len(counts) > 1:
            raise InputError(f"its levels have different numbers of channels: {sorted(counts)}")
    if any(dataset.has_scale for dataset in parsed.datasets):
        return tuple(levels)
    # Version 0.1 to 0.3: how the levels relate is known from their shapes alone.
    relative = relative_scales([level.shape for level in levels])
    return tuple(
        replace(level, scale=tuple(a * b for a, b in zip(level.scale, by, strict=True)))
        for level, by in zip(levels, relative, strict=True)
    )


def _level(root: Path, folder: Path, dataset: Dataset, axes: str, zarr_format: int) -> Level:
    stored = _group(root, folder / dataset.path)
    if stored is None or stored.node != "array" or stored.zarr_format != zarr_format:
        raise InputError(f"its level {dataset.path!r} is missing: there is no such array")
    key = (folder.relative_to(root) / dataset.path).as_posix()
    try:
        array = _open_array(root, key, zarr_format)
    except Exception as error:
        # zarr raises whatever the metadata provokes: KeyError, TypeError, ValueError ...
        raise InputError(f"its level {dataset.path!r} is broken: {_reason(error)}") from error
    _check_array(array, dataset.path, axes)
    return Level(
        path=dataset.path,
        shape=array.shape,
        dtype=array.dtype.name,
        chunks=array.chunks,
        shards=array.shards,
        scale=dataset.scale,
        translation=dataset.translation,
    )


def _check_array(array: zarr.Array[Any], path: str, axes: str) -> None:
    """Refuse what no model can take, and sizes that no plan could hold."""
    shape, stored, dtype = array.shape, array.shards or array.chunks, array.dtype
    what = f"its level {path!r} has"
    if len(shape) != len(axes):
        raise InputError(f"{what} {len(shape)} axes and the image {len(axes)} ({axes})")
    if min(shape) < 1 or min(stored) < 1 or min(array.chunks) < 1:
        raise InputError(f"{what} an axis without pixels: {_times(shape)}")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{what} pixels of type {dtype.name}: only integers and floats are read")
    size = dict(zip(axes, shape, strict=True))
    chunks = math.prod(-(-n // c) for n, c in zip(shape[-2:], stored[-2:], strict=True))
    planes = size.get("t", 1) * size.get("z", 1)
    if chunks > MOST_CHUNKS or planes > MOST_PLANES or size.get("c", 1) > MOST_CHANNELS:
        raise InputError(
            f"{what} {_times(shape)} ({axes}) pixels in chunks of {_times(stored)}: more than "
            f"{MOST_CHUNKS} chunks in a plane, {MOST_PLANES} planes or {MOST_CHANNELS} channels"
        )


def _checked_level(image: Image, level: int) -> Level:
    if not 0 <= level < len(image.levels):
        last = len(image.levels) - 1
        has = f"has levels 0 to {last}" if last else "has level 0 only"
        raise InputError(f"there is no level {level}: {image.path} {has}")
    return image.levels[level]


def _level_line(level: int, wanted: float, ratio: float) -> str:
    line = f"level {level} has pixels of {wanted * ratio:.4g} µm, wanted are {wanted:.4g} µm"
    off = max(ratio, 1 / ratio)
    return f"warning: {line}: off by {off:.2g}×" if off > WARN_RATIO else line


# Channels


def _channel_index(image: Image, wanted: int | str) -> int:
    named = [channel.index for channel in image.channels if channel.name == wanted]
    text = str(wanted).strip()
    if text.isdecimal() and int(text) < len(image.channels):
        return int(text)
    if len(named) == 1:
        return named[0]
    problem = "is the name of several channels: give an index" if named else "is no channel: choose"
    raise InputError(f"{image.path}: {wanted!r} {problem} from {_channel_list(image)}")


def _channel_list(image: Image, most: int = 20) -> str:
    named = [f"{channel.index} {channel.name!r}" for channel in image.channels[:most]]
    more = f" and so on to {len(image.channels) - 1}" if len(image.channels) > most else ""
    return ", ".join(named) + more


# Pixels


class _GuardedStore(LocalStore):
    """A folder of which nothing outside is read, and whose cut-off chunks are noticed."""

    blosc_bytes: int | None = None
    """Size of a decoded chunk where chunks are Blosc containers."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._inside: set[Path] = set()

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        self._check_inside(self.root / key)
        found = await super().get(key, prototype, byte_range)
        if found is not None and isinstance(byte_range, RangeByteRequest):
            _check_range(len(found), byte_range)
        elif found is not None and self.blosc_bytes is not None:
            _check_blosc(found.to_bytes()[:BLOSC_HEADER], len(found), self.blosc_bytes)
        return found

    def _check_inside(self, file: Path) -> None:
        # Resolving each folder once makes the check cheap against decoding a chunk.
        if file.parent not in self._inside:
            _check_inside(self.root, file.parent)
            self._inside.add(file.parent)
        if file.is_symlink():
            _check_inside(self.root, file)


def _check_range(found: int, asked: RangeByteRequest) -> None:
    if found < asked.end - asked.start:
        raise ValueError(f"{found} bytes found where {asked.end - asked.start} should be")


def _check_blosc(header: bytes, found: int, most: int) -> None:
    """Check the sizes in a Blosc header: numcodecs decodes a truncated chunk without a word."""
    decoded, stored = (int.from_bytes(header[i : i + 4], "little") for i in (4, 12))
    if len(header) < BLOSC_HEADER or stored != found:
        raise ValueError(f"{found} bytes found where {stored} should be")
    if decoded > most:
        raise ValueError(f"it decodes to {decoded} bytes, a chunk has {most}")


def _open_array(root: Path | str, key: str, zarr_format: int) -> zarr.Array[Any]:
    store = _GuardedStore(Path(root), read_only=True)
    with warnings.catch_warnings():
        # Old writers' habits (an empty list of filters, say) are no news to our users.
        warnings.simplefilter("ignore")
        array = zarr.open_array(store=store, path=key, mode="r", zarr_format=zarr_format)  # type: ignore[arg-type]
    is_blosc = any("blosc" in type(c).__name__.lower() for c in array.compressors[-1:])
    if is_blosc and array.shards is None:
        array.store.blosc_bytes = math.prod(array.chunks) * max(8, array.dtype.itemsize)  # type: ignore[attr-defined]
    return array


_LOCK = threading.Lock()


@functools.lru_cache(maxsize=64)
def _opened(store: str, key: str, zarr_format: int, changed_ns: int) -> zarr.Array[Any]:
    return _open_array(store, key, zarr_format)


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
        return f"{what}: cannot be read: {_reason(error)}"
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
            yield f"({', '.join(map(str, place))}): {_reason(error)}"


def _chunks_of(pixels: slice, chunk: int) -> range:
    return range(pixels.start // chunk, -(-pixels.stop // chunk))


def _part(pixels: slice, index: int, chunk: int) -> slice:
    return slice(max(pixels.start, index * chunk), min(pixels.stop, (index + 1) * chunk))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _times(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
