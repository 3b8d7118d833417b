"""A GPU that is none: it computes here and now, and keeps count of what is sure to be done.

Every stream, and the host, knows the operations that are done before its next one begins. An
event carries that knowledge from the stream that recorded it to whoever waits for it. On a real
device everything else may happen in any order, or at the same time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch

from bigunet.models import predictor, transfers

Operation = tuple[str, int]
"""What, and how many of its kind came before."""


class FakeStream:
    def __init__(self, device: Any = None) -> None:
        self.knows: set[Operation] = set()

    def wait_stream(self, other: FakeStream) -> None:
        self.knows |= other.knows


class FakeCuda:
    """What of `torch.cuda` prediction uses; ``cuda`` is put in its place by `fake_cuda`."""

    def __init__(self) -> None:
        self.computing = self.current = FakeStream()
        self.host: set[Operation] = set()
        self.knew: dict[Operation, set[Operation]] = {}
        """What was sure to be done when an operation began."""
        self.kept: list[FakeStream] = []
        """Streams for which memory of another one was kept."""
        self.emptied = 0
        self.free = 10**9
        self._counts: Counter[str] = Counter()

    def does(self, kind: str) -> Operation:
        """Queue an operation on the current stream."""
        operation = kind, self._counts[kind]
        self._counts[kind] += 1
        self.knew[operation] = set(self.current.knows)
        self.current.knows.add(operation)
        return operation

    def count(self, kind: str) -> int:
        return self._counts[kind]

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def event(self, *, blocking: bool = False) -> Any:
        host = self.host

        class FakeEvent:
            knows: set[Operation]

            def record(self, stream: FakeStream) -> None:
                self.knows = set(stream.knows)

            def synchronize(self) -> None:
                host.update(self.knows)

        return FakeEvent()

    def empty_cache(self) -> None:
        self.emptied += 1


def fake_cuda(patch: pytest.MonkeyPatch) -> FakeCuda:
    """Put a fake in the place of `torch.cuda`, until the patch is undone."""
    cuda = FakeCuda()
    patch.setattr(torch.cuda, "Stream", FakeStream)
    patch.setattr(torch.cuda, "Event", cuda.event)
    patch.setattr(torch.cuda, "stream", cuda.stream)
    patch.setattr(torch.cuda, "current_stream", lambda _: cuda.computing)
    patch.setattr(torch.cuda, "empty_cache", cuda.empty_cache)
    patch.setattr(torch.cuda, "mem_get_info", lambda _: (cuda.free, 10**12))
    patch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    patch.setattr(transfers, "_pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
    patch.setattr(predictor, "open_transfers", cache(transfers.open_transfers.__wrapped__))
    patch.setattr(predictor, "_networks", {})
    patch.setattr(predictor, "_reduced", {})
    real_to, real_copy = torch.Tensor.to, torch.Tensor.copy_

    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not args or not str(args[0]).startswith("cuda"):
            return real_to(tensor, *args, **kwargs)
        if kwargs.get("non_blocking"):
            cuda.does("sent")
        return tensor.clone()

    def copy(tensor: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> Any:
        if non_blocking:
            cuda.does("fetched")
        return real_copy(tensor, source)

    patch.setattr(torch.Tensor, "to", to)
    patch.setattr(torch.Tensor, "copy_", copy)
    patch.setattr(torch.Tensor, "record_stream", lambda _, stream: cuda.kept.append(stream))
    return cuda
