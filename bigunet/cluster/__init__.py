"""Where work runs: embedded in this process, on local processes, on a Dask cluster.

Dask is the engine. `Executor.run` hands it tasks in bounded windows and reports
every result as it comes. A task that raises is tried again, then reported as a
`Failure` with its cause; the others go on.
"""

from __future__ import annotations

from bigunet.cluster.connect import (
    EMBEDDED,
    Where,
    check_scheduler,
    default_scheduler,
    open_executor,
)
from bigunet.cluster.executor import Executor
from bigunet.cluster.resources import SLOTS, available_cores, available_memory
from bigunet.cluster.tasks import Failure, Steps, Task, failures_text, task

__all__ = [
    "EMBEDDED",
    "SLOTS",
    "Executor",
    "Failure",
    "Steps",
    "Task",
    "Where",
    "available_cores",
    "available_memory",
    "check_scheduler",
    "default_scheduler",
    "failures_text",
    "open_executor",
    "task",
]
