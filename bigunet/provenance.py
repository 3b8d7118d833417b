"""What a result was made with: kept in the label, and in the ledger while it is made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from bigunet import __version__
from bigunet.masking.plan import TISSUE
from bigunet.models.checkpoint import model_digest
from bigunet.models.unet import UNet
from bigunet.plan import Plan

__all__ = ["changes", "provenance", "run_settings"]


def provenance(plan: Plan, network: UNet) -> dict[str, Any]:
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
        "runtime": plan.runtime,
        "precision": plan.precision,
        "batch": plan.batch,
        "augment": plan.augment,
        "threads": plan.threads,
        "mask": plan.mask and (plan.mask.label or TISSUE),
    }


def run_settings(plan: Plan, network: UNet) -> dict[str, Any]:
    """Return all that the bytes of a run depend on beside the pixels, as JSON gives it back.

    More than `provenance`: what the blocks on disk look like, and versions that may
    compute other bits.
    """
    first = plan.planes[0]
    settings = provenance(plan, network) | {
        "torch": version("torch"),
        "openvino": version("openvino") if plan.runtime == "openvino" else None,
        "overlap": plan.overlap,
        "input": {
            "planes": [list(plane.index) for plane in plan.planes],
            "shape": list(first.shape),
            "dtype": first.dtype.str,
        },
        "outputs": {output.kind: output.final.name for output in plan.outputs},
        "objects": None if plan.rules is None else asdict(plan.rules),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what is not as it was: ``tile was [512, 512] and is [256, 256]``.

    Examples
    --------
    >>> changes({"model": {"name": "a"}, "tile": 8}, {"model": {"name": "b"}, "tile": 8})
    ["model name was 'a' and is 'b'"]
    """
    return list(_changes(before, now, ""))


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], inside: str) -> Iterator[str]:
    for key in dict.fromkeys((*before, *now)):
        was, now_is, name = before.get(key), now.get(key), f"{inside}{key}"
        if isinstance(was, Mapping) and isinstance(now_is, Mapping):
            yield from _changes(was, now_is, f"{name} ")
        elif was != now_is:
            yield f"{name} was {was!r} and is {now_is!r}"
