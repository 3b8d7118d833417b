"""Going on with a run that did not finish: found, compared with what is asked, checked.

A run that was stopped leaves its ledger (`bigunet.ledger`) beside the unfinished result.
The same command goes on where it stopped: what the user left open is settled as it was,
then everything that bytes depend on has to be equal. Blocks on record are read again,
pixels and result, and count as done where both have the digests of the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigunet.errors import InputError
from bigunet.images.labels import label_names, unfinished_run
from bigunet.images.open import open_image
from bigunet.ledger import Record
from bigunet.models.unet import UNet
from bigunet.plan import Plan
from bigunet.provenance import changes, run_settings
from bigunet.settings import Settings, choose_save
from bigunet.stages import Progress, Stages
from bigunet.work import BlockChecked, check_tasks

__all__ = ["check_unfinished", "find_unfinished", "settle", "settle_plan"]

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
        # Records of earlier versions know of no runtime; what differs is said when they are compared.
        runtime=was.get("runtime", "auto") if settings.runtime == "auto" else settings.runtime,
        overlap=was["overlap"] if settings.overlap == "auto" else settings.overlap,
    )


def settle_plan(plan: Plan, settings: Settings, left: Record) -> Plan:
    """Take over what no option says: intensity limits that were measured, threads, batch."""
    limits = left.settings["intensity"]["limits"]
    if settings.intensity is None and limits is not None:
        plan = replace(plan, limits=tuple((lo, hi) for lo, hi in limits))
    was = left.settings
    return replace(plan, threads=was["threads"], batch=was["batch"])


def _match(plan: Plan, network: UNet, left: Record) -> None:
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


def check_unfinished(
    plan: Plan, network: UNet, settings: Settings, left: Record | None, stages: Stages
) -> dict[int, BlockChecked]:
    """Return the blocks that need not be made again; nothing is written.

    Raises
    ------
    InputError
        The unfinished run was of other settings, or of other pixels.
    """
    if left is None or (settings.overwrite and not plan.destinations[0].replaces):
        return {}
    try:
        _match(plan, network, left)
    except InputError:
        if settings.overwrite:
            return {}
        raise
    found = [destination.unfinished() for destination in plan.destinations]
    if any(one is None or one.family != left.family for one in found):
        return {}
    kept: dict[int, BlockChecked] = {}
    changed: list[BlockChecked] = []

    def take(checked: BlockChecked) -> None:
        if checked.state == "kept":
            kept[checked.number] = checked
        elif checked.state == "changed":
            changed.append(checked)

    stages.run("check", check_tasks(plan, left.done, stages.executor), len(left.done), take)
    if changed and not settings.overwrite:
        raise InputError(
            f"{plan.image.path} has changed since the unfinished run in {plan.outputs[0].final} "
            f"was begun ({_first(changed).where}, {len(changed)} blocks in all); begin anew with "
            f"--overwrite"
        )
    message = f"going on with an unfinished run: {len(kept)} of {plan.blocks} blocks are done"
    damaged = len(left.done) - len(kept) - len(changed)
    if damaged:
        message += f", {damaged} more are damaged and made again"
    stages.tell(Progress(stage="check", message=message))
    return {} if changed else kept


def _first(blocks: Sequence[BlockChecked]) -> BlockChecked:
    return min(blocks, key=lambda block: block.number)


def _pair(sizes: Any) -> tuple[int, int]:
    y, x = sizes
    return int(y), int(x)
