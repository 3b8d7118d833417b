"""Workers that are jobs of Slurm, as the user's configuration of dask-jobqueue says."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client
from distributed.core import Status

from bigunet.cluster.local import ALLOWED_FAILURES
from bigunet.cluster.tasks import cause_text
from bigunet.errors import DependencyError, InputError

__all__ = ["slurm_client"]

_CONFIG = "~/.config/dask/jobqueue.yaml"
_NEEDED = ("cores", "memory")
_ALLOWED = {"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}


@contextmanager
def slurm_client(jobs: int | None) -> Iterator[Client]:
    """Submit jobs, wait for the first worker, and end them with the block.

    Parameters
    ----------
    jobs : int, optional
        How many; one by default.

    Raises
    ------
    DependencyError
        dask-jobqueue is not installed.
    InputError
        There is no Slurm here, its configuration lacks something, or it refuses the jobs.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "scheduler 'slurm' needs the command sbatch; run it where jobs are submitted"
        )
    with dask.config.set(_ALLOWED), _slurm_cluster() as cluster:
        _submit(cluster, jobs or 1)
        with Client(cluster, set_as_default=False) as client:
            while not client.nthreads():
                time.sleep(1)
            yield client


def _slurm_cluster() -> Any:
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise DependencyError(
            "scheduler 'slurm' needs the package dask-jobqueue; pip install 'bigunet[slurm]'"
        ) from error
    missing = [key for key in _NEEDED if dask.config.get(f"jobqueue.slurm.{key}", None) is None]
    if missing:
        raise InputError(
            f"jobs of Slurm need jobqueue.slurm.{' and jobqueue.slurm.'.join(missing)} in "
            f"{_CONFIG}, see docs/clusters.md"
        )
    try:
        return SLURMCluster()
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"cannot start a cluster of Slurm jobs ({cause_text(error)}); mend jobqueue.slurm in "
            f"{_CONFIG}, see docs/clusters.md"
        ) from error


def _submit(cluster: Any, jobs: int) -> None:
    """Submit jobs; unlike `cluster.scale`, raise what Slurm refuses."""
    for _ in range(jobs):
        cluster.worker_spec.update(cluster.new_worker_spec())

    async def submitted() -> None:
        await cluster

    try:
        cluster.sync(submitted)
    except (ValueError, RuntimeError, OSError) as error:
        for job in cluster.workers.values():
            # Else closing the cluster waits for them.
            job.status = Status.failed
        raise InputError(f"Slurm refuses the jobs ({cause_text(error)})") from error
