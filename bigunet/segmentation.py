"""What `bigunet.segment_image` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigunet.plan import Plan

__all__ = ["Segmentation"]


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """What a run has written."""

    plan: Plan
    outputs: dict[str, Path]
    """Group of each kind that was saved."""
    blocks: dict[str, int]
    """``total``, ``computed``, ``resumed``, ``skipped`` and ``failed``."""
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


def _how_to_look(plan: Plan) -> list[str]:
    first = plan.outputs[0]
    if plan.destinations[0].place.listing is not None:
        image, name = first.final.parent.parent, first.final.name
        return [f"look at it: bigunet preview {image} --labels {name} {name}.png"]
    return [f"look at it: napari --plugin napari-ome-zarr {plan.destinations[0].path}"]
