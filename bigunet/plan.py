"""Everything that is decided before a pixel is read.

`Settings` is what a user asks, `Plan` what a run is going to do and need;
`plan_run` makes one of the other and refuses what cannot work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bigunet.cluster import EMBEDDED, available_cores, available_memory, check_scheduler
from bigunet.errors import InputError, MemoryLimitError
from bigunet.geometry import Block, Span, Tiling, pooling_grid, round_up
from bigunet.images.intensity import Limits
from bigunet.images.labels import Destination, plan_destination
from bigunet.images.open import (
    Image,
    Plane,
    check_chunk_memory,
    choose_channels,
    choose_level,
    image_planes,
    open_image,
)
from bigunet.inference import TARGET_BLOCK, changed_size, fit_tiling, given_limits
from bigunet.memory import Memory, project_memory
from bigunet.models.runtime import choose_device, choose_precision
from bigunet.models.unet import UNet

__all__ = ["Plan", "Settings", "choose_overlap", "parse_region", "plan_run", "write_chunk"]

_MEMORY_SHARE = 0.8
_SMALLEST_BLOCK = 1024
_BLOCKS_PER_WORKER = 8
_LARGEST_CHUNK = 1024
# Rough costs of the two ways to feed blocks, to choose between them only.
_DECODE_BYTES_PER_SECOND = 200e6
_OVERLAP_TASKS, _SECONDS_PER_TASK = 14, 6e-4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user can ask of a run."""

    name: str | None = None
    """Of the label; the model's name by default."""
    output: str | Path | None = None
    """A new OME-Zarr to write instead of a label of the slide."""
    save: Sequence[str] = ("classes",)
    """What to write, of ``classes`` and ``probabilities``; the latter need `output`."""
    overwrite: bool = False
    """Replace a complete label of bigunet's; it stays readable until the new one is there."""
    channels: Sequence[int | str] | None = None
    """Indices or names; needed where the slide has more than the model takes."""
    level: int | None = None
    """Of the pyramid; 0 is the finest."""
    pixel_size: float | None = None
    """Micrometres per pixel that the model wants; its own by default."""
    intensity: Sequence[tuple[float, float]] | None = None
    """(lo, hi) per channel instead of the model's rule."""
    region: Sequence[Sequence[int]] | None = None
    """((y0, y1), (x0, x1)) of the level that is used; the rest stays background."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``mps``."""
    precision: str = "auto"
    """``auto``, ``float32``, ``bfloat16`` or ``float16``."""
    block: int | tuple[int, int] | None = None
    """Pixels per task; rounded up to whole tiles."""
    tile: int | tuple[int, int] | None = None
    """Output pixels per forward pass; rounded up to ``2**depth``."""
    scheduler: str = "threads"
    """``threads``, ``sync``, ``processes``, an address or a scheduler file."""
    workers: int | None = None
    """Blocks at once (processes with ``processes``); all cores by default."""
    memory_limit: int | None = None
    """Bytes that a process may take; four fifths of what there is by default."""
    overlap: str = "auto"
    """How blocks get their halos: ``auto``, ``map_overlap`` or ``direct``."""


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
            f"blocks     {self.blocks} of {_by(tiling.block)} px, "
            f"{self.overlap}, {self.workers} at a time, scheduler {self.scheduler}",
            f"tiles      {self.tiles} of {_by(tiling.tile)} px; margin {tiling.margin} px, "
            f"so the network computes {tiling.extra_work:.2f} px per pixel",
            f"memory     {_gigabytes(self.memory.projected)} projected, "
            f"{_gigabytes(self.memory.allowed)} allowed (per process)",
            f"bytes      {_gigabytes(self.bytes_read)} read, "
            f"{_gigabytes(self.bytes_written)} written, before compression",
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


def plan_run(path: str | Path, model: UNet, settings: Settings) -> Plan:
    """Decide everything about a run; write nothing and read no pixel.

    Raises
    ------
    BigunetError
        What was asked cannot work; says why and what would.
    """
    image = open_image(path)
    card = model.card
    level, level_note = choose_level(image, settings.level, settings.pixel_size or card.pixel_size)
    channels = choose_channels(image, settings.channels, model.in_channels)
    planes = image_planes(image, level, channels)
    device, device_note = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    allowed = _allowed(settings)
    check_chunk_memory(image, level, allowed)
    workers, threads = _share_cores(settings)
    shape = (planes[0].shape[1], planes[0].shape[2])
    region = parse_region(settings.region, shape)
    tiling = fit_tiling(
        shape,
        model.depth,
        tile=settings.tile,
        block=settings.block,
        target_block=_target_block(shape, workers * len(planes)),
    )
    overlap = choose_overlap(settings.overlap, tiling, planes[0], len(planes), allowed)
    destination = plan_destination(
        image,
        level,
        name=settings.name or card.name,
        output=None if settings.output is None else Path(settings.output),
        save=settings.save,
        overwrite=settings.overwrite,
        chunk=write_chunk(tiling),
        classes=model.classes,
        region=region and (region[0].slice, region[1].slice),
    )
    plan = Plan(
        image=image,
        level=level,
        channels=channels,
        planes=planes,
        tiling=tiling,
        region=region,
        model=card.name,
        network=f"U-Net of width {model.width}, depth {model.depth}, {model.classes} classes",
        device=device,
        precision=precision,
        intensity=_intensity_text(model, settings),
        limits=_given_limits(settings, len(channels)),
        destination=destination,
        overlap=overlap,
        scheduler=check_scheduler(settings.scheduler),
        workers=workers,
        threads=threads,
        memory=Memory(allowed=allowed, projected=0),
        notes=tuple(n for n in (level_note, device_note, *_size_notes(settings, tiling)) if n),
    )
    return _within_memory(plan, model)


def parse_region(
    region: Sequence[Sequence[int]] | None, shape: tuple[int, int]
) -> tuple[Span, Span] | None:
    """Return ((y0, y1), (x0, x1) as spans, if they lie in the plane.

    Raises
    ------
    InputError
        The region is empty, or goes beyond the plane.
    """
    if region is None:
        return None
    (y0, y1), (x0, x1) = region
    if not (0 <= y0 < y1 <= shape[0] and 0 <= x0 < x1 <= shape[1]):
        raise InputError(
            f"region {y0}:{y1},{x0}:{x1} does not lie in rows 0:{shape[0]}, columns 0:{shape[1]} "
            f"of the level that is used; choose Y0 < Y1 and X0 < X1 in there"
        )
    return Span(y0, y1), Span(x0, x1)


def write_chunk(tiling: Tiling) -> tuple[int, int]:
    """Return the write unit of labels in pixels: it divides the block and is at most 1,024."""
    y, x = (
        min(_chunk_along(tile, block), size)
        for tile, block, size in zip(tiling.tile, tiling.block, tiling.shape, strict=True)
    )
    return y, x


def _chunk_along(tile: int, block: int) -> int:
    if tile > _LARGEST_CHUNK:
        return next(
            tile // k for k in range(2, tile + 1) if tile // k <= _LARGEST_CHUNK and tile % k == 0
        )
    tiles = block // tile
    fits = [k for k in range(1, tiles + 1) if tiles % k == 0 and k * tile <= _LARGEST_CHUNK]
    return max(fits) * tile


def _within_memory(plan: Plan, model: UNet) -> Plan:
    """Take fewer blocks at once where that makes the plan fit.

    Raises
    ------
    MemoryLimitError
        Even one does not fit; names projected, allowed and the way out.
    """
    plan = _project(plan, model)
    asked = plan.workers
    while plan.memory.projected > plan.memory.allowed and plan.workers > 1:
        plan = _project(replace(plan, workers=plan.workers - 1), model)
    if plan.memory.projected > plan.memory.allowed:
        raise MemoryLimitError(_too_large(plan, model))
    if plan.workers < asked:
        note = f"{plan.workers} of {asked} blocks at a time, for memory"
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def _project(plan: Plan, model: UNet) -> Plan:
    plane, outputs = plan.planes[0], plan.destination.outputs
    embedded = plan.scheduler in EMBEDDED
    projected = project_memory(
        model,
        plan.tiling,
        channels=plane.shape[0],
        itemsize=plane.dtype.itemsize,
        source_chunk=plane.chunks,
        result_bytes=sum(o.channels * np.dtype(o.dtype).itemsize for o in outputs),
        workers=plan.workers if embedded else 1,
        whole_plane=plan.overlap == "map_overlap",
    )
    return replace(plan, memory=replace(plan.memory, projected=projected))


def _too_large(plan: Plan, model: UNet) -> str:
    memory, tile = plan.memory, max(plan.tiling.tile)
    raised = f"--memory-limit {memory.projected / 1e9 + 0.1:.1f}GB"
    while tile > pooling_grid(model.depth):
        tile = round_up(tile // 2, pooling_grid(model.depth))
        smaller = fit_tiling(plan.tiling.shape, model.depth, tile=tile, block=tile)
        tried = _project(replace(plan, tiling=smaller, workers=1, overlap="direct"), model)
        if tried.memory.projected <= memory.allowed:
            raised = f"--tile {tile} --block {tile} --overlap direct, or {raised}"
            break
    return (
        f"tiles of {_by(plan.tiling.tile)} px and blocks of {_by(plan.tiling.block)} px need "
        f"{_gigabytes(memory.projected)} but {_gigabytes(memory.allowed)} are allowed; "
        f"pass {raised}"
    )


def _allowed(settings: Settings) -> int:
    limit = settings.memory_limit
    if limit is None:
        return round(_MEMORY_SHARE * available_memory())
    if limit < 1:
        raise InputError(f"memory limit is {limit}; it has to be a positive number of bytes")
    return limit


def _share_cores(settings: Settings) -> tuple[int, int]:
    """Return blocks at once, and torch's threads in each process."""
    cores, workers = available_cores(), settings.workers
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it has to be at least 1")
    if settings.scheduler == "sync":
        return 1, cores
    if settings.scheduler == "threads":
        # One pass at a time uses all cores; a second block is read and written meanwhile.
        return workers or max(2, cores), cores
    count = workers or cores
    return count, max(1, cores // count)


def _target_block(shape: tuple[int, int], workers: int) -> int:
    """Return a block's side that gives every worker several, if the plane is large enough."""
    side = math.isqrt(shape[0] * shape[1] // (_BLOCKS_PER_WORKER * workers))
    return min(max(side, _SMALLEST_BLOCK), TARGET_BLOCK)


def _given_limits(settings: Settings, channels: int) -> Limits | None:
    return given_limits(settings.intensity, channels) if settings.intensity else None


def _intensity_text(model: UNet, settings: Settings) -> str:
    rule = model.card.intensity
    if settings.intensity is not None:
        return "as given"
    if rule is None:
        return "as stored, for the model names no rule"
    unit = "%" if rule.kind == "percentile" else ""
    return f"{rule.kind} {rule.low:g}{unit} … {rule.high:g}{unit}"


def _size_notes(settings: Settings, tiling: Tiling) -> Iterator[str]:
    for name, used in (("block", tiling.block), ("tile", tiling.tile)):
        asked = getattr(settings, name)
        if asked is not None and changed_size(asked, used, tiling):
            yield f"{name} {asked} became {_by(used)}: whole tiles on the grid, at least the halo"


def choose_overlap(wanted: str, tiling: Tiling, plane: Plane, planes: int, allowed: int) -> str:
    """Return ``direct`` or ``map_overlap``, by projected cost where nobody chose.

    Direct reads decode a chunk of the source for each block that touches it;
    map_overlap decodes each once but costs some 14 tasks a block and holds most
    of a plane in memory.

    Raises
    ------
    InputError
        The choice is unknown.
    """
    if wanted not in ("auto", "direct", "map_overlap"):
        raise InputError(f"overlap '{wanted}' is unknown; choose auto, map_overlap or direct")
    if wanted != "auto":
        return wanted
    itemsize = plane.dtype.itemsize * plane.shape[0]
    whole = math.prod(tiling.shape) * itemsize
    touched = sum(_chunk_bytes(tiling.source(b), plane) for b in tiling.blocks()) * itemsize
    blocks = sum(1 for _ in tiling.blocks())
    direct = touched / _DECODE_BYTES_PER_SECOND
    overlap = whole / _DECODE_BYTES_PER_SECOND + blocks * _OVERLAP_TASKS * _SECONDS_PER_TASK
    fits = planes == 1 and 6 * whole < allowed
    return "map_overlap" if fits and overlap < direct else "direct"


def _chunk_bytes(source: tuple[Span, Span], plane: Plane) -> int:
    """Return the pixels of all chunks that a read touches."""
    sizes = []
    for span, chunk in zip(source, plane.chunks, strict=True):
        sizes.append((-(-span.stop // chunk) - span.start // chunk) * chunk)
    return math.prod(sizes)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]} × {size[1]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
