"""The tasks of a run: what a worker does with one block, or one window of a lower level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from dask.delayed import Delayed

from bigunet.assembly import stage_classes
from bigunet.cluster import Executor, task
from bigunet.errors import RunError
from bigunet.geometry import Block, Tiling
from bigunet.images.intensity import Limits
from bigunet.images.open import Plane
from bigunet.images.output import Output, write_window
from bigunet.images.pyramid import pyramid_tasks, reduce_window
from bigunet.inference import overlapped, predict_block
from bigunet.instances.block import BlockRecord
from bigunet.models.runtime import Predictor
from bigunet.models.unet import UNet
from bigunet.plan import Plan, block_text
from bigunet.staging import Staging

__all__ = ["BlockDone", "block_tasks", "first_unreadable", "level_tasks", "plan_predictor"]


@dataclass(frozen=True, kw_only=True)
class BlockDone:
    """What is known of a block once it is predicted and written."""

    number: int
    """Its place among all blocks of all planes."""
    pixels: int
    record: BlockRecord | None
    """Of its objects, where they are labelled at once."""


def block_tasks(plan: Plan, network: UNet, executor: Executor) -> Iterator[Delayed]:
    """Yield the tasks of all blocks; each gives a `BlockDone`."""
    work = _BlockWork(
        tiling=plan.tiling,
        predictor=plan_predictor(plan, network),
        limits=plan.limits,
        kinds=plan.kinds,
        outputs=plan.outputs,
        staging=plan.staging,
    )
    shared = executor.share(work)
    if plan.overlap == "direct":
        for number, (at, plane, block) in enumerate(plan.work()):
            yield task(_work, shared, number, at, plane, block, where=block_text(plane, block))
        return
    for (_, plane), blocks in groupby(enumerate(plan.work()), key=lambda one: one[1][:2]):
        lazy = overlapped(
            plane.lazy(),
            tiling=plan.tiling,
            predictor=work.predictor,
            limits=plan.limits,
            kinds=plan.kinds,
        )
        layers = lazy.to_delayed()[0]
        for number, (at, _, block) in blocks:
            where, found = block_text(plane, block), layers[block.index]
            yield task(_write, shared, found, number, at, plane, block, where=where)


def level_tasks(output: Output, level: int) -> Iterator[Delayed]:
    """Yield the tasks that make a level from the one before."""
    for index, y, x in pyramid_tasks(output, level):
        where = f"level {level}, {_window_text(index, y, x)}"
        yield task(reduce_window, output, level, index, y, x, where=where)


def first_unreadable(plan: Plan) -> str:
    """Say which block met a chunk that cannot be read: tasks of map_overlap know chunks only."""
    for _, plane, block in plan.work():
        y, x = plan.tiling.source(block)
        try:
            plane.read(y.slice, x.slice)
        except RunError:
            return f" ({block_text(plane, block)})"
    return ""


def plan_predictor(plan: Plan, network: UNet) -> Predictor:
    """Make a network ready as the plan says."""
    return Predictor.of(
        network,
        device=plan.device,
        precision=plan.precision,
        threads=plan.threads,
        augment=plan.augment,
    )


@dataclass(frozen=True, kw_only=True)
class _BlockWork:
    """Everything that all blocks share; travels to each worker once."""

    tiling: Tiling
    predictor: Predictor
    limits: Limits | None
    kinds: tuple[str, ...]
    """What the network has to give."""
    outputs: tuple[Output, ...]
    staging: Staging | None

    def __call__(self, number: int, at: int, plane: Plane, block: Block) -> BlockDone:
        """Read, predict and write one block."""
        y, x = self.tiling.source(block)
        results = predict_block(
            plane.read(y.slice, x.slice),
            (y.start, x.start),
            block,
            tiling=self.tiling,
            predictor=self.predictor,
            limits=self.limits,
            kinds=self.kinds,
        )
        return self._finish(results, number, at, plane, block)

    def write_layers(
        self, layers: np.ndarray, number: int, at: int, plane: Plane, block: Block
    ) -> BlockDone:
        """Write what map_overlap gave for a whole block, cut to what is asked for."""
        whole = self.tiling.block_at(block.index)
        rows, columns = block.y.shift(-whole.y.start), block.x.shift(-whole.x.start)
        inside = layers[:, rows.slice, columns.slice]
        # One layer of classes comes first, where they are asked for.
        after = 1 if "classes" in self.kinds else 0
        results = {"classes": inside[0], "probabilities": inside[after:]}
        return self._finish(results, number, at, plane, block)

    def _finish(
        self, results: Mapping[str, np.ndarray], number: int, at: int, plane: Plane, block: Block
    ) -> BlockDone:
        """Write what is final of a block, and stage its objects."""
        record = None
        for output in self.outputs:
            if output.kind != "objects":
                data = results[output.kind]
                write_window(output, 0, plane.index, block.y.slice, block.x.slice, data)
        if self.staging is not None:
            record = stage_classes(self.staging, at, block, results["classes"])
        return BlockDone(number=number, pixels=block.pixels, record=record)


def _work(shared: _BlockWork, number: int, at: int, plane: Plane, block: Block) -> BlockDone:
    return shared(number, at, plane, block)


def _write(
    shared: _BlockWork, layers: np.ndarray, number: int, at: int, plane: Plane, block: Block
) -> BlockDone:
    return shared.write_layers(layers, number, at, plane, block)


def _window_text(index: Sequence[int], y: slice, x: slice) -> str:
    plane = f", plane {tuple(index)}" if index else ""
    return f"rows {y.start}:{y.stop}, columns {x.start}:{x.stop}{plane}"
