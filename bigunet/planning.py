"""From what a user asks to a plan: every choice is made here, and what cannot work is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from pathlib import Path
from typing import Literal

import numpy as np

from bigunet.cluster import EMBEDDED, Executor, Where
from bigunet.cutting import (
    changed_size,
    choose_overlap,
    fit_tiling,
    kept_bytes,
    target_block,
    write_chunk,
    write_shard,
)
from bigunet.errors import InputError, MemoryLimitError
from bigunet.geometry import Span, Tiling
from bigunet.images.image import Image
from bigunet.images.intensity import Limits
from bigunet.images.labels import plan_destinations
from bigunet.images.open import (
    check_chunk_memory,
    choose_channels,
    choose_level,
    image_planes,
    open_image,
)
from bigunet.inference import given_limits
from bigunet.instances.rules import Rules
from bigunet.masking.plan import TISSUE, MaskPlan, plan_mask
from bigunet.memory import Memory, choose_batch, project_memory, smaller_tiling
from bigunet.models.devices import choose_precision, precision_warning
from bigunet.models.symmetries import check_augment
from bigunet.models.unet import UNet
from bigunet.plan import Plan, by, gigabytes
from bigunet.sites import Site, find_site, is_local
from bigunet.sizes import Size, parse_area, parse_length
from bigunet.speed import fastest

__all__ = ["Settings", "choose_save", "parse_region", "plan_run"]

_MEMORY_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user can ask of a run."""

    name: str | None = None
    """Of the label; the model's name by default."""
    output: str | Path | None = None
    """A new OME-Zarr to write instead of a label of the slide."""
    save: Sequence[str] | None = None
    """What to write, of ``objects``, ``classes`` and ``probabilities``; the last need `output`.
    By default objects, of a model that was trained on objects, else classes."""
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
    runtime: str = "auto"
    """``auto``, ``eager``, ``compile`` or ``openvino``; see `bigunet.models.runtimes`."""
    mask: str = "none"
    """``none``; ``auto``: tissue, found and kept as label ``tissue``; or the name of a label. What
    lies outside is background."""
    augment: str = "none"
    """``none``, or ``d4``: the mean over the eight symmetries of the square."""
    block: int | tuple[int, int] | None = None
    """Pixels per task; rounded up to whole tiles."""
    tile: int | tuple[int, int] | None = None
    """Output pixels per forward pass; rounded up to ``2**depth``."""
    scheduler: Where | None = None
    """``threads``, ``sync``, ``processes``, ``slurm``, an address, a scheduler file, or a client of
    Dask. By default the client that is active, what DASK_SCHEDULER_ADDRESS says, or ``threads``."""
    workers: int | None = None
    """Blocks at once of ``threads``, processes of ``processes``, jobs of ``slurm``."""
    memory_limit: int | None = None
    """Bytes that a process may take; four fifths of what there is by default."""
    overlap: str = "auto"
    """How blocks get their halos: ``auto``, ``map_overlap`` or ``direct``."""
    min_area: Size | None = None
    """Smallest object that is kept: pixels of the level that is used, or ``20um2``."""
    max_area: Size | None = None
    """Largest object that is kept."""
    fill_holes: bool = False
    """Fill background that one object encloses."""
    split: Literal["distance"] | None = None
    """``distance``: split objects that grew together by a watershed of their distance map."""
    max_diameter: Size | None = None
    """Longest side of what is split, in pixels or ``15um``; needed to split."""


def plan_run(
    path: str | Path, model: UNet, settings: Settings, executor: Executor | None = None
) -> Plan:
    """Decide everything about a run; write nothing and read no pixel.

    Parameters
    ----------
    executor : Executor, optional
        A cluster that is there already, whose workers are asked what they have.

    Raises
    ------
    BigunetError
        What was asked cannot work; says why and what would.
    """
    plan = _plan(path, model, settings, executor)
    try:
        return _within_memory(plan, model)
    except MemoryLimitError:
        fitting = _fitting_tile(plan, model)
        asked = settings.tile or settings.block or settings.overlap == "map_overlap"
        if fitting is None or asked:
            raise
    smaller = replace(settings, tile=fitting, block=fitting, overlap="direct")
    plan = _within_memory(_plan(path, model, smaller, executor), model)
    note = f"tiles of {fitting} px, not the usual ones, for memory"
    return replace(plan, notes=(*plan.notes, note))


def _plan(path: str | Path, model: UNet, settings: Settings, executor: Executor | None) -> Plan:
    """Decide everything but whether memory is enough."""
    image = open_image(path)
    card = model.card
    level, level_note = choose_level(image, settings.level, settings.pixel_size or card.pixel_size)
    channels = choose_channels(image, settings.channels, model.in_channels)
    planes = image_planes(image, level, channels)
    site = _find_site(settings, executor)
    precision = choose_precision(settings.precision, site.device, bfloat16=site.bfloat16)
    choice = fastest(model, site.device, precision, settings.runtime, here=is_local(site.scheduler))
    allowed = _allowed(settings, site)
    check_chunk_memory(image, level, allowed)
    shape = (planes[0].shape[1], planes[0].shape[2])
    region = parse_region(settings.region, shape)
    tiling = fit_tiling(
        shape,
        model.depth,
        tile=settings.tile,
        block=settings.block,
        target_tile=choice.tile,
        target_block=target_block(shape, site.workers * len(planes)),
    )
    overlap = choose_overlap(
        settings.overlap,
        tiling,
        planes[0],
        len(planes),
        allowed,
        # Elsewhere a network that is part of Dask's graph would travel with every task.
        whole=region is None and site.scheduler in EMBEDDED,
    )
    save = choose_save(settings.save, model)
    rules = _choose_rules(settings, save, model, image, level)
    destinations = plan_destinations(
        image,
        level,
        name=settings.name or card.name,
        output=None if settings.output is None else Path(settings.output),
        save=save,
        overwrite=settings.overwrite,
        chunk=write_chunk(tiling),
        # Whoever stores an image in few files wants no label of many.
        shard=write_shard(tiling) if image.levels[level].shards else None,
        classes=model.classes,
        region=region and (region[0].slice, region[1].slice),
    )
    mask = _plan_mask(settings, image, level, allowed, [d.name for d in destinations])
    slow = precision_warning(precision, site.device, bfloat16=site.bfloat16)
    notes = (level_note, site.note, slow, *_size_notes(settings, tiling))
    return Plan(
        image=image,
        level=level,
        channels=channels,
        planes=planes,
        tiling=tiling,
        region=region,
        model=card.name,
        network=f"U-Net of width {model.width}, depth {model.depth}, {model.classes} classes",
        device=site.device,
        runtime=choice.runtime,
        precision=precision,
        batch=choose_batch(
            model, tiling, site.device_memory, precision, averaged=settings.augment != "none"
        ),
        augment=check_augment(settings.augment),
        intensity=_intensity_text(model, settings),
        limits=_given_limits(settings, len(channels)),
        destinations=destinations,
        rules=rules,
        mask=mask,
        overlap=overlap,
        scheduler=site.scheduler,
        processes=site.processes,
        workers=site.workers,
        threads=site.threads,
        memory=Memory(allowed=allowed, projected=0),
        notes=tuple(filter(None, notes)),
    )


def _plan_mask(
    settings: Settings, image: Image, level: int, allowed: int, names: Sequence[str]
) -> MaskPlan | None:
    inside = settings.output is None
    mask = plan_mask(image, level, settings.mask, store=inside)
    if mask is None:
        return None
    label = mask.label or TISSUE
    if inside and label in names:
        raise InputError(
            f"label '{label}' cannot be the mask and the result of a run; choose another --name"
        )
    if mask.look is not None:
        check_chunk_memory(image, mask.look, allowed)
    return mask


def choose_save(save: Sequence[str] | None, model: UNet) -> tuple[str, ...]:
    """Return what to write: objects by default, where the model was trained on them."""
    if save is not None:
        return tuple(save)
    # The gap tells it too, of models that were trained before cards said so.
    trained_on_objects = model.card.instances or model.card.gap > 0
    return ("objects",) if trained_on_objects else ("classes",)


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


def _choose_rules(
    settings: Settings, save: Sequence[str], model: UNet, image: Image, level: int
) -> Rules | None:
    """Return what makes objects, in pixels; None where they are not saved."""
    asked = [
        name
        for name in ("min_area", "max_area", "fill_holes", "split", "max_diameter")
        if getattr(settings, name)
    ]
    if "objects" not in save:
        if asked:
            raise InputError(f"{asked[0]} is for objects: add them, --save objects")
        return None
    pixel = image.pixel_size(level)
    least, most, longest = settings.min_area, settings.max_area, settings.max_diameter
    return Rules(
        gap=model.card.gap,
        fill_holes=settings.fill_holes,
        # Rounded, for 20 µm² are to be 80 pixels of 0.5 µm, not one more.
        min_area=0 if least is None else ceil(round(parse_area("min_area", least, pixel), 6)),
        max_area=None if most is None else floor(round(parse_area("max_area", most, pixel), 6)),
        split=settings.split,
        max_diameter=None
        if longest is None
        else ceil(round(parse_length("max_diameter", longest, pixel), 6)),
    )


def _within_memory(plan: Plan, model: UNet) -> Plan:
    """Take fewer blocks at once where that makes the plan fit.

    Raises
    ------
    MemoryLimitError
        Even one does not fit; names projected, allowed and the way out.
    """
    plan = _project(plan, model)
    asked = plan.workers
    # Elsewhere a process takes as many blocks at once as it has threads for them.
    while plan.memory.projected > plan.memory.allowed and plan.workers > 1 and _is_embedded(plan):
        plan = _project(replace(plan, workers=plan.workers - 1), model)
    if plan.memory.projected > plan.memory.allowed:
        raise MemoryLimitError(_too_large(plan, model))
    if plan.workers < asked:
        note = f"{plan.workers} of {asked} blocks at a time, for memory"
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def _project(plan: Plan, model: UNet) -> Plan:
    plane, outputs = plan.planes[0], plan.outputs
    projected = project_memory(
        model,
        plan.tiling,
        channels=plane.shape[0],
        itemsize=plane.dtype.itemsize,
        source_chunk=(plane.layers, *plane.decoded),
        kept=kept_bytes(plane) if plan.overlap == "direct" else 0,
        result_bytes=sum(o.channels * np.dtype(o.dtype).itemsize for o in outputs),
        workers=-(-plan.workers // plan.processes),
        whole_plane=plan.overlap == "map_overlap",
        averaged=plan.augment != "none",
        rules=plan.rules,
        pixels=plan.pixels,
        device=plan.device,
        runtime=plan.runtime,
        batch=plan.batch,
    )
    return replace(plan, memory=replace(plan.memory, projected=projected))


def _is_embedded(plan: Plan) -> bool:
    return plan.scheduler in EMBEDDED


def _fitting_tile(plan: Plan, model: UNet) -> int | None:
    """Return the side of a tile, and block, that would fit with one block at a time."""
    least = replace(plan, workers=plan.processes, overlap="direct")
    fitting = smaller_tiling(
        plan.tiling,
        lambda tiling: _project(replace(least, tiling=tiling), model).memory.projected,
        plan.memory.allowed,
    )
    return None if fitting is None else max(fitting.tile)


def _too_large(plan: Plan, model: UNet) -> str:
    memory, tile = plan.memory, _fitting_tile(plan, model)
    raised = f"--memory-limit {memory.projected / 1e9 + 0.1:.1f}GB"
    if tile is not None:
        raised = f"--tile {tile} --block {tile} --overlap direct, or {raised}"
    return (
        f"tiles of {by(plan.tiling.tile)} px and blocks of {by(plan.tiling.block)} px need "
        f"{gigabytes(memory.projected)} but {gigabytes(memory.allowed)} are allowed; "
        f"pass {raised}"
    )


def _find_site(settings: Settings, executor: Executor | None) -> Site:
    workers = settings.workers
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; it has to be at least 1")
    return find_site(settings.scheduler, workers, settings.device, executor)


def _allowed(settings: Settings, site: Site) -> int:
    limit = settings.memory_limit
    if limit is None:
        return round(_MEMORY_SHARE * site.memory)
    if limit < 1:
        raise InputError(f"memory limit is {limit}; it has to be a positive number of bytes")
    return limit


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
            yield f"{name} {asked} became {by(used)}: whole tiles on the grid, at least the halo"
