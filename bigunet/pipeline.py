"""The route of ``bigunet segment``: the one file that knows every stage.

open → plan → measure intensities → create the output, unlisted → blocks (read,
predict, write or stage) → objects (merge, relabel) → pyramid → metadata last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

from bigunet import __version__
from bigunet.assembly import (
    median_diameter,
    refine_tasks,
    relabel_tasks,
    split_tasks,
)
from bigunet.cluster import EMBEDDED, Executor, open_executor
from bigunet.errors import BigunetError, RunError
from bigunet.images.destination import OBJECT_CLASSES, commit_all, create_levels
from bigunet.images.intensity import measure_limits
from bigunet.images.labels import finish_interrupted, label_names
from bigunet.images.open import Plane, open_image
from bigunet.images.output import assert_disjoint_writes
from bigunet.inference import time_tile
from bigunet.instances.collect import Objects, merge_objects, merge_refined
from bigunet.models.card import default_class_names, default_colors
from bigunet.models.checkpoint import load_model, model_digest
from bigunet.models.runtime import torch_threads_kept
from bigunet.models.unet import UNet
from bigunet.plan import Plan
from bigunet.planning import Settings, choose_save, plan_run
from bigunet.stages import Listener, Progress, Stages
from bigunet.staging import Staging
from bigunet.work import BlockDone, block_tasks, first_unreadable, level_tasks, plan_predictor

__all__ = ["Progress", "Segmentation", "plan_image", "segment_image"]


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What a run has written."""

    plan: Plan
    outputs: dict[str, Path]
    """Group of each kind that was saved."""
    blocks: dict[str, int]
    """``total``, ``computed`` and ``failed``."""
    seconds: float
    objects: int | None = None
    """How many there are, where they were saved."""
    median_diameter: float | None = None
    """Of circles as large as the objects, in pixels; None where there are none."""

    def lines(self) -> list[str]:
        """Return where the result is and how to look at it."""
        megapixels = self.plan.pixels / 1e6
        speed = megapixels / max(self.seconds, 1e-9)
        return [
            f"{megapixels:.1f} Mpx in {self.seconds:.1f} s ({speed:.2f} Mpx/s)",
            *self._counted(),
            *(f"{kind}: {path}" for kind, path in self.outputs.items()),
            *_how_to_look(self.plan),
        ]

    def _counted(self) -> list[str]:
        if self.objects is None:
            return []
        size = self.median_diameter
        return [f"{self.objects} objects" + (f", median diameter {size:.1f} px" if size else "")]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
            "objects": self.objects,
            "median_diameter": self.median_diameter,
            "blocks": self.blocks,
            "seconds": round(self.seconds, 3),
            "plan": self.plan.as_dict(),
        }


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
        The fields of `bigunet.planning.Settings`, such as ``name=`` or ``region=``.

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
    plan = plan_run(path, network, settings)
    began = time.monotonic()
    with torch_threads_kept(), open_executor(plan.scheduler, plan.workers) as executor:
        if executor.threads is not None:
            plan = replace(plan, threads=executor.threads, workers=executor.workers)
        plan = _with_limits(plan, network, executor)
        for line in (plan.headline(), *plan.notes):
            tell(Progress(stage="plan", message=line))
        objects = _run(plan, network, Stages(executor, tell))
    diameter = None if objects is None else median_diameter(objects)
    _warn_of_sizes(network, diameter, tell)
    return Segmentation(
        plan=plan,
        outputs={output.kind: output.final for output in plan.outputs},
        blocks={"total": plan.blocks, "computed": plan.blocks, "failed": 0},
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
    network = _as_model(model)
    plan = plan_run(path, network, Settings(**options))
    if not timed:
        return plan
    with torch_threads_kept():
        if plan.scheduler in EMBEDDED:
            with open_executor(plan.scheduler, plan.workers) as executor:
                plan = _with_limits(plan, network, executor)
        return replace(
            plan, seconds=plan.tiles * time_tile(plan_predictor(plan, network), plan.tiling)
        )


def _run(plan: Plan, network: UNet, stages: Stages) -> Objects | None:
    """Write blocks, then objects, then lower levels, then metadata."""
    objects = None
    with _told_that_nothing_is_listed():
        done = _write_blocks(plan, network, stages)
        if plan.staging is not None:
            objects = _merge_objects(plan, plan.staging, done, stages)
            plan = plan.counted(objects.count)
            _write_objects(plan, objects, stages)
        _write_levels(plan, stages)
        stages.tell(Progress(stage="commit"))
        _commit(plan, network, objects)
    return objects


def _write_blocks(plan: Plan, network: UNet, stages: Stages) -> list[BlockDone]:
    """Run the network on all blocks; write what is final, stage what becomes objects."""
    for output in plan.outputs:
        blocks = plan.tiling.blocks(plan.region)
        assert_disjoint_writes(output, ((b.y.slice, b.x.slice) for b in blocks))
    for destination in plan.destinations:
        destination.create()
    tasks = block_tasks(plan, network, stages.executor)
    return stages.run("segment", tasks, plan.blocks, place=lambda: first_unreadable(plan))


def _merge_objects(
    plan: Plan, staging: Staging, done: Sequence[BlockDone], stages: Stages
) -> Objects:
    """Find the objects of staged blocks, and stage the id of each label."""
    rules, whole, executor = staging.rules, staging.whole, stages.executor
    records = {one.number: one.record for one in done}
    if rules.split is not None:
        records = dict(stages.run("split", split_tasks(plan, executor), plan.blocks))
    objects = stages.run_here("merge", lambda: merge_objects(_in_order(records), rules, whole))
    staging.write_ids("labels", objects.merged)
    if not rules.refine:
        return objects
    tasks = refine_tasks(plan, objects, executor)
    refined = dict(stages.run("rules", tasks, plan.blocks))
    final = stages.run_here(
        "merge", lambda: merge_refined(_in_order(refined), objects, rules, whole)
    )
    staging.write_ids("refined", final.merged)
    return final


def _write_objects(plan: Plan, objects: Objects, stages: Stages) -> None:
    """Write the ids of all blocks into arrays that can count them."""
    for output in plan.outputs:
        if output.kind == "objects":
            create_levels(output)
            stages.run(
                "relabel", relabel_tasks(plan, output, objects, stages.executor), plan.blocks
            )


def _write_levels(plan: Plan, stages: Stages) -> None:
    """Make the lower levels of all outputs, each from the one before."""
    for output in plan.outputs:
        for level in range(1, len(output.shapes)):
            tasks = list(level_tasks(output, level))
            stages.run("pyramid", tasks, len(tasks))


def _commit(plan: Plan, network: UNet, objects: Objects | None) -> None:
    """Write the metadata that make labels of it all."""
    card, classes = network.card, network.classes
    commit_all(
        plan.destinations,
        provenance=_provenance(plan, network),
        class_names=card.class_names or default_class_names(classes),
        class_colors=card.class_colors or default_colors(classes),
        objects=_objects_record(plan, objects),
        object_classes=None if objects is None else objects.classes,
    )


@contextmanager
def _told_that_nothing_is_listed() -> Iterator[None]:
    try:
        yield
    except RunError as error:
        raise RunError(
            f"{error}; the label is not listed; mend the cause and run the same command again"
        ) from error


def _in_order(records: Mapping[int, Any]) -> list[Any]:
    return [records[number] for number in sorted(records)]


def _objects_record(plan: Plan, objects: Objects | None) -> dict[str, Any] | None:
    """Return what made the objects of the classes; lengths and areas in pixels."""
    if plan.rules is None or objects is None:
        return None
    return {
        "count": objects.count,
        "connectivity": 4,
        **asdict(plan.rules),
        "classes": OBJECT_CLASSES,
    }


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
    limits = measure_limits(stack, rule, read=_StackReader(plan.planes))
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


def _provenance(plan: Plan, network: UNet) -> dict[str, Any]:
    """Return what made the label: enough to make it again and to verify it."""
    return {
        "version": __version__,
        "model": {"name": network.card.name, "digest": model_digest(network)},
        "level": plan.level,
        "channels": list(plan.channels),
        "intensity": {
            "rule": plan.intensity,
            "limits": plan.limits and [list(p) for p in plan.limits],
        },
        "region": plan.region and [[span.start, span.stop] for span in plan.region],
        "tile": list(plan.tiling.tile),
        "block": list(plan.tiling.block),
        "device": plan.device.split(":")[0],
        "precision": plan.precision,
        "augment": plan.augment,
        "threads": plan.threads,
    }


def _how_to_look(plan: Plan) -> list[str]:
    first = plan.outputs[0]
    if plan.destinations[0].place.listing is not None:
        image, name = first.final.parent.parent, first.final.name
        return [f"look at it: bigunet preview {image} --labels {name} {name}.png"]
    return [f"look at it: napari --plugin napari-ome-zarr {plan.destinations[0].path}"]


def _nobody(_: Progress) -> None:
    pass
