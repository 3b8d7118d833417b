"""Where a run is going to work, as far as a plan depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from bigunet.cluster import (
    SLOTS,
    Executor,
    Where,
    available_cores,
    available_memory,
    check_scheduler,
)
from bigunet.errors import InputError
from bigunet.models.devices import choose_device, computes_bfloat16, device_bytes, visible_gpus

__all__ = ["Site", "find_site", "is_local"]

LOCAL = ("threads", "sync", "processes")


@dataclass(frozen=True, kw_only=True)
class Site:
    """Processes, and what each of them has."""

    scheduler: str
    processes: int
    workers: int
    """Blocks at work at once, in all processes together."""
    threads: int
    """Of torch, in each process: one number for all, for bits depend on it."""
    memory: int
    """Bytes for each process."""
    device: str
    device_memory: int | None
    """Bytes of a CUDA device, of the smallest one; None where there is none."""
    bfloat16: bool
    """Whether all devices compute with it."""
    note: str | None = None
    """What the user should know."""


def is_local(scheduler: Where) -> bool:
    """Tell whether work stays on this machine, so that nobody has to be asked before a plan."""
    return isinstance(scheduler, str) and scheduler in LOCAL


def find_site(
    scheduler: Where | None, workers: int | None, device: str, executor: Executor | None
) -> Site:
    """Return what there is: on this machine, or on the workers of an executor.

    Parameters
    ----------
    scheduler : str, client or None
    workers : int, optional
        Blocks at once of ``threads``, processes of ``processes``.
    device : {"auto", "cpu", "cuda", "mps"}
    executor : Executor, optional
        Of a cluster that is not of our own making.

    Raises
    ------
    InputError
        There is no such scheduler, or the device is not to be had.
    """
    scheduler = check_scheduler(scheduler)
    if executor is not None:
        return _of_cluster(scheduler, device, executor)
    device, note = choose_device(device)
    cores, name = available_cores(), str(scheduler)
    gpus = visible_gpus() if device.startswith("cuda") else 0
    if name == "sync":
        processes, at_once, threads = 1, 1, cores
    elif name == "processes":
        processes = min(workers or gpus, gpus) if gpus else workers or cores
        at_once, threads = processes * SLOTS, max(1, cores // processes)
    else:
        # One pass at a time uses all cores; a second block is read and written meanwhile.
        processes, at_once, threads = 1, workers or max(2, cores), cores
    return Site(
        scheduler=name,
        processes=processes,
        workers=at_once,
        threads=threads,
        memory=available_memory() // processes,
        device=device,
        device_memory=device_bytes(device),
        bfloat16=computes_bfloat16(device),
        note=note,
    )


def _of_cluster(scheduler: Where, device: str, executor: Executor) -> Site:
    """Ask the workers: the machine of the client may be no more than a desk."""
    found = executor.devices()
    if device == "auto":
        device = "cuda" if "cuda" in found else "cpu"
    if device.split(":")[0] not in found:
        raise InputError(
            f"device '{device}' cannot be used: none of the {executor.processes} workers has it; "
            f"start workers on machines that have one, or pass --device cpu"
        )
    cuda = device.startswith("cuda")
    sizes = executor.ask(device_bytes, device, device=device) if cuda else []
    native = executor.ask(computes_bfloat16, device, device=device)
    return Site(
        scheduler=scheduler if isinstance(scheduler, str) else "a client of Dask",
        processes=executor.processes,
        workers=executor.workers,
        threads=executor.threads or 1,
        memory=executor.memory or available_memory(),
        device=device,
        device_memory=min((size for size in sizes if size), default=None),
        bfloat16=bool(native) and all(native),
    )
