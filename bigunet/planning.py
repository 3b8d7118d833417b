"""From what a user asks to a plan: every choice is made here, and what cannot work is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, floor
from pathlib import Path

from bigunet.cluster import EMBEDDED, Executor
from bigunet.cutting import (
    changed_size,
    choose_overlap,
    fit_tiling,
    target_block,
    write_chunk,
    write_shard,
)
from bigunet.errors import InputError, MemoryLimitError
from bigunet.fitting import fitting_tile, within_memory
from bigunet.geometry import Span, Tiling
from bigunet.images.destination import Destination
from bigunet.images.image import Image
from bigunet.images.intensity import Limits, given_limits
from bigunet.images.labels import plan_destinations
from bigunet.images.open import (
    check_chunk_memory,
    choose_channels,
    choose_level,
    image_planes,
    open_image,
)
from bigunet.instances.rules import Rules
from bigunet.masking.plan import TISSUE, MaskPlan, plan_mask
from bigunet.memory import Memory, choose_batch
from bigunet.models.devices import choose_precision, precision_warning
from bigunet.models.symmetries import check_augment
from bigunet.models.unet import UNet
from bigunet.plan import Plan, by
from bigunet.settings import Settings, choose_save
from bigunet.sites import Site, find_site, is_local
from bigunet.sizes import parse_area, parse_length
from bigunet.speed import fastest

__all__ = ["parse_region", "plan_run"]

_MEMORY_SHARE = 0.8


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
        return within_memory(plan, model)
    except MemoryLimitError:
        fitting = fitting_tile(plan, model)
        asked = settings.tile or settings.block or settings.overlap == "map_overlap"
        if fitting is None or asked:
            raise
    smaller = replace(settings, tile=fitting, block=fitting, overlap="direct")
    plan = within_memory(_plan(path, model, smaller, executor), model)
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
    save = choose_save(settings.save, model)
    destinations = _plan_destinations(settings, image, level, tiling, region, save, model)
    slow = precision_warning(precision, site.device, bfloat16=site.bfloat16)
    notes = (
        level_note,
        site.note,
        slow and f"warning: {slow}",
        *_size_notes(settings, tiling),
    )
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
        rules=_choose_rules(settings, save, model, image, level),
        mask=_plan_mask(settings, image, level, allowed, [d.name for d in destinations]),
        overlap=choose_overlap(
            settings.overlap,
            tiling,
            planes[0],
            len(planes),
            allowed,
            # Elsewhere a network that is part of Dask's graph would travel with every task.
            whole=region is None and site.scheduler in EMBEDDED,
        ),
        scheduler=site.scheduler,
        processes=site.processes,
        workers=site.workers,
        threads=site.threads,
        memory=Memory(allowed=allowed, projected=0),
        notes=tuple(filter(None, notes)),
    )


def _plan_destinations(
    settings: Settings,
    image: Image,
    level: int,
    tiling: Tiling,
    region: tuple[Span, Span] | None,
    save: Sequence[str],
    model: UNet,
) -> tuple[Destination, ...]:
    return plan_destinations(
        image,
        level,
        name=settings.name or model.card.name,
        output=None if settings.output is None else Path(settings.output),
        save=save,
        overwrite=settings.overwrite,
        chunk=write_chunk(tiling),
        # Whoever stores an image in few files wants no label of many.
        shard=write_shard(tiling) if image.levels[level].shards else None,
        classes=model.classes,
        region=region and (region[0].slice, region[1].slice),
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
