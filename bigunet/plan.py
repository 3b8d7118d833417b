"""What a run is going to do and need, decided before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigunet.geometry import Block, Span, Tiling
from bigunet.images.intensity import Limits
from bigunet.images.labels import Destination
from bigunet.images.open import Image, Plane
from bigunet.memory import Memory

__all__ = ["Plan", "by", "gigabytes"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run over one image."""

    image: Image
    level: int
    channels: tuple[int, ...]
    planes: tuple[Plane, ...]
    tiling: Tiling
    region: tuple[Span, Span] | None
    """Rows and columns of the level that are asked for; all if None."""
    model: str
    network: str
    device: str
    precision: str
    intensity: str
    """How limits are found, in words."""
    limits: Limits | None
    """(lo, hi) per channel; given, or measured after the plan was checked."""
    destination: Destination
    overlap: str
    scheduler: str
    workers: int
    """Blocks at work at once, in each process that is."""
    threads: int
    """Of torch, in each process."""
    memory: Memory
    notes: tuple[str, ...]
    """What the user should know, a line each."""
    seconds: float | None = None
    """Projected time of the network, from timed tiles."""

    @property
    def blocks(self) -> int:
        """Number of blocks, over all planes."""
        return len(self.planes) * sum(1 for _ in self.tiling.blocks(self.region))

    @property
    def pixels(self) -> int:
        """Output pixels, over all planes."""
        return len(self.planes) * sum(b.pixels for b in self.tiling.blocks(self.region))

    @property
    def tiles(self) -> int:
        """Forward passes, over all planes."""
        blocks = self.tiling.blocks(self.region)
        return len(self.planes) * sum(1 for b in blocks for _ in self.tiling.tiles(b))

    @property
    def bytes_read(self) -> int:
        """Decoded bytes that blocks ask for, halos included."""
        itemsize = self.planes[0].dtype.itemsize * len(self.channels)
        sources = (self.tiling.source(b) for b in self.tiling.blocks(self.region))
        return len(self.planes) * itemsize * sum(y.size * x.size for y, x in sources)

    @property
    def bytes_written(self) -> int:
        """Bytes of the finest level before they are encoded; lower levels add a third."""
        per_pixel = sum(o.channels * np.dtype(o.dtype).itemsize for o in self.destination.outputs)
        return self.pixels * per_pixel

    def work(self) -> Iterator[tuple[Plane, Block]]:
        """Yield all blocks of all planes in order."""
        for plane in self.planes:
            for block in self.tiling.blocks(self.region):
                yield plane, block

    def headline(self) -> str:
        """Return device, level and intensities in one line."""
        return f"{self._device}; level {self._level}; intensity {self._intensity}"

    @property
    def _device(self) -> str:
        return f"{self.device}, {self.precision}, {_count(self.threads, 'thread')}"

    @property
    def _level(self) -> str:
        size = self.image.pixel_size(self.level)
        shape = f"{self.tiling.shape[0]} × {self.tiling.shape[1]} px"
        return f"{self.level} ({shape}, {size:g} µm/px)" if size else f"{self.level} ({shape})"

    @property
    def _intensity(self) -> str:
        if self.limits is None:
            return self.intensity
        return f"{self.intensity}: " + ", ".join(f"{lo:g} … {hi:g}" for lo, hi in self.limits)

    def lines(self) -> list[str]:
        """Return the plan in words, for people."""
        tiling = self.tiling
        time = [] if self.seconds is None else [f"time       about {_duration(self.seconds)}"]
        return [
            f"device     {self._device}",
            f"model      {self.model}: {self.network}",
            f"level      {self._level}",
            f"planes     {len(self.planes)}, channels {list(self.channels)}",
            f"intensity  {self._intensity}",
            f"blocks     {self.blocks} of {by(tiling.block)} px, "
            f"{self.overlap}, {self.workers} at a time, scheduler {self.scheduler}",
            f"tiles      {self.tiles} of {by(tiling.tile)} px; margin {tiling.margin} px, "
            f"so the network computes {tiling.extra_work:.2f} px per pixel",
            f"memory     {gigabytes(self.memory.projected)} projected, "
            f"{gigabytes(self.memory.allowed)} allowed (per process)",
            f"bytes      {gigabytes(self.bytes_read)} read, "
            f"{gigabytes(self.bytes_written)} written, before compression",
            *time,
            *(f"output     {o.final} ({o.kind})" for o in self.destination.outputs),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for machines; sizes in pixels and bytes."""
        return {
            "image": str(self.image.path),
            "model": self.model,
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "level": self.level,
            "shape": list(self.tiling.shape),
            "planes": len(self.planes),
            "channels": list(self.channels),
            "intensity": self.intensity,
            "limits": self.limits,
            "region": self.region and [[s.start, s.stop] for s in self.region],
            "blocks": self.blocks,
            "block": list(self.tiling.block),
            "tiles": self.tiles,
            "tile": list(self.tiling.tile),
            "margin": self.tiling.margin,
            "extra_work": round(self.tiling.extra_work, 3),
            "overlap": self.overlap,
            "scheduler": self.scheduler,
            "workers": self.workers,
            "memory_projected": self.memory.projected,
            "memory_allowed": self.memory.allowed,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "outputs": {o.kind: str(o.final) for o in self.destination.outputs},
            "seconds_projected": self.seconds,
            "notes": list(self.notes),
        }


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def by(size: tuple[int, int]) -> str:
    """Write a size as people do: 512, or 512 × 256."""
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]} × {size[1]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def gigabytes(size: int) -> str:
    """Write a number of bytes with a unit."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
