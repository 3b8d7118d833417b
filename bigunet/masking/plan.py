"""``--mask auto|LABEL|none``: which mask is meant, its pixels, and where it is kept.

Tissue that was found is kept as label `TISSUE`, on the level on which it was looked for. A
run has it in memory and a later one reads it from the label: the pixels are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dask.base import compute
from dask.delayed import Delayed, delayed

from bigunet import __version__
from bigunet.errors import InputError, OutputExistsError
from bigunet.images.groups import read_group
from bigunet.images.image import Image
from bigunet.images.labels import Destination, finish_interrupted, plan_destination, write_window
from bigunet.images.ngff import PROVENANCE
from bigunet.images.open import open_labels
from bigunet.images.output import Output
from bigunet.images.planes import image_planes
from bigunet.images.pyramid import level_shapes, pyramid_tasks, reduce_window
from bigunet.masking.fit import Grid, fit_grid, grids_of, outer_sizes, pixel_ratio
from bigunet.masking.mask import Cells, Mask
from bigunet.masking.tissue import RECIPE, choose_look, find_cells

__all__ = [
    "TISSUE",
    "FoundMask",
    "MaskPlan",
    "find_mask",
    "open_mask",
    "plan_mask",
    "store_mask",
]

TISSUE = "tissue"
"""Name of the label of the mask that was found."""
COLORS = ("000000", "ffb000")
CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class MaskPlan:
    """Which mask a run is going to use; no pixel is read, and nothing written."""

    image: Image
    level: int
    """That is segmented."""
    label: str | None
    """Label that is read; None where tissue has to be found."""
    look: int | None
    """Level on which tissue is looked for; None where a label was chosen."""
    destination: Destination | None
    """Where what is found is going to be kept."""

    @property
    def text(self) -> str:
        """What the mask is, in words."""
        if self.label is None:
            return f"tissue, to be found on level {self.look}"
        found = "" if self.look is None else ", found before"
        return f"label {self.label}{found}"


@dataclass(frozen=True, kw_only=True)
class FoundMask:
    """A mask that is ready."""

    plan: MaskPlan
    mask: Mask
    share: float
    """Fraction of the pixels inside."""
    tissue: Mask | None
    """What was found, as a mask of the level that was looked at: the label to be."""

    @property
    def text(self) -> str:
        """What the mask is and how much it covers, in words."""
        return f"mask {self.mask.name}: {100 * self.share:.3g} % of the slide"


def plan_mask(image: Image, level: int, wanted: str, *, store: bool = True) -> MaskPlan | None:
    """Decide on the mask of a run and refuse what cannot be; nothing is read or written.

    Parameters
    ----------
    image : Image
    level : int
        That is segmented.
    wanted : str
        ``none``, ``auto``, or labels as `bigunet.images.open.open_labels` takes them.
    store : bool
        Whether tissue that is found is to be kept as label `TISSUE` of the image.

    Returns
    -------
    MaskPlan or None
        None where there is no mask.

    Raises
    ------
    NotFoundError
        If there are no such labels; names those that are there.
    InputError
        If they are no labels, or do not cover the slide.
    OutputExistsError
        If somebody else's label is where the tissue would be kept.
    OutputError
        If the place cannot be written to.
    """
    if wanted == "none":
        return None
    plan = MaskPlan(image=image, level=level, label=wanted, look=None, destination=None)
    if wanted != "auto":
        open_mask(image, level, wanted)
        return plan
    look = choose_look(image, level)
    if TISSUE in image.labels:
        _check_same_way(image, look)
        return replace(plan, label=TISSUE, look=look)
    destination = _plan_tissue(image, look) if store else None
    return replace(plan, label=None, look=look, destination=destination)


def find_mask(plan: MaskPlan) -> FoundMask:
    """Read the mask, or find the tissue; nothing is written.

    Raises
    ------
    InputError
        If no pixel is inside.
    RunError
        If the label, or the level that is looked at, cannot be read.
    """
    if plan.label is not None:
        mask, tissue = open_mask(plan.image, plan.level, plan.label).in_memory(), None
        empty = f"no pixel of the mask {plan.label} is inside: choose another, or --mask auto"
    else:
        mask, tissue = _tissue_mask(plan)
        empty = "no tissue was found: choose a label with --mask LABEL, or --mask none"
    share = mask.share()
    if not share:
        raise InputError(f"{plan.image.path}: {empty}")
    return FoundMask(plan=plan, mask=mask, share=share, tissue=tissue)


def store_mask(found: FoundMask) -> None:
    """Keep tissue that was found as a label of the slide, complete or not at all.

    Raises
    ------
    OutputError, OutputExistsError
        If the place cannot be written to, or was taken since the plan was made.
    RunError
        If writing began and could not be finished.
    """
    plan, destination = found.plan, found.plan.destination
    if plan.label == TISSUE and plan.look is not None:
        finish_interrupted(plan.image, name=TISSUE)  # sweeps what a kill has left beside it
    if destination is None or found.tissue is None:
        return
    (output,) = destination.outputs
    destination.create()
    _compute(
        delayed(_write_pixels, pure=False)(output, found.tissue, index, y, x)
        for index in np.ndindex(output.planes)
        for y, x in _chunks(output)
    )
    for level in range(1, len(output.shapes)):
        reduce = delayed(reduce_window, pure=False)
        _compute(reduce(output, level, *window) for window in pyramid_tasks(output, level))
    destination.commit(
        {"version": __version__, "mask": _way(plan.look)}, ("background", TISSUE), COLORS
    )


def open_mask(image: Image, level: int, name: str) -> Mask:
    """Open a label as a mask of a level.

    Raises
    ------
    NotFoundError
        If there are no such labels; names those that are there.
    InputError
        If they are no labels, or do not cover the slide.
    """
    labels = open_labels(image, name)
    outer = outer_sizes(image, level, labels)
    here, there = grids_of(image)[level], grids_of(labels, frame=image)
    chosen = fit_grid(here, there, f"the mask {labels.path}")
    return Mask(
        name=name,
        shape=here.shape,
        label_shape=there[chosen].shape,
        ratio=pixel_ratio(here, there[chosen]),
        sources=image_planes(labels, chosen, (0,)),
        outer=outer,
    )


def _tissue_mask(plan: MaskPlan) -> tuple[Mask, Mask]:
    """Find the tissue; return it as the mask of the run, and of the level that was looked at.

    The first has the pixels that the label is going to have, once the second is stored.
    """
    image, look = plan.image, plan.look
    assert look is not None
    cells, side = find_cells(image, look)
    here, there = grids_of(image)[plan.level], _label_grids(image, look)
    chosen = fit_grid(here, there, "what was found")
    tissue = Mask(
        name=TISSUE,
        shape=there[0].shape,
        label_shape=there[0].shape,
        ratio=pixel_ratio(there[0], there[0]),
        sources=(Cells.of(cells),),
        side=side,
    )
    mask = replace(
        tissue,
        shape=here.shape,
        label_shape=there[chosen].shape,
        ratio=pixel_ratio(here, there[chosen]),
        outer=tuple((size, 1) for size, _ in outer_sizes(image, plan.level, image)),
        step=2**chosen,
    )
    return mask, tissue


def _label_grids(image: Image, look: int) -> list[Grid]:
    """Return the levels that a label has that is planned for a level; see `plan_destination`."""
    first = grids_of(image)[look]
    shapes = level_shapes(first.shape, len(image.levels))
    return [
        Grid(
            shape=(height, width),
            scale=(first.scale[0] * 2**k, first.scale[1] * 2**k),
            start=first.start,
        )
        for k, (height, width) in enumerate(shapes)
    ]


def _plan_tissue(image: Image, look: int) -> Destination:
    try:
        return plan_destination(image, look, name=TISSUE, chunk=(CHUNK, CHUNK), classes=2)
    except OutputExistsError as error:
        raise OutputExistsError(
            f"{error.args[0].split(';')[0]}: tissue that is found would be kept there; "
            f"rename it, or choose a label with --mask LABEL"
        ) from error


def _check_same_way(image: Image, look: int) -> None:
    """Refuse to take somebody else's label for the tissue that would be found."""
    labels = open_labels(image, TISSUE)
    group = read_group(labels.path)
    record: Any = group.attributes.get(PROVENANCE) if group else None
    if not isinstance(record, Mapping) or record.get("mask") != _way(look):
        raise OutputExistsError(
            f"{labels.path} is there and was not made by this version's --mask auto: "
            f"use it with --mask {TISSUE}, or rename it"
        )


def _way(look: int | None) -> dict[str, Any]:
    """Return what the pixels of the tissue follow from, beside the slide."""
    return {"recipe": RECIPE, "level": look}


def _compute(tasks: Iterable[Delayed]) -> None:
    compute(*tasks, scheduler="threads")


def _chunks(output: Output) -> Iterator[tuple[slice, slice]]:
    height, width = output.shapes[0][-2:]
    for y in range(0, height, CHUNK):
        for x in range(0, width, CHUNK):
            yield slice(y, min(y + CHUNK, height)), slice(x, min(x + CHUNK, width))


def _write_pixels(output: Output, tissue: Mask, index: tuple[int, ...], y: slice, x: slice) -> None:
    pixels = tissue.read(0, y, x)
    if pixels.any():
        write_window(output, 0, index, y, x, pixels.astype(np.uint8))
