"""The route of ``bigunet segment``: the one file that knows every stage.

open → plan → measure intensities → create the output, unlisted → blocks (read,
predict, write) → pyramid → metadata last.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import Delayed

from bigunet import __version__
from bigunet.cluster import EMBEDDED, Executor, Failure, open_executor
from bigunet.errors import BigunetError, RunError
from bigunet.images.intensity import measure_limits
from bigunet.images.labels import finish_interrupted
from bigunet.images.open import Plane, open_image
from bigunet.images.output import assert_disjoint_writes
from bigunet.inference import time_tile
from bigunet.models.card import default_class_names, default_colors
from bigunet.models.checkpoint import load_model, model_digest
from bigunet.models.runtime import torch_threads_kept
from bigunet.models.unet import UNet
from bigunet.plan import Plan
from bigunet.planning import Settings, plan_run
from bigunet.work import block_tasks, first_unreadable, level_tasks, plan_predictor

__all__ = ["Progress", "Segmentation", "plan_image", "segment_image"]

_NAMED_CAUSES = 3


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run tells while it goes on."""

    stage: str
    """``plan``, ``segment``, ``pyramid`` or ``commit``."""
    done: int = 0
    total: int = 0
    pixels: int = 0
    """Output pixels done so far."""
    seconds: float = 0.0
    """Since the stage began."""
    message: str | None = None
    """A line for the user."""


Listener = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What a run has written."""

    plan: Plan
    outputs: dict[str, Path]
    """Group of each kind that was saved."""
    blocks: dict[str, int]
    """``total``, ``computed`` and ``failed``."""
    seconds: float

    def lines(self) -> list[str]:
        """Return where the result is and how to look at it."""
        megapixels = self.plan.pixels / 1e6
        speed = megapixels / max(self.seconds, 1e-9)
        return [
            f"{megapixels:.1f} Mpx in {self.seconds:.1f} s ({speed:.2f} Mpx/s)",
            *(f"{kind}: {path}" for kind, path in self.outputs.items()),
            *_how_to_look(self.plan),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
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
    finish_interrupted(
        open_image(path), name=settings.name or network.card.name, output=settings.output
    )
    plan = plan_run(path, network, settings)
    began = time.monotonic()
    with torch_threads_kept(), open_executor(plan.scheduler, plan.workers) as executor:
        if executor.threads is not None:
            plan = replace(plan, threads=executor.threads, workers=executor.workers)
        plan = _with_limits(plan, network, executor)
        for line in (plan.headline(), *plan.notes):
            tell(Progress(stage="plan", message=line))
        _run(plan, network, executor, tell)
    return Segmentation(
        plan=plan,
        outputs={output.kind: output.final for output in plan.destination.outputs},
        blocks={"total": plan.blocks, "computed": plan.blocks, "failed": 0},
        seconds=time.monotonic() - began,
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


def _run(plan: Plan, network: UNet, executor: Executor, tell: Listener) -> None:
    """Write blocks, then lower levels, then metadata."""
    for output in plan.destination.outputs:
        blocks = plan.tiling.blocks(plan.region)
        assert_disjoint_writes(output, ((b.y.slice, b.x.slice) for b in blocks))
    plan.destination.create()
    work = block_tasks(plan, network, executor)
    _work_off(work, plan.blocks, "segment", executor, tell, place=lambda: first_unreadable(plan))
    for output in plan.destination.outputs:
        for level in range(1, len(output.shapes)):
            tasks = list(level_tasks(output, level))
            _work_off(tasks, len(tasks), "pyramid", executor, tell)
    tell(Progress(stage="commit"))
    plan.destination.commit(
        provenance=_provenance(plan, network),
        class_names=network.card.class_names or default_class_names(network.classes),
        class_colors=network.card.class_colors or default_colors(network.classes),
    )


def _work_off(
    tasks: Iterable[Delayed],
    total: int,
    stage: str,
    executor: Executor,
    tell: Listener,
    *,
    place: Callable[[], str] = str,
) -> None:
    """Run tasks, tell of each, and raise at the end if some failed.

    ``place`` says where, if what is raised is no `Failure` of a task that knows.

    Raises
    ------
    RunError
        Names the first tasks that failed and why.
    """
    failures: list[Failure] = []
    done, pixels, began = 0, 0, time.monotonic()

    def on_result(result: Any) -> None:
        nonlocal done, pixels
        done += 1
        if isinstance(result, Failure):
            failures.append(result)
        elif stage == "segment":
            pixels += result
        seconds = time.monotonic() - began
        tell(Progress(stage=stage, done=done, total=total, pixels=pixels, seconds=seconds))

    tell(Progress(stage=stage, total=total))
    try:
        executor.run(tasks, on_result)
    except BigunetError as error:
        raise RunError(f"{error}{place()}; {_unlisted()}") from error
    if failures:
        raise RunError(f"{len(failures)} of {total} failed: {_named(failures)}; {_unlisted()}")


def _named(failures: Sequence[Failure]) -> str:
    """Say each cause once, with the first place where it struck; numbers make no new cause."""
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        alike.setdefault(re.sub(r"\d+", "0", failure.cause), []).append(failure)
    told = []
    for group in alike.values():
        first = min(group, key=lambda failure: failure.where)
        more = f" and {len(group) - 1} more" if group[1:] else ""
        told.append(f"{first.cause} ({first.where}{more})")
    others = [f"{len(told) - _NAMED_CAUSES} other causes"] if len(told) > _NAMED_CAUSES else []
    return "; ".join([*told[:_NAMED_CAUSES], *others])


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
        "threads": plan.threads,
    }


def _how_to_look(plan: Plan) -> list[str]:
    output = plan.destination.outputs[-1]
    if output.kind == "classes" and output.final.parent.name == "labels":
        image, name = output.final.parent.parent, output.final.name
        return [f"look at it: bigunet preview {image} --labels {name} {name}.png"]
    return [f"look at it: napari --plugin napari-ome-zarr {output.final}"]


def _unlisted() -> str:
    return "the label is not listed; mend the cause and run the same command again"


def _nobody(_: Progress) -> None:
    pass
