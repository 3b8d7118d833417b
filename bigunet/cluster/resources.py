"""What this machine lets a process take."""

from __future__ import annotations

import os

from dask.system import CPU_COUNT

__all__ = ["SLOTS", "available_cores", "available_memory"]

SLOTS = 2
"""Tasks that a process of ours runs at once: while one is in the network, another reads or writes."""


def available_cores() -> int:
    """Return the cores that CPU affinity and cgroup limits allow."""
    return int(CPU_COUNT)


def available_memory() -> int:
    """Return the bytes of memory that the machine and cgroup limits allow."""
    try:
        from distributed.system import memory_limit
    except ImportError:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(memory_limit())
