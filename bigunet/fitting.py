"""Make a plan fit the memory that is allowed: fewer blocks at once, or say which tile would fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bigunet.cluster import EMBEDDED
from bigunet.cutting import kept_bytes
from bigunet.errors import MemoryLimitError
from bigunet.memory import project_memory, smaller_tiling
from bigunet.models.unet import UNet
from bigunet.plan import Plan, by, gigabytes

__all__ = ["fitting_tile", "within_memory"]


def within_memory(plan: Plan, model: UNet) -> Plan:
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


def fitting_tile(plan: Plan, model: UNet) -> int | None:
    """Return the side of a tile, and block, that would fit with one block at a time."""
    least = replace(plan, workers=plan.processes, overlap="direct")
    fitting = smaller_tiling(
        plan.tiling,
        lambda tiling: _project(replace(least, tiling=tiling), model).memory.projected,
        plan.memory.allowed,
    )
    return None if fitting is None else max(fitting.tile)


def _too_large(plan: Plan, model: UNet) -> str:
    memory, tile = plan.memory, fitting_tile(plan, model)
    raised = f"--memory-limit {memory.projected / 1e9 + 0.1:.1f}GB"
    if tile is not None:
        raised = f"--tile {tile} --block {tile} --overlap direct, or {raised}"
    return (
        f"tiles of {by(plan.tiling.tile)} px and blocks of {by(plan.tiling.block)} px need "
        f"{gigabytes(memory.projected)} but {gigabytes(memory.allowed)} are allowed; "
        f"pass {raised}"
    )
