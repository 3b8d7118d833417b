"""The tasks of a run: what a worker does with one block, or one window of a lower level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, TypeAlias

import numpy as np

from bigunet.assembly import read_staged, stage_classes
from bigunet.cluster import Executor, Steps, Task, task
from bigunet.errors import RunError
from bigunet.geometry import Block, Tiling
from bigunet.images.decoded import DecodedChunks
from bigunet.images.intensity import Limits
from bigunet.images.open import Plane
from bigunet.images.output import Output, check_writable, read_window, write_window
from bigunet.images.pyramid import pyramid_tasks, reduce_window
from bigunet.inference import overlapped
from bigunet.instances.block import BlockRecord
from bigunet.ledger import Done, digest
from bigunet.masking.blocks import apply_mask
from bigunet.masking.mask import Mask
from bigunet.models.predictor import Predictor
from bigunet.models.unet import UNet
from bigunet.plan import Plan, block_text
from bigunet.staging import Staging
from bigunet.tiles import predict_block

__all__ = [
    "BlockChecked",
    "BlockDone",
    "block_tasks",
    "check_place",
    "check_tasks",
    "first_unreadable",
    "level_tasks",
    "plan_predictor",
]


@dataclass(frozen=True, kw_only=True)
class BlockDone:
    """What is known of a block once it is predicted and on disk."""

    done: Done
    pixels: int
    record: BlockRecord | None
    """Of its objects, where they are labelled at once."""


@dataclass(frozen=True, kw_only=True)
class BlockChecked:
    """What is found of a block that is on record."""

    number: int
    pixels: int
    state: Literal["kept", "changed", "damaged"]
    """As recorded; of other pixels now; not as it was written."""
    where: str
    record: BlockRecord | None = None


def block_tasks(
    plan: Plan, network: UNet, executor: Executor, kept: Mapping[int, object]
) -> Iterator[Task]:
    """Yield the tasks of all blocks but those that are kept; each gives a `BlockDone`."""
    work = _BlockWork(
        tiling=plan.tiling,
        predictor=plan_predictor(plan, network),
        limits=plan.limits,
        results=_Results.of(plan),
    )
    shared = executor.share(work)
    missing = (one for one in plan.work() if one[0] not in kept)
    if plan.overlap == "direct":
        for number, at, plane, block in missing:
            yield task(_STEPS, shared, number, at, plane, block, where=block_text(plane, block))
        return
    for (_, plane), blocks in groupby(missing, key=lambda one: one[1:3]):
        source = plane.lazy().rechunk((plane.shape[0], *plan.tiling.chunks))
        lazy = overlapped(
            source,
            tiling=plan.tiling,
            predictor=work.predictor,
            limits=plan.limits,
            kinds=plan.kinds,
        )
        read, layers = source.to_delayed()[0], lazy.to_delayed()[0]
        for number, at, _, block in blocks:
            where, pixels, found = block_text(plane, block), read[block.index], layers[block.index]
            yield task(_write_layers, shared, pixels, found, number, at, plane, block, where=where)


def check_tasks(plan: Plan, done: Mapping[int, Done], executor: Executor) -> Iterator[Task]:
    """Yield the tasks that look at blocks on record; each gives a `BlockChecked`."""
    shared = executor.share((plan.tiling, plan.overlap, _Results.of(plan)))
    for number, at, plane, block in plan.work():
        if number in done:
            where = block_text(plane, block)
            yield task(_check, shared, done[number], at, plane, block, where=where)


def check_place(plane: Plane, outputs: Sequence[Output]) -> None:
    """Open input and output where a worker runs, before the first block.

    Raises
    ------
    RunError
        It does not find one of them, or may not write.
    """
    plane.check()
    for output in outputs:
        check_writable(output)


def level_tasks(output: Output, level: int) -> Iterator[Task]:
    """Yield the tasks that make a level from the one before."""
    for index, y, x in pyramid_tasks(output, level):
        where = f"level {level}, {_window_text(index, y, x)}"
        yield task(reduce_window, output, level, index, y, x, where=where)


def first_unreadable(plan: Plan) -> str:
    """Say which block met a chunk that cannot be read: tasks of map_overlap know chunks only."""
    for _, _, plane, block in plan.work():
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
        runtime=plan.runtime,
        precision=plan.precision,
        threads=plan.threads,
        augment=plan.augment,
        batch=plan.batch,
    )


@dataclass(frozen=True, kw_only=True)
class _Results:
    """Where the results of blocks lie, to write them and to read them again."""

    kinds: tuple[str, ...]
    """What the network has to give."""
    outputs: tuple[Output, ...]
    """Those that are final with their block."""
    staging: Staging | None
    mask: Mask | None
    """Outside of it everything is background."""

    @classmethod
    def of(cls, plan: Plan) -> _Results:
        outputs = tuple(output for output in plan.outputs if output.kind != "objects")
        mask = None if plan.found is None else plan.found.mask
        return cls(kinds=plan.kinds, outputs=outputs, staging=plan.staging, mask=mask)

    def input_digest(self, pixels: np.ndarray, at: int, block: Block) -> str:
        """Return the digest of all that the results of a block are made of."""
        if self.mask is None:
            return digest(pixels)
        return digest(pixels, self.mask.read(at, block.y.slice, block.x.slice))

    def write(
        self, results: Mapping[str, np.ndarray], at: int, plane: Plane, block: Block
    ) -> tuple[BlockRecord | None, str]:
        """Write what is final of a block, stage its objects; return their record and a digest."""
        found = []
        if self.mask is not None:
            results = apply_mask(results, self.mask.read(at, block.y.slice, block.x.slice))
        for output in self.outputs:
            data = results[output.kind]
            write_window(output, 0, plane.index, block.y.slice, block.x.slice, data)
            found.append(digest(data))
        record = None
        if self.staging is not None:
            record, staged = stage_classes(self.staging, at, block, results["classes"])
            found.append(staged)
        return record, "-".join(found)

    def read(self, at: int, plane: Plane, block: Block) -> tuple[BlockRecord | None, str]:
        """Return what `write` returned, of what is on disk now."""
        found = [
            digest(read_window(output, 0, plane.index, block.y.slice, block.x.slice))
            for output in self.outputs
        ]
        record = None
        if self.staging is not None:
            record, staged = read_staged(self.staging, at, block)
            found.append(staged)
        return record, "-".join(found)


@dataclass(frozen=True, kw_only=True)
class _BlockWork:
    """Everything that all blocks share; travels to each worker once."""

    tiling: Tiling
    predictor: Predictor
    limits: Limits | None
    results: _Results
    source: DecodedChunks = field(default_factory=DecodedChunks)

    def read(self, at: int, plane: Plane, block: Block) -> tuple[np.ndarray, str]:
        """Return the pixels that a block is made of, and their digest."""
        pixels = self.source.read(plane, self.tiling.source(block), self.tiling.readers)
        return pixels, self.results.input_digest(pixels, at, block)

    def predict(self, pixels: np.ndarray, block: Block) -> dict[str, np.ndarray]:
        """Return what the network gives for a block."""
        y, x = self.tiling.source(block)
        return predict_block(
            pixels,
            (y.start, x.start),
            block,
            tiling=self.tiling,
            predictor=self.predictor,
            limits=self.limits,
            kinds=self.results.kinds,
        )

    def write_layers(
        self,
        pixels: np.ndarray,
        layers: np.ndarray,
        number: int,
        at: int,
        plane: Plane,
        block: Block,
    ) -> BlockDone:
        """Write what map_overlap gave for a whole block, cut to what is asked for."""
        whole = self.tiling.block_at(block.index)
        rows, columns = block.y.shift(-whole.y.start), block.x.shift(-whole.x.start)
        inside = layers[:, rows.slice, columns.slice]
        # One layer of classes comes first, where they are asked for.
        after = 1 if "classes" in self.results.kinds else 0
        results = {"classes": inside[0], "probabilities": inside[after:]}
        made_of = self.results.input_digest(pixels, at, block)
        return self.write(results, made_of, number, at, plane, block)

    def write(
        self,
        results: Mapping[str, np.ndarray],
        made_of: str,
        number: int,
        at: int,
        plane: Plane,
        block: Block,
    ) -> BlockDone:
        """Write the results of a block that was made of pixels with a digest."""
        record, output = self.results.write(results, at, plane, block)
        done = Done(number=number, input=made_of, output=output)
        return BlockDone(done=done, pixels=block.pixels, record=record)


# What goes from step to step are plain values: Dask knows how large these are.
_Read: TypeAlias = tuple[np.ndarray, str]
_Predicted: TypeAlias = tuple[dict[str, np.ndarray], str]


def _read(shared: _BlockWork, number: int, at: int, plane: Plane, block: Block) -> _Read:
    return shared.read(at, plane, block)


def _predict(
    read: _Read, shared: _BlockWork, number: int, at: int, plane: Plane, block: Block
) -> _Predicted:
    pixels, made_of = read
    return shared.predict(pixels, block), made_of


def _write(
    predicted: _Predicted, shared: _BlockWork, number: int, at: int, plane: Plane, block: Block
) -> BlockDone:
    return shared.write(*predicted, number, at, plane, block)


_STEPS = Steps(_read, _predict, _write)


def _write_layers(
    shared: _BlockWork,
    pixels: np.ndarray,
    layers: np.ndarray,
    number: int,
    at: int,
    plane: Plane,
    block: Block,
) -> BlockDone:
    return shared.write_layers(pixels, layers, number, at, plane, block)


def _check(
    shared: tuple[Tiling, str, _Results], done: Done, at: int, plane: Plane, block: Block
) -> BlockChecked:
    """Read the pixels of a block and its result again, and compare them with the record."""
    tiling, overlap, results = shared
    whole = tiling.block_at(block.index)
    # What its digest is of: all that a direct read brings, or the chunk of map_overlap.
    y, x = tiling.source(block) if overlap == "direct" else (whole.y, whole.x)
    where = block_text(plane, block)
    if results.input_digest(plane.read(y.slice, x.slice), at, block) != done.input:
        return BlockChecked(number=done.number, pixels=block.pixels, state="changed", where=where)
    try:
        record, output = results.read(at, plane, block)
    except RunError:
        output, record = "", None
    return BlockChecked(
        number=done.number,
        pixels=block.pixels,
        state="kept" if output == done.output else "damaged",
        where=where,
        record=record,
    )


def _window_text(index: Sequence[int], y: slice, x: slice) -> str:
    plane = f", plane {tuple(index)}" if index else ""
    return f"rows {y.start}:{y.stop}, columns {x.start}:{x.stop}{plane}"
