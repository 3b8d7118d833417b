"""The route of ``bigunet segment``: the one file that knows every stage.

open → plan → measure intensities → create the output, unlisted, or check what an
unfinished run left there → blocks (read, predict, write or stage, record) → objects
(merge, relabel) → pyramid → metadata last.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from bigunet.assembly import median_diameter, merge_staged, objects_record, write_objects
from bigunet.cluster import (
    EMBEDDED,
    Executor,
    check_scheduler,
    open_executor,
)
from bigunet.errors import BigunetError, RunError
from bigunet.images.destination import commit_all
from bigunet.images.intensity import measure_limits
from bigunet.images.labels import finish_interrupted, label_names
from bigunet.images.open import Plane, open_image
from bigunet.images.output import assert_disjoint_writes
from bigunet.images.pyramid import pyramid_count
from bigunet.instances.block import BlockRecord
from bigunet.instances.collect import Objects
from bigunet.ledger import Ledger, Record
from bigunet.masking.plan import find_mask, store_mask
from bigunet.models.card import default_class_names, default_colors
from bigunet.models.checkpoint import load_model
from bigunet.models.devices import visible_gpus
from bigunet.models.predictor import torch_threads_kept
from bigunet.models.unet import UNet
from bigunet.plan import Plan
from bigunet.planning import plan_run
from bigunet.provenance import provenance, run_settings
from bigunet.resume import check_unfinished, find_unfinished, settle, settle_plan
from bigunet.segmentation import Segmentation
from bigunet.settings import Settings, choose_save
from bigunet.sites import is_local
from bigunet.stages import Listener, Progress, Stages
from bigunet.tiles import time_tile
from bigunet.work import (
    BlockChecked,
    BlockDone,
    block_tasks,
    check_place,
    first_unreadable,
    level_tasks,
    plan_predictor,
)

__all__ = ["Progress", "plan_image", "segment_image"]


def segment_image(
    path: str | Path,
    model: UNet | str | Path,
    *,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Segmentation:
    """Segment a stored slide and write the result as a label of the same slide.

    What is written is what the network would give if the whole slide fitted in
    memory. Until the run is complete no reader sees a label: metadata is the
    last thing written.

    Parameters
    ----------
    path : path
        OME-Zarr image, local.
    model : UNet, path or name
        The network.
    progress : callable, optional
        Called with `Progress` while the run goes on.
    **options
        The fields of `bigunet.settings.Settings`, such as ``name=`` or ``region=``.

    Returns
    -------
    Segmentation

    Raises
    ------
    BigunetError
        Refused before anything was written.
    RunError
        Began and could not finish; names what failed, and nothing is listed.
    """
    tell = progress or _nobody
    network = _as_model(model)
    settings = Settings(**options)
    _finish_interrupted(path, network, settings)
    left = find_unfinished(path, network, settings)
    began = time.monotonic()
    with torch_threads_kept(), ExitStack() as stack:
        settled = settings if left is None else settle(settings, left)
        plan, executor = _plan_and_open(path, network, settled, stack)
        if left is not None:
            plan = settle_plan(plan, settings, left)
        plan = _with_limits(plan, network, executor)
        for line in (plan.headline(), *plan.notes):
            tell(Progress(stage="plan", message=line))
        stages = Stages(executor, tell)
        plan = _with_mask(plan, stages)
        kept = check_unfinished(plan, network, settings, left, stages)
        objects = _run(plan, network, left if kept else None, kept, stages)
    diameter = None if objects is None else median_diameter(objects)
    _warn_of_sizes(network, diameter, tell)
    return Segmentation(
        plan=plan,
        outputs={output.kind: output.final for output in plan.outputs},
        blocks={
            "total": plan.blocks,
            "computed": plan.blocks - len(kept) - len(plan.skipped),
            "resumed": len(kept),
            "skipped": len(plan.skipped),
            "failed": 0,
        },
        seconds=time.monotonic() - began,
        objects=None if objects is None else objects.count,
        median_diameter=diameter,
    )


def plan_image(
    path: str | Path, model: UNet | str | Path, *, timed: bool = False, **options: Any
) -> Plan:
    """Return what `segment_image` would do; nothing is written.

    Parameters
    ----------
    path, model, **options
        As for `segment_image`.
    timed : bool
        Measure the intensities, and project the time from two tiles of noise.
    """
    network, settings = _as_model(model), Settings(**options)
    with torch_threads_kept(), ExitStack() as stack:
        plan = plan_run(path, network, settings, _cluster(settings, stack))
        if not timed or not is_local(plan.scheduler):
            return plan
        if plan.scheduler in EMBEDDED:
            executor = stack.enter_context(open_executor(plan.scheduler, plan.workers))
            plan = _with_limits(plan, network, executor)
        predictor = plan_predictor(plan, network)
        return replace(plan, seconds=plan.tiles * time_tile(predictor, plan.tiling))


def _plan_and_open(
    path: str | Path, network: UNet, settings: Settings, stack: ExitStack
) -> tuple[Plan, Executor]:
    """Plan and open what runs tasks: here what cannot work is refused before anything starts; a
    cluster is asked first what it has."""
    cluster = _cluster(settings, stack)
    plan = plan_run(path, network, settings, cluster)
    if cluster is not None:
        if plan.runtime == "openvino":
            cluster.check_versions({"openvino": version("openvino")})
        return plan, cluster
    gpus = visible_gpus() if plan.device.startswith("cuda") else 0
    count = plan.processes if plan.scheduler == "processes" else plan.workers
    return plan, stack.enter_context(open_executor(plan.scheduler, count, gpus=gpus))


def _cluster(settings: Settings, stack: ExitStack) -> Executor | None:
    """Open a cluster that is not on this machine only; its workers have to be like this process."""
    where = check_scheduler(settings.scheduler)
    if is_local(where):
        return None
    executor = stack.enter_context(open_executor(where, settings.workers))
    executor.check_versions({name: version(name) for name in ("bigunet", "torch")})
    return executor


def _with_mask(plan: Plan, stages: Stages) -> Plan:
    """Find out which pixels are inside, and so which blocks are needed."""
    if plan.mask is None:
        return plan
    mask = plan.mask
    found = stages.run_here("mask", lambda: find_mask(mask))
    plan = plan.masked(found)
    left = plan.blocks - len(plan.skipped)
    message = f"{found.text}; {left} of {plan.blocks} blocks are needed"
    stages.tell(Progress(stage="mask", message=message))
    return plan


def _run(
    plan: Plan,
    network: UNet,
    left: Record | None,
    kept: Mapping[int, BlockChecked],
    stages: Stages,
) -> Objects | None:
    """Write blocks, then objects, then lower levels, then metadata."""
    objects = cut = None
    if plan.found is not None:
        store_mask(plan.found)
    with _told_how_to_go_on():
        records = _write_blocks(plan, network, left, kept, stages)
        if plan.staging is not None:
            objects = merge_staged(plan, plan.staging, records, stages)
            plan = plan.counted(objects.count)
            cut = write_objects(plan, objects, stages)
        _write_levels(plan, stages)
        stages.tell(Progress(stage="commit"))
        _commit(plan, network, objects, cut)
    return objects


def _write_blocks(
    plan: Plan,
    network: UNet,
    left: Record | None,
    kept: Mapping[int, BlockChecked],
    stages: Stages,
) -> dict[int, BlockRecord]:
    """Run the network on all blocks that are missing; write what is final, stage what becomes
    objects, record each; return what is known of the objects of all blocks."""
    for output in plan.outputs:
        assert_disjoint_writes(output, *plan.tiling.spans(plan.region))
    records = {n: block.record for n, block in kept.items() if block.record is not None}
    with _open_ledger(plan, network, left, kept) as ledger:
        stages.executor.check(check_place, plan.planes[0], plan.outputs)

        def take(block: BlockDone) -> None:
            ledger.done(block.done)
            if block.record is not None:
                records[block.done.number] = block.record

        stages.run(
            "segment",
            block_tasks(plan, network, stages.executor, kept),
            plan.blocks - len(kept) - len(plan.skipped),
            take,
            on_failure=lambda failure: ledger.failed(failure.where, failure.cause),
            place=(lambda: first_unreadable(plan)) if plan.overlap == "map_overlap" else str,
            device=plan.device,
        )
    return records


def _open_ledger(
    plan: Plan, network: UNet, left: Record | None, kept: Mapping[int, BlockChecked]
) -> Ledger:
    """Take the places over, made anew or as they were left; the first has the blocks on record."""
    if left is None:
        for destination in plan.destinations:
            destination.create()
    record = Record(
        family=uuid.uuid4().hex if left is None else left.family,
        blocks=plan.blocks,
        settings=run_settings(plan, network),
        skipped=plan.skipped,
    )
    for destination in plan.destinations[1:]:
        destination.begin(record).close()
    done = {} if left is None else {number: left.done[number] for number in kept}
    return plan.destinations[0].begin(replace(record, done=done))


def _write_levels(plan: Plan, stages: Stages) -> None:
    """Make the lower levels of all outputs, each from the one before."""
    for output in plan.outputs:
        for level in range(1, len(output.shapes)):
            stages.run("pyramid", level_tasks(output, level), pyramid_count(output, level))


def _commit(
    plan: Plan,
    network: UNet,
    objects: Objects | None,
    cut: npt.NDArray[np.bool_] | None,
) -> None:
    """Write the metadata that make labels of it all."""
    card, classes = network.card, network.classes
    commit_all(
        plan.destinations,
        provenance=provenance(plan, network),
        class_names=card.class_names or default_class_names(classes),
        class_colors=card.class_colors or default_colors(classes),
        objects=objects_record(plan, objects),
        object_classes=None if objects is None else objects.classes,
        object_cut=cut,
    )


@contextmanager
def _told_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise RunError(
            f"{error}; the label is not listed, what is done is kept and what is missing is told by "
            f"bigunet status: mend the cause, and the same command goes on"
        ) from error


def _warn_of_sizes(network: UNet, found: float | None, tell: Listener) -> None:
    """Warn where the objects are none of the sizes that the model was trained on."""
    known = network.card.diameters
    if known is None or found is None or known[0] <= found <= known[1]:
        return
    message = (
        f"warning: the objects' median diameter of {found:.1f} px lies outside the "
        f"{known[0]:.1f} to {known[1]:.1f} px that model '{network.card.name}' was trained on; "
        f"try another --level or --pixel-size"
    )
    tell(Progress(stage="commit", message=message))


def _with_limits(plan: Plan, network: UNet, executor: Executor) -> Plan:
    """Measure the intensities that the model's rule asks for, once for all planes."""
    rule = network.card.intensity
    if plan.limits is not None or rule is None:
        return plan
    first = plan.planes[0]
    stack = da.zeros((len(plan.planes), *first.shape), dtype=first.dtype)
    limits = measure_limits(stack, rule, read=_StackReader(plan.planes), chunks=first.chunks)
    try:
        return replace(plan, limits=executor.compute(limits))
    except BigunetError as error:
        raise RunError(f"{error}; nothing was written") from error


@dataclass(frozen=True)
class _StackReader:
    """Reads windows of (plane, C, Y, X) straight from the store."""

    planes: tuple[Plane, ...]

    def __call__(self, index: tuple[Any, ...]) -> np.ndarray:
        plane, _, y, x = index
        window: np.ndarray = self.planes[plane].read(y, x)
        return window


def _finish_interrupted(path: str | Path, network: UNet, settings: Settings) -> None:
    """Finish what a killed run had completed, of all labels that this one is going to write."""
    image, name = open_image(path), settings.name or network.card.name
    names = label_names(name, choose_save(settings.save, network)).values()
    for label in names if settings.output is None else [name]:
        finish_interrupted(image, name=label, output=settings.output)


def _as_model(model: UNet | str | Path) -> UNet:
    return model if isinstance(model, UNet) else load_model(model)


def _nobody(_: Progress) -> None:
    pass
