"""Work that a scheduler passes on without looking at it.

A scheduler unpickles the graphs that it is sent, and imports whatever is in them: torch,
say, which keeps it from answering anybody meanwhile. So functions and values travel
pickled once more; all that the scheduler sees is what depends on what.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

from dask._task_spec import Task, TaskRef, convert_legacy_graph
from dask.delayed import Delayed
from distributed.protocol.pickle import dumps

from bigunet.cluster.entry import entered

__all__ = ["opened", "sealed", "sealed_graph"]


def sealed(function: Callable[..., Any], *args: Any) -> bytes:
    """Return a call, for `opened`."""
    call: bytes = dumps(partial(function, *args))
    return call


def opened(call: bytes, *more: Any) -> Any:
    """Call what was sealed, with what else there is."""
    return pickle.loads(call)(*more)


def sealed_graph(value: Delayed, run: str = "") -> Delayed:
    """Return the same lazy value, of the same keys, made of sealed tasks of a run."""
    graph = {}
    for key, node in convert_legacy_graph(dict(value.__dask_graph__())).items():
        needed = sorted(node.dependencies, key=str)
        sealed_node = dumps((node, needed))
        graph[key] = Task(key, entered, run, _opened_node, sealed_node, *map(TaskRef, needed))
    return Delayed(value.key, graph)


def _opened_node(pickled: bytes, *values: Any) -> Any:
    node, needed = pickle.loads(pickled)
    return node(dict(zip(needed, values, strict=True)))
