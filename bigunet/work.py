"""The tasks of a run: what a worker does with one block, or one window of a lower level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from dask.delayed import Delayed

from bigunet.cluster import Executor, task
from bigunet.errors import RunError
from bigunet.geometry import Block, Tiling
from bigunet.images.intensity import Limits
from bigunet.images.open import Plane
from bigunet.images.output import Output, write_window
from bigunet.images.pyramid import pyramid_tasks, reduce_window
from bigunet.inference import overlapped, predict_block
from bigunet.models.runtime import Predictor
from bigunet.models.unet import UNet
from bigunet.plan import Plan

__all__ = ["block_tasks", "first_unreadable", "level_tasks", "plan_predictor"]


def block_tasks(plan: Plan, network: UNet, executor: Executor) -> Iterator[Delayed]:
    """Yield the tasks of all blocks; each gives its pixels."""
    work = _BlockWork(
        tiling=plan.tiling,
        predictor=plan_predictor(plan, network),
        limits=plan.limits,
        outputs=plan.destination.outputs,
    )
    shared = executor.share(work)
    if plan.overlap == "direct":
        for plane, block in plan.work():
            yield task(_work, shared, plane, block, where=_block_text(plane, block))
        return
    for plane, pairs in groupby(plan.work(), key=lambda pair: pair[0]):
        lazy = overlapped(
            plane.lazy(),
            tiling=plan.tiling,
            predictor=work.predictor,
            limits=plan.limits,
            kinds=tuple(output.kind for output in work.outputs),
        )
        layers = lazy.to_delayed()[0]
        for _, block in pairs:
            where = _block_text(plane, block)
            yield task(_write, shared, layers[block.index], plane, block, where=where)


def level_tasks(output: Output, level: int) -> Iterator[Delayed]:
    """Yield the tasks that make a level from the one before."""
    for index, y, x in pyramid_tasks(output, level):
        where = f"level {level}, {_window_text(index, y, x)}"
        yield task(reduce_window, output, level, index, y, x, where=where)


def first_unreadable(plan: Plan) -> str:
    """Say which block met a chunk that cannot be read: tasks of map_overlap know chunks only."""
    for plane, block in plan.work():
        y, x = plan.tiling.source(block)
        try:
            plane.read(y.slice, x.slice)
        except RunError:
            return f" ({_block_text(plane, block)})"
    return ""


def plan_predictor(plan: Plan, network: UNet) -> Predictor:
    """Make a network ready as the plan says."""
    return Predictor.of(network, device=plan.device, precision=plan.precision, threads=plan.threads)


@dataclass(frozen=True, kw_only=True)
class _BlockWork:
    """Everything that all blocks share; travels to each worker once."""

    tiling: Tiling
    predictor: Predictor
    limits: Limits | None
    outputs: tuple[Output, ...]

    def __call__(self, plane: Plane, block: Block) -> int:
        """Read, predict and write one block; returns its pixels."""
        y, x = self.tiling.source(block)
        results = predict_block(
            plane.read(y.slice, x.slice),
            (y.start, x.start),
            block,
            tiling=self.tiling,
            predictor=self.predictor,
            limits=self.limits,
            kinds=tuple(output.kind for output in self.outputs),
        )
        for output in self.outputs:
            data = results[output.kind]
            write_window(output, 0, plane.index, block.y.slice, block.x.slice, data)
        return block.pixels

    def write_layers(self, layers: np.ndarray, plane: Plane, block: Block) -> int:
        """Write what map_overlap gave for a whole block, cut to what is asked for."""
        whole = self.tiling.block_at(block.index)
        rows, columns = block.y.shift(-whole.y.start), block.x.shift(-whole.x.start)
        first = 0
        for output in self.outputs:
            count = output.channels
            data = layers[first : first + count, rows.slice, columns.slice]
            data = data[0] if output.kind == "classes" else data
            write_window(output, 0, plane.index, block.y.slice, block.x.slice, data)
            first += count
        return block.pixels


def _work(shared: _BlockWork, plane: Plane, block: Block) -> int:
    return shared(plane, block)


def _write(shared: _BlockWork, layers: np.ndarray, plane: Plane, block: Block) -> int:
    return shared.write_layers(layers, plane, block)


def _block_text(plane: Plane, block: Block) -> str:
    return f"block {_window_text(plane.index, block.y.slice, block.x.slice)}"


def _window_text(index: Sequence[int], y: slice, x: slice) -> str:
    plane = f", plane {tuple(index)}" if index else ""
    return f"rows {y.start}:{y.stop}, columns {x.start}:{x.stop}{plane}"
