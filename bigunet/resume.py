"""Going on with a run that did not finish: found, compared with what is asked, checked.

A run that was stopped leaves its ledger (`bigunet.ledger`) beside the unfinished result.
The same command goes on where it stopped: what the user left open is settled as it was,
then everything that bytes depend on has to be equal. Blocks on record are read again,
pixels and result, and count as done where both have the digests of the record.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bigunet.errors import InputError
from bigunet.images.labels import label_names, unfinished_run
from bigunet.images.open import open_image
from bigunet.ledger import Record
from bigunet.models.unet import UNet
from bigunet.plan import Plan
from bigunet.planning import Settings, choose_save
from bigunet.provenance import changes, run_settings

__all__ = ["find_unfinished", "match", "settle", "settle_plan"]

_NAMED_CHANGES = 3


def find_unfinished(path: str | Path, network: UNet, settings: Settings) -> Record | None:
    """Return the record of a run that did not finish where this one is going to write.

    None where there is none, or nothing is lost by beginning anew.
    """
    name = settings.name or network.card.name
    if settings.output is None:
        names = label_names(name, choose_save(settings.save, network))
        name = next(iter(names.values()), name)
    record = unfinished_run(open_image(path), name=name, output=settings.output)
    return record if record is not None and record.done else None


def settle(settings: Settings, left: Record) -> Settings:
    """Choose what the user left open as the unfinished run did."""
    was = left.settings
    return replace(
        settings,
        tile=settings.tile or _pair(was["tile"]),
        block=settings.block or _pair(was["block"]),
        device=was["device"] if settings.device == "auto" else settings.device,
        precision=was["precision"] if settings.precision == "auto" else settings.precision,
        overlap=was["overlap"] if settings.overlap == "auto" else settings.overlap,
    )


def settle_plan(plan: Plan, settings: Settings, left: Record) -> Plan:
    """Take over what no option says: intensity limits that were measured, threads, batch."""
    limits = left.settings["intensity"]["limits"]
    if settings.intensity is None and limits is not None:
        plan = replace(plan, limits=tuple((lo, hi) for lo, hi in limits))
    was = left.settings
    return replace(plan, threads=was["threads"], batch=was["batch"])


def match(plan: Plan, network: UNet, left: Record) -> None:
    """Refuse to go on with a run whose blocks are made in another way.

    Raises
    ------
    InputError
        Names what differs.
    """
    found = changes(left.settings, run_settings(plan, network))
    if found:
        more = f" and {len(found) - _NAMED_CHANGES} more" if len(found) > _NAMED_CHANGES else ""
        raise InputError(
            f"an unfinished run with {len(left.done)} of {left.blocks} blocks lies in "
            f"{plan.outputs[0].final}, but {', '.join(found[:_NAMED_CHANGES])}{more}: go on with "
            f"what it was begun with, or begin anew with --overwrite"
        )


def _pair(sizes: Any) -> tuple[int, int]:
    y, x = sizes
    return int(y), int(x)
