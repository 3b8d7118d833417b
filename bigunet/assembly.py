"""From classes of blocks to objects of the slide: the tasks around the merges.

A task looks at one block, and at what is staged of its neighbours as far as the rules
reach; the merges between (see `bigunet.instances.rules`) need the blocks' records only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.cluster import Executor, Task, task
from bigunet.geometry import Block
from bigunet.images.destination import OBJECT_CLASSES, create_levels
from bigunet.images.output import Output, write_window
from bigunet.instances.block import BlockRecord, Runs, label_block
from bigunet.instances.collect import Objects, merge_objects, merge_refined
from bigunet.instances.neighbours import plane_structure
from bigunet.instances.refine import RefinedRecord, empty_refined, refine_block
from bigunet.instances.split import split_classes
from bigunet.masking.blocks import cut_ids
from bigunet.plan import Plan, block_text
from bigunet.stages import Stages
from bigunet.staging import Stage, Staging

__all__ = [
    "median_diameter",
    "merge_staged",
    "objects_record",
    "read_staged",
    "stage_classes",
    "write_objects",
]

Array: TypeAlias = npt.NDArray[Any]
Offsets: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """A block of final ids that is on disk."""

    pixels: int
    cut: Array | None
    """Objects that the mask cuts, where there is one."""


def empty_record(whole: Sequence[int]) -> BlockRecord:
    """Return the record of a block without objects, as `stage_classes` gives it."""
    nothing = np.zeros((1, 1, 1), np.uint8)
    return label_block(
        nothing, plane_structure(3), origin=(0, 0, 0), whole=whole, by_class=True, sizes=True
    )[1]


def stage_classes(
    staging: Staging, at: int, block: Block, classes: npt.NDArray[np.uint8]
) -> tuple[BlockRecord | None, str]:
    """Label a block of plane ``at`` and stage its labels; to split, stage its classes only.

    Returns
    -------
    record : BlockRecord or None
        For the merge; None where `split_tasks` are to follow.
    digest : str
        Of what is staged.
    """
    if staging.rules.split is None:
        return _stage_labels(staging, at, block, classes)
    return None, staging.write("classes", at, block, Runs.of(classes[None]))


def read_staged(staging: Staging, at: int, block: Block) -> tuple[BlockRecord | None, str]:
    """Return what `stage_classes` returned when the block was staged.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    stage: Stage = "labels" if staging.rules.split is None else "classes"
    return staging.read_record(stage, at, block)


def split_tasks(plan: Plan, executor: Executor) -> Iterator[Task]:
    """Yield the tasks that split objects in each block; each gives (number, BlockRecord)."""
    shared = executor.share(plan.staging)
    for _, at, plane, block in plan.work():
        yield task(_split, shared, at, block, where=block_text(plane, block))


def refine_tasks(plan: Plan, objects: Objects, executor: Executor) -> Iterator[Task]:
    """Yield the tasks that apply the rules to merged ids; each gives (number, RefinedRecord)."""
    shared = executor.share((plan.staging, objects.merged.offsets))
    for _, at, plane, block in plan.work():
        yield task(_refine, shared, at, block, where=block_text(plane, block))


def relabel_tasks(
    plan: Plan, output: Output, objects: Objects, executor: Executor
) -> Iterator[Task]:
    """Yield the tasks that write the ids of staged labels; each gives `Relabelled`."""
    stage = "refined" if plan.rules and plan.rules.refine else "labels"
    shared = executor.share((plan.staging, output, stage))
    offsets = objects.merged.offsets
    for number, at, plane, block in plan.work():
        first, stop = int(offsets[number]), int(offsets[number + 1])
        where = block_text(plane, block)
        yield task(_relabel, shared, at, plane.index, block, first, stop - first, where=where)


def median_diameter(objects: Objects) -> float | None:
    """Return the median of the diameters of circles as large as the objects, in pixels."""
    if objects.count == 0:
        return None
    return float(np.median(np.sqrt(objects.area[1:] * (4 / np.pi))))


def merge_staged(
    plan: Plan, staging: Staging, records: dict[int, BlockRecord], stages: Stages
) -> Objects:
    """Find the objects of staged blocks, and stage the id of each label."""
    rules, whole, executor = staging.rules, staging.whole, stages.executor
    needed = plan.blocks - len(plan.skipped)
    if rules.split is not None:
        records = dict(stages.gather("split", split_tasks(plan, executor), needed))
    records |= dict.fromkeys(plan.skipped, empty_record(whole))
    objects = stages.run_here("merge", lambda: merge_objects(_in_order(records), rules, whole))
    staging.write_ids("labels", objects.merged)
    if not rules.refine:
        return objects
    tasks = refine_tasks(plan, objects, executor)
    refined = dict(stages.gather("rules", tasks, needed))
    refined |= dict.fromkeys(plan.skipped, empty_refined(rules, whole))
    final = stages.run_here(
        "merge", lambda: merge_refined(_in_order(refined), objects, rules, whole)
    )
    staging.write_ids("refined", final.merged)
    return final


def write_objects(plan: Plan, objects: Objects, stages: Stages) -> npt.NDArray[np.bool_] | None:
    """Write the ids of all blocks into arrays that can count them.

    Returns
    -------
    (N + 1,) bool array or None
        Which objects the mask cuts, if there is one.
    """
    cut: npt.NDArray[np.bool_] | None = None
    if plan.found is not None:
        cut = np.zeros(objects.count + 1, dtype=bool)

    def take(block: Relabelled) -> None:
        if cut is not None and block.cut is not None:
            cut[block.cut] = True

    for output in plan.outputs:
        if output.kind == "objects":
            create_levels(output)
            tasks = relabel_tasks(plan, output, objects, stages.executor)
            stages.run("relabel", tasks, plan.blocks - len(plan.skipped), take)
    return cut


def objects_record(plan: Plan, objects: Objects | None) -> dict[str, Any] | None:
    """Return what made the objects of the classes; lengths and areas in pixels."""
    if plan.rules is None or objects is None:
        return None
    return {
        "count": objects.count,
        "connectivity": 4,
        **asdict(plan.rules),
        "classes": OBJECT_CLASSES,
    }


def _split(staging: Staging, at: int, block: Block) -> tuple[int, BlockRecord]:
    classes, (y, x) = staging.classes(at, block)
    values = split_classes(
        classes,
        origin=staging.origin(at, y, x),
        whole=staging.whole,
        max_diameter=staging.rules.halo,
    )
    inside = block.y.shift(-y.start).slice, block.x.shift(-x.start).slice
    return staging.number(at, block), _stage_labels(staging, at, block, values[0][inside])[0]


def _stage_labels(
    staging: Staging, at: int, block: Block, values: Array
) -> tuple[BlockRecord, str]:
    """Label a block by its values and stage the labels."""
    runs, record = label_block(
        values[None],
        plane_structure(3),
        origin=staging.origin(at, block.y, block.x),
        whole=staging.whole,
        by_class=True,
        sizes=True,
    )
    return record, staging.write("labels", at, block, runs, record)


def _refine(shared: tuple[Staging, Offsets], at: int, block: Block) -> tuple[int, RefinedRecord]:
    staging, offsets = shared
    runs, record = refine_block(
        staging.ids(at, block, offsets),
        staging.rules,
        origin=staging.origin(at, block.y, block.x),
        whole=staging.whole,
        inside=staging.inside(at, block),
    )
    staging.write("refined", at, block, runs)
    return staging.number(at, block), record


def _relabel(
    shared: tuple[Staging, Output, Stage],
    at: int,
    index: tuple[int, ...],
    block: Block,
    first: int,
    count: int,
) -> Relabelled:
    staging, output, stage = shared
    ids = staging.read(stage, at, block).expand(staging.read_ids(stage, first, count))
    write_window(output, 0, index, block.y.slice, block.x.slice, ids[0])
    cut = None if staging.mask is None else cut_ids(ids[0], staging.mask, at, block)
    return Relabelled(pixels=block.pixels, cut=cut)


def _in_order(records: Mapping[int, Any]) -> list[Any]:
    return [records[number] for number in sorted(records)]
