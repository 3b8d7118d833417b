"""How tiles get to a device and results come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
import torch

__all__ = ["CudaTransfers", "Results", "Transfers", "as_tensor", "open_transfers"]

Results: TypeAlias = Iterator[tuple[np.ndarray, ...]]
"""For each tile in turn an array of each kind."""

# torch has no arithmetic for the other unsigned types; float32 holds what a network sees.
_CAST_ON_DEVICE = frozenset({"uint8", "int8", "int16", "float32"})


class Transfers:
    """One tile after the other, as the CPU and MPS have it: batches do not pay there."""

    def __init__(self, device: str) -> None:
        self.device = device

    def send(self, tiles: torch.Tensor) -> torch.Tensor:
        """Bring tiles to the device; what is queued there next sees them."""
        return tiles.to(self.device)

    def fetch(self, results: Sequence[torch.Tensor]) -> Results:
        """Bring results (N, …) back; they are waited for when the first is taken."""
        yield from zip(*(result.cpu().numpy() for result in results), strict=True)

    def stream(
        self,
        tiles: Iterable[np.ndarray],
        batch: int,
        run: Callable[[torch.Tensor], Iterable[Results]],
    ) -> Results:
        """Yield the results of tiles (C, Y, X) in their order.

        Parameters
        ----------
        tiles : iterable of (C, Y, X) array
            Of one shape and type; each is taken when its turn comes.
        batch : int
            Tiles (N, C, Y, X) that `run` gets at once.
        run : callable
            Sends tiles, puts them through the network and fetches what it makes of them,
            perhaps in parts.
        """
        for tile in tiles:
            yield from chain.from_iterable(run(as_tensor(tile)[None]))


class CudaTransfers(Transfers):
    """Copies between pinned memory and a GPU that go on while the network runs.

    Nothing in here waits but `fetch`'s results when they are taken, so a batch is gathered and
    sent while the GPU has the one before it. Two batches are in flight at most. Each copy has a
    stream of its own kind beside the one that computes; events keep their order. torch's
    allocators keep memory, pinned or on the device, from being used anew before the copies that
    were queued on it are done.
    """

    def __init__(self, device: str) -> None:
        super().__init__(device)
        # torch's streams and events have no annotations.
        self._inward = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._outward = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, tiles: torch.Tensor) -> torch.Tensor:
        """Queue a copy of pinned tiles; what is queued on the computing stream next sees it."""
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._inward):
            sent = tiles.to(self.device, non_blocking=True)
        computing.wait_stream(self._inward)
        # The memory belongs to the inward stream, which may not reuse it before it was read.
        sent.record_stream(computing)
        return sent

    def fetch(self, results: Sequence[torch.Tensor]) -> Results:
        """Queue copies into pinned memory, behind all that computes now."""
        results = [result.contiguous() for result in results]
        self._outward.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._outward):
            here = [_pinned(r.shape, r.dtype).copy_(r, non_blocking=True) for r in results]
        for result in results:
            result.record_stream(self._outward)
        # A thread that waits sleeps, for others decode and encode meanwhile.
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(self._outward)
        return _arrived(here, done)

    def stream(
        self,
        tiles: Iterable[np.ndarray],
        batch: int,
        run: Callable[[torch.Tensor], Iterable[Results]],
    ) -> Results:
        """Yield the results of tiles (C, Y, X) in their order; see `Transfers.stream`.

        All batches have one size, the last is filled up: which algorithm cuDNN chooses, and
        with it the bits, must not depend on how many tiles there are.
        """
        waiting = iter(tiles)
        before: Results = iter(())
        while some := list(islice(waiting, batch)):
            running = run(_gathered(some, batch))
            yield from before
            before = islice(chain.from_iterable(running), len(some))
        yield from before


@cache
def open_transfers(device: str) -> Transfers:
    """Return what copies to and from a device; a process has one for each."""
    return CudaTransfers(device) if device.startswith("cuda") else Transfers(device)


def as_tensor(tile: np.ndarray) -> torch.Tensor:
    """Return a tile in its own type where torch can cast that on the device, else float32."""
    # torch warns of arrays that it may not write to, such as memory maps.
    tile = np.require(tile, _sent_type(tile.dtype), requirements=["C", "W"])
    return torch.from_numpy(tile)


def _sent_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    keeps = dtype.name in _CAST_ON_DEVICE and dtype.isnative
    return dtype if keeps else np.dtype(np.float32)


def _gathered(tiles: Sequence[np.ndarray], batch: int) -> torch.Tensor:
    """Put tiles into pinned memory (batch, C, Y, X); what is left over is zero."""
    dtype = torch.from_numpy(np.empty(0, _sent_type(tiles[0].dtype))).dtype
    pinned = _pinned((batch, *tiles[0].shape), dtype)
    array = pinned.numpy()
    for place, tile in zip(array, tiles, strict=False):
        place[:] = tile
    array[len(tiles) :] = 0
    return pinned


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


def _arrived(results: Sequence[torch.Tensor], done: torch.cuda.Event) -> Results:
    done.synchronize()
    yield from zip(*(result.numpy() for result in results), strict=True)
