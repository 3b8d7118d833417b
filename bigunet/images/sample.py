"""Write a synthetic fluorescence slide with true instances, chunk by chunk at any size."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from operator import index
from pathlib import Path
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import compute
from dask.delayed import delayed

from bigunet.errors import InputError, RunError
from bigunet.images.pyramid import level_shapes, reduce_mean, reduce_nearest
from bigunet.images.synthetic.microscope import draw
from bigunet.images.synthetic.nuclei import MARGIN, PITCH, Slide
from bigunet.images.synthetic.store import CHUNK, create_sample, finish_sample, make_room

__all__ = ["sample_arrays", "write_sample"]

Window: TypeAlias = tuple[slice, slice]
Progress: TypeAlias = Callable[[int, int], None]

BLOCK = 2 * CHUNK  # px on a side that one task draws: fewer pixels are drawn twice
RECIPE = 1  # goes up when the same seed and size no longer give the same bytes


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
    make_room(path)
    origin = {"sample": {"recipe": RECIPE, "seed": slide.seed, "size": list(levels[0])}}
    root = create_sample(path, levels, origin)
    count = _Count(sum(y * x for y, x in levels), progress)
    try:
        for level in range(len(levels)):
            work = delayed(_write_block, pure=False)
            blocks = [work(path, level, slide, window, count) for window in _blocks(levels, level)]
            compute(*blocks, **threads)
        finish_sample(root, levels, origin)
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
