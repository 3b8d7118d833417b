"""What a user can ask of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bigunet.cluster import Where
from bigunet.models.unet import UNet
from bigunet.sizes import Size

__all__ = ["Settings", "choose_save"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user can ask of a run."""

    name: str | None = None
    """Of the label; the model's name by default."""
    output: str | Path | None = None
    """A new OME-Zarr to write instead of a label of the slide."""
    save: Sequence[str] | None = None
    """What to write, of ``objects``, ``classes`` and ``probabilities``; the last need `output`.
    By default objects, of a model that was trained on objects, else classes."""
    overwrite: bool = False
    """Replace a complete label of bigunet's; it stays readable until the new one is there."""
    channels: Sequence[int | str] | None = None
    """Indices or names; needed where the slide has more than the model takes."""
    level: int | None = None
    """Of the pyramid; 0 is the finest."""
    pixel_size: float | None = None
    """Micrometres per pixel that the model wants; its own by default."""
    intensity: Sequence[tuple[float, float]] | None = None
    """(lo, hi) per channel instead of the model's rule."""
    region: Sequence[Sequence[int]] | None = None
    """((y0, y1), (x0, x1)) of the level that is used; the rest stays background."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``mps``."""
    precision: str = "auto"
    """``auto``, ``float32``, ``bfloat16`` or ``float16``."""
    runtime: str = "auto"
    """``auto``, ``eager``, ``compile`` or ``openvino``; see `bigunet.models.runtimes`."""
    mask: str = "none"
    """``none``; ``auto``: tissue, found and kept as label ``tissue``; or the name of a label. What
    lies outside is background."""
    augment: str = "none"
    """``none``, or ``d4``: the mean over the eight symmetries of the square."""
    block: int | tuple[int, int] | None = None
    """Pixels per task; rounded up to whole tiles."""
    tile: int | tuple[int, int] | None = None
    """Output pixels per forward pass; rounded up to ``2**depth``."""
    scheduler: Where | None = None
    """``threads``, ``sync``, ``processes``, ``slurm``, an address, a scheduler file, or a client of
    Dask. By default the client that is active, what DASK_SCHEDULER_ADDRESS says, or ``threads``."""
    workers: int | None = None
    """Blocks at once of ``threads``, processes of ``processes``, jobs of ``slurm``."""
    memory_limit: int | None = None
    """Bytes that a process may take; four fifths of what there is by default."""
    overlap: str = "auto"
    """How blocks get their halos: ``auto``, ``map_overlap`` or ``direct``."""
    min_area: Size | None = None
    """Smallest object that is kept: pixels of the level that is used, or ``20um2``."""
    max_area: Size | None = None
    """Largest object that is kept."""
    fill_holes: bool = False
    """Fill background that one object encloses."""
    split: Literal["distance"] | None = None
    """``distance``: split objects that grew together by a watershed of their distance map."""
    max_diameter: Size | None = None
    """Longest side of what is split, in pixels or ``15um``; needed to split."""


def choose_save(save: Sequence[str] | None, model: UNet) -> tuple[str, ...]:
    """Return what to write: objects by default, where the model was trained on them."""
    if save is not None:
        return tuple(save)
    # The gap tells it too, of models that were trained before cards said so.
    trained_on_objects = model.card.instances or model.card.gap > 0
    return ("objects",) if trained_on_objects else ("classes",)
