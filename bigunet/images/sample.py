"""Write a synthetic fluorescence slide with true instances, chunk by chunk at any size."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from operator import index
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import compute
from dask.delayed import delayed
from zarr.codecs import ZstdCodec

from bigunet.errors import InputError, OutputError, OutputExistsError, RunError
from bigunet.images.nuclei import MARGIN, PITCH, Slide, draw
from bigunet.images.pyramid import level_shapes, reduce_mean, reduce_nearest

__all__ = ["sample_arrays", "write_sample"]

Window = tuple[slice, slice]
Progress = Callable[[int, int], None]

CHUNK = 512  # px on a side; levels go down to one chunk
BLOCK = 2 * CHUNK  # px on a side that one task draws: fewer pixels are drawn twice
PIXEL = 0.5  # micrometres
RECIPE = 1  # goes up when the same seed and size no longer give the same bytes
WINDOW = {"min": 0, "max": 65535, "start": 250, "end": 7000}


def sample_arrays(
    size: int | tuple[int, int] = 8192, seed: int = 0, *, chunks: int = CHUNK
) -> tuple[da.Array, da.Array]:
    """Return the sample slide as lazy arrays; pixels do not depend on ``chunks``.

    Parameters
    ----------
    size : int or (int, int)
        Side, or rows and columns, in pixels.
    seed : int
        0 to 2**64 - 1.
    chunks : int
        Side of a chunk in pixels.

    Returns
    -------
    image : (Y, X) uint16 dask array
        Nuclei, blurred and noisy, on an uneven background.
    truth : (Y, X) uint32 dask array
        One id per nucleus, 0 elsewhere; touching nuclei have no gap between them.

    Raises
    ------
    InputError
        If size or seed is out of range.

    Examples
    --------
    >>> image, truth = sample_arrays((600, 400), seed=1)
    >>> image.shape, truth.dtype
    ((600, 400), dtype('uint32'))
    """
    slide = _slide(size, seed)
    grid = da.core.normalize_chunks(chunks, (slide.height, slide.width))
    both = da.map_blocks(_draw_both, slide=slide, chunks=((2,), *grid), dtype=np.uint32)
    return both[0].astype(np.uint16), both[1]


def write_sample(
    path: str | os.PathLike[str],
    size: int | tuple[int, int] = 8192,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic fluorescence slide with truth as OME-Zarr 0.5.

    Axes cyx, one uint16 channel, 0.5 micrometres per pixel, chunks of 512 x 512, levels
    down to at most 512 pixels; true instances in ``labels/truth``. The same size and
    seed give the same bytes in every file for any number of workers. Metadata is the
    last thing written, and what a killed run left is replaced.

    Parameters
    ----------
    path : path
        Folder to create; it must not exist.
    size : int or (int, int)
        Side, or rows and columns, in pixels.
    seed : int
        0 to 2**64 - 1.
    workers : int, optional
        Threads; all cores by default, 0 for none beside the caller's.
    progress : callable, optional
        Called with the pixels written so far and in all, lower levels included.

    Returns
    -------
    Path
        The image's group.

    Raises
    ------
    InputError
        If size, seed or workers is out of range.
    OutputExistsError
        If something else is there already.
    OutputError
        If the path cannot be written to.
    RunError
        If writing began and could not be finished, say on a full disk.
    """
    slide = _slide(size, seed)
    path = Path(path)
    threads = _threads(workers)
    levels = _levels(slide)
    _make_room(path)
    origin = {"sample": {"recipe": RECIPE, "seed": slide.seed, "size": list(levels[0])}}
    root = _create(path, levels, origin)
    count = _Count(sum(y * x for y, x in levels), progress)
    try:
        for level in range(len(levels)):
            work = delayed(_write_block, pure=False)
            blocks = [work(path, level, slide, window, count) for window in _blocks(levels, level)]
            compute(*blocks, **threads)
        _finish(root, levels, origin)
    except OSError as error:
        raise RunError(f"the sample could not be written to the end: {error}") from error
    return path


def _slide(size: int | tuple[int, int], seed: int) -> Slide:
    """Check size and seed."""
    try:
        height, width = (
            index(n) for n in (size if isinstance(size, tuple | list) else (size, size))
        )
        seed = index(seed)
    except (TypeError, ValueError):
        raise InputError(
            f"size {size!r} and seed {seed!r}: give whole numbers, for size one or (rows, columns)"
        ) from None
    if min(height, width) < 1:
        raise InputError(f"size {height} x {width} pixels: both must be at least 1")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed {seed}: it must be from 0 to 2**64 - 1")
    slide = Slide(height=height, width=width, seed=seed)
    down, across = slide.cells
    if down * across >= 2**32:
        raise InputError(
            f"size {height} x {width} pixels: too many nuclei for 32-bit ids;"
            f" the largest square is {(2**16 - 2 * MARGIN - 1) * PITCH} pixels on a side"
        )
    return slide


def _threads(workers: int | None) -> dict[str, Any]:
    """Say how dask is to run the blocks."""
    if workers is not None and workers < 0:
        raise InputError(f"workers {workers}: give 0 or more")
    if workers == 0:
        return {"scheduler": "synchronous"}
    return {"scheduler": "threads", "num_workers": workers}


def _draw_both(slide: Slide, block_info: Any = None) -> npt.NDArray[np.uint32]:
    """Draw image and truth of a chunk at once, (2, h, w)."""
    _, y, x = (slice(*at) for at in block_info[None]["array-location"])
    return np.stack([a.astype(np.uint32) for a in draw(slide, y, x)])


def _levels(slide: Slide) -> list[tuple[int, int]]:
    """Halve rows and columns until a level is one chunk."""
    halvings = max(0, -(-max(slide.height, slide.width) // CHUNK) - 1).bit_length()
    shapes = level_shapes((slide.height, slide.width), halvings + 1)
    return [(height, width) for height, width in shapes]


def _blocks(levels: list[tuple[int, int]], level: int) -> Iterator[Window]:
    """Cut a level into windows of whole chunks, so that no two tasks share a file."""
    side = BLOCK if level == 0 else CHUNK
    height, width = levels[level]
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield slice(y, min(y + side, height)), slice(x, min(x + side, width))


class _Count:
    """Pixels written so far, told to a callback one call at a time."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress
        self.lock = threading.Lock()

    def __dask_tokenize__(self) -> str:
        return "count"

    def add(self, pixels: int) -> None:
        with self.lock:
            self.done += pixels
            if self.progress is not None:
                self.progress(self.done, self.total)


def _make_room(path: Path) -> None:
    """Refuse a path where something is, unless an unfinished sample is all there is."""
    if not os.path.lexists(path):
        return
    if not _is_unfinished(path):
        raise OutputExistsError(f"{path} exists already: remove it, or choose another path")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise OutputError(f"{path} holds an unfinished sample that stays: {error}") from error


def _is_unfinished(path: Path) -> bool:
    """Tell what a killed run left: its first file says what it was to become."""
    if path.is_symlink() or not path.is_dir():
        return False
    file = path / "zarr.json"
    if not file.exists():  # killed before the first file had its name
        return all(p.match("zarr.json.*.partial") for p in path.iterdir())
    try:
        attributes = json.loads(file.read_text())["attributes"]
        return "ome" not in attributes and "recipe" in attributes["bigunet"]["sample"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _create(path: Path, levels: list[tuple[int, int]], origin: dict[str, Any]) -> zarr.Group:
    """Create empty arrays under groups that do not say yet that they are an image."""
    try:
        root = zarr.create_group(path, zarr_format=3, attributes={"bigunet": origin})
        truth = root.create_group("labels").create_group("truth")
        for level, shape in enumerate(levels):
            _create_level(root, level, (1, *shape), np.uint16)
            _create_level(truth, level, shape, np.uint32)
    except OSError as error:
        raise OutputError(f"{path} cannot be written to: {error}") from error
    return root


def _create_level(group: zarr.Group, level: int, shape: tuple[int, ...], dtype: Any) -> None:
    group.create_array(
        str(level),
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(n, CHUNK) for n in shape),
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=_axes(len(shape)),
    )


def _axes(ndim: int) -> list[str]:
    return ["c", "y", "x"][-ndim:]


def _write_block(path: Path, level: int, slide: Slide, window: Window, count: _Count) -> None:
    """Draw a window, or average it from the level before, and store it with its truth."""
    root = zarr.open_group(path, mode="r+")
    image, truth = draw(slide, *window) if level == 0 else _reduced(root, level, window)
    _array(root, str(level))[(0, *window)] = image
    _array(root, f"labels/truth/{level}")[window] = truth
    count.add(image.size)


def _array(root: zarr.Group, name: str) -> zarr.Array[Any]:
    array = root[name]
    assert isinstance(array, zarr.Array)
    return array


def _reduced(root: zarr.Group, level: int, window: Window) -> tuple[Any, Any]:
    """Halve the level before: the image is averaged, ids stay as they are."""
    y, x = (slice(2 * w.start, 2 * w.stop) for w in window)
    image = np.asarray(_array(root, str(level - 1))[0, y, x])
    truth = np.asarray(_array(root, f"labels/truth/{level - 1}")[y, x])
    return reduce_mean(image), reduce_nearest(truth)


def _finish(root: zarr.Group, levels: list[tuple[int, int]], origin: dict[str, Any]) -> None:
    """Say what it is, from the inside out: the image's own metadata comes last."""
    labels, truth = root["labels"], root["labels/truth"]
    label = {"version": "0.5", "source": {"image": "../../"}}
    truth.attrs.put({"ome": _multiscales("truth", len(levels), 2) | {"image-label": label}})
    labels.attrs.put({"ome": {"version": "0.5", "labels": ["truth"]}})
    channel = {"label": "DAPI", "color": "FFFFFF", "active": True, "window": WINDOW}
    image = _multiscales("sample", len(levels), 3) | {"omero": {"channels": [channel]}}
    root.attrs.put({"ome": image, "bigunet": origin})


def _multiscales(name: str, levels: int, ndim: int) -> dict[str, Any]:
    """Describe a pyramid as NGFF 0.5 does."""
    axes: list[dict[str, str]] = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, PIXEL * 2**level, PIXEL * 2**level][-ndim:]},
            ],
        }
        for level in range(levels)
    ]
    pyramid = {"name": name, "axes": axes[-ndim:], "datasets": datasets}
    return {"version": "0.5", "multiscales": [pyramid]}
