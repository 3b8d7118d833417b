"""What a run is going to do and need, decided before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from bigunet.cutting import pixels_decoded
from bigunet.geometry import Block, Span, Tiling
from bigunet.images.intensity import Limits
from bigunet.images.labels import Destination
from bigunet.images.open import Image, Plane
from bigunet.images.output import Output
from bigunet.instances.merge import id_dtype
from bigunet.instances.rules import Rules
from bigunet.masking.blocks import blocks_inside
from bigunet.masking.plan import FoundMask, MaskPlan
from bigunet.memory import Memory
from bigunet.staging import Staging

__all__ = ["Plan", "block_text", "by", "gigabytes"]


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
    runtime: str
    """What runs the network's arithmetic there."""
    precision: str
    batch: int
    """Tiles in a forward pass."""
    augment: str
    """What each tile is averaged over, ``none`` or ``d4``."""
    intensity: str
    """How limits are found, in words."""
    limits: Limits | None
    """(lo, hi) per channel; given, or measured after the plan was checked."""
    destinations: tuple[Destination, ...]
    """Where results go; several labels of the image are places of their own."""
    rules: Rules | None
    """What makes objects, where they are saved."""
    mask: MaskPlan | None
    """Which pixels are segmented; None for all."""
    overlap: str
    scheduler: str
    processes: int
    """Among which blocks are spread."""
    workers: int
    """Blocks at work at once, in all processes together."""
    threads: int
    """Of torch, in each process."""
    memory: Memory
    notes: tuple[str, ...]
    """What the user should know, a line each."""
    seconds: float | None = None
    """Projected time of the network, from timed tiles."""
    found: FoundMask | None = None
    """The mask, once it is ready."""
    needed: npt.NDArray[np.bool_] | None = None
    """(blocks,), which of them have a pixel inside the mask; None for all."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What is written."""
        return tuple(output for place in self.destinations for output in place.outputs)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the network has to give: classes, probabilities or both."""
        kinds = ("classes" if output.kind == "objects" else output.kind for output in self.outputs)
        return tuple(dict.fromkeys(kinds))

    @property
    def staging(self) -> Staging | None:
        """Where blocks wait until their objects are merged."""
        if self.rules is None:
            return None
        (output,) = (output for output in self.outputs if output.kind == "objects")
        y, x = (Span(*bounds) for bounds in output.region)
        return Staging(
            output=output,
            tiling=self.tiling,
            region=(y, x),
            planes=len(self.planes),
            rules=self.rules,
            needed=self.needed,
            mask=None if self.found is None else self.found.mask,
        )

    @property
    def blocks(self) -> int:
        """Number of blocks, over all planes."""
        return len(self.planes) * self.tiling.block_count(self.region)

    @property
    def pixels(self) -> int:
        """Output pixels, over all planes."""
        return len(self.planes) * _area(self.tiling.spans(self.region))

    @property
    def tiles(self) -> int:
        """Number of tiles, over all planes; averaged ones take several passes."""
        return len(self.planes) * self.tiling.tile_count(self.region)

    @property
    def bytes_read(self) -> int:
        """Decoded bytes that blocks ask for, halos included."""
        itemsize = self.planes[0].dtype.itemsize * len(self.channels)
        return len(self.planes) * itemsize * _area(self.tiling.sources(self.region))

    @property
    def read_amplification(self) -> float:
        """How often a pixel is decoded, at most: whole chunks are, with all channels and planes in them."""
        deeper = self.planes[0].layers / len(self.channels)
        if self.overlap == "map_overlap":
            return deeper
        decoded = pixels_decoded(
            self.tiling,
            self.planes[0],
            self.region,
            at_once=self.workers,
            processes=self.processes,
        )
        return deeper * decoded * len(self.planes) / self.pixels

    @property
    def bytes_written(self) -> int:
        """Bytes of the finest level before they are encoded; lower levels add a third."""
        per_pixel = sum(o.channels * np.dtype(o.dtype).itemsize for o in self.outputs)
        return self.pixels * per_pixel

    def work(self) -> Iterator[tuple[int, int, Plane, Block]]:
        """Yield the blocks that are needed in order: number among all, number of the plane, plane,
        block."""
        number = 0
        for at, plane in enumerate(self.planes):
            for block in self.tiling.blocks(self.region):
                if self.needed is None or self.needed[number]:
                    yield number, at, plane, block
                number += 1

    @property
    def skipped(self) -> frozenset[int]:
        """Numbers of the blocks that the mask leaves out."""
        if self.needed is None:
            return frozenset()
        return frozenset(np.flatnonzero(~self.needed).tolist())

    def masked(self, found: FoundMask) -> Plan:
        """Return the plan with a mask that is ready."""
        needed = blocks_inside(found.mask, self.tiling, self.region, len(self.planes))
        return replace(self, found=found, needed=needed)

    def counted(self, objects: int) -> Plan:
        """Return the plan with a type of ids that can count the objects."""
        dtype = id_dtype(objects).name
        return replace(self, destinations=tuple(d.with_ids(dtype) for d in self.destinations))

    def headline(self) -> str:
        """Return device, level and intensities in one line."""
        return f"{self._device}; level {self._level}; intensity {self._intensity}"

    @property
    def _device(self) -> str:
        return f"{self.device}, {self.runtime}, {self.precision}, {_count(self.threads, 'thread')}"

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
            f"tiles      {self.tiles} of {by(tiling.tile)} px{_passes(self.augment)}; "
            f"margin {tiling.margin} px, "
            f"so the network computes {tiling.extra_work:.2f} px per pixel",
            f"memory     {gigabytes(self.memory.projected)} projected, "
            f"{gigabytes(self.memory.allowed)} allowed (per process)",
            f"bytes      {gigabytes(self.bytes_read)} read, "
            f"{gigabytes(self.bytes_written)} written, before compression; "
            f"each pixel decoded {self.read_amplification:.2f} times",
            *([] if self.mask is None else [f"mask       {self.mask.text}"]),
            *time,
            *([] if self.rules is None else [f"objects    {_rules_text(self.rules)}"]),
            *(f"output     {o.final} ({o.kind})" for o in self.outputs),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for machines; sizes in pixels and bytes."""
        return {
            "image": str(self.image.path),
            "model": self.model,
            "device": self.device,
            "runtime": self.runtime,
            "precision": self.precision,
            "batch": self.batch,
            "augment": self.augment,
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
            "mask": None if self.mask is None else self.mask.text,
            "overlap": self.overlap,
            "scheduler": self.scheduler,
            "processes": self.processes,
            "workers": self.workers,
            "memory_projected": self.memory.projected,
            "memory_allowed": self.memory.allowed,
            "bytes_read": self.bytes_read,
            "read_amplification": round(self.read_amplification, 3),
            "bytes_written": self.bytes_written,
            "outputs": {o.kind: str(o.final) for o in self.outputs},
            "objects": None if self.rules is None else asdict(self.rules),
            "seconds_projected": self.seconds,
            "notes": list(self.notes),
        }


def _area(spans: tuple[Sequence[Span], Sequence[Span]]) -> int:
    """Return the pixels of all pairs of rows and columns."""
    return prod(sum(span.size for span in along) for along in spans)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def block_text(plane: Plane, block: Block) -> str:
    """Name a block as messages do."""
    place = f"rows {block.y.start}:{block.y.stop}, columns {block.x.start}:{block.x.stop}"
    return f"block {place}{f', plane {plane.index}' if plane.index else ''}"


def _rules_text(rules: Rules) -> str:
    """Say what makes objects; lengths and areas in pixels."""
    said = [
        f"split by {rules.split} up to {rules.max_diameter} px" if rules.split else "",
        f"gap of {rules.gap} px undone" if rules.gap else "",
        "holes filled" if rules.fill_holes else "",
        f"from {rules.min_area} px" if rules.min_area else "",
        f"up to {rules.max_area} px" if rules.max_area is not None else "",
    ]
    return ", ".join(["4-connected pixels of one class", *filter(None, said)])


def by(size: tuple[int, int]) -> str:
    """Write a size as people do: 512, or 512 × 256."""
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]} × {size[1]}"


def _passes(augment: str) -> str:
    return "" if augment == "none" else f", each the mean of 8 passes ({augment})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def gigabytes(size: int) -> str:
    """Write a number of bytes with a unit."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
