"""Zarr arrays of somebody else, opened so that links and cut-off chunks are noticed."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from bigunet.images.containers import check_inside

__all__ = ["open_array"]

BLOSC_HEADER = 16
"""In bytes."""


def open_array(root: Path | str, key: str, zarr_format: int) -> zarr.Array[Any]:
    """Open an array read-only; a broken chunk raises when it is read.

    Parameters
    ----------
    root : path
        Folder of the store; nothing outside it is read.
    key : str
        Path of the array in the store.
    zarr_format : int
        2 or 3.

    Raises
    ------
    Exception
        Whatever zarr raises of metadata that it cannot read; a ValueError where it would mend them.
    """
    store = _GuardedStore(Path(root), read_only=True)
    with warnings.catch_warnings():
        # Old writers' habits (an empty list of filters, say) are no news to our users.
        warnings.simplefilter("ignore")
        # Later versions read broken metadata as something else, with a warning: as chunks of one
        # pixel where it says none, say.
        warnings.filterwarnings("error", ".* is invalid", UserWarning)
        try:
            # zarr wants a literal 2 or 3, and says itself if it is none.
            array = zarr.open_array(store=store, path=key, mode="r", zarr_format=zarr_format)  # type: ignore[arg-type]
        except UserWarning as repaired:
            raise ValueError(str(repaired).partition(". It is read")[0]) from repaired
    is_blosc = any("blosc" in type(c).__name__.lower() for c in array.compressors[-1:])
    if is_blosc and array.shards is None:
        # It is the store above; zarr declares the base class only.
        array.store.blosc_bytes = math.prod(array.chunks) * max(8, array.dtype.itemsize)  # type: ignore[attr-defined]
    return array


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
        self._guard(self.root / key)
        found = await super().get(key, prototype, byte_range)
        if found is not None and isinstance(byte_range, RangeByteRequest):
            _check_range(len(found), byte_range)
        elif found is not None and self.blosc_bytes is not None:
            _check_blosc(found.to_bytes()[:BLOSC_HEADER], len(found), self.blosc_bytes)
        return found

    def _guard(self, file: Path) -> None:
        # Resolving each folder once makes the check cheap against decoding a chunk.
        if file.parent not in self._inside:
            check_inside(self.root, file.parent)
            self._inside.add(file.parent)
        if file.is_symlink():
            check_inside(self.root, file)


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
