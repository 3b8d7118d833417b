"""Jobs of Slurm, which a script on the path stands in for: it runs them on this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import pytest

from bigunet.cluster import open_executor, task
from bigunet.errors import DependencyError, InputError

pytest.importorskip("distributed")
jobqueue = pytest.importorskip("dask_jobqueue")

SBATCH = """#!/bin/sh
job="$JOBS/script-$$"
cp "$1" "$job"
sh "$job" > "$job.out" 2>&1 &
echo $! >> "$JOBS/pids"
echo "Submitted batch job $!"
"""
SCANCEL = '#!/bin/sh\nkill "$1"\n'
CONFIG = {
    "jobqueue.slurm.cores": 2,
    "jobqueue.slurm.memory": "1GB",
    "jobqueue.slurm.processes": 1,
    "jobqueue.slurm.queue": "gpu",
    "jobqueue.slurm.job-extra-directives": ["--gpus=1"],
    "jobqueue.slurm.worker-extra-args": ["--host", "127.0.0.1", "--resources", "GPU=1"],
    "jobqueue.slurm.scheduler-options": {
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
    },
}


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the commands on the path; yield the folder with what they were given."""
    for name, script in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(script)
        command.chmod(0o755)
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setenv("JOBS", str(folder))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    yield folder
    for pid in (folder / "pids").read_text().split() if (folder / "pids").exists() else ():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def test_a_run_on_jobs(jobs: Path) -> None:
    found: list[Any] = []
    with dask.config.set(CONFIG), open_executor("slurm", 2) as executor:
        assert executor.threads == 2
        assert executor.devices() == {"cpu", "cuda"}
        executor.run((task(pow, n, 2, where="") for n in range(9)), found.append, device="cuda")
    assert sorted(found) == [n * n for n in range(9)]
    scripts = [one.read_text() for one in jobs.glob("script-*[0-9]")]
    assert len(scripts) == 2
    for script in scripts:
        for line in ("#SBATCH -p gpu", "#SBATCH --cpus-per-task=2", "#SBATCH --gpus=1"):
            assert line in script.splitlines()
        assert "distributed.cli.dask_worker" in script and "--resources GPU=1" in script
        assert "--nthreads 2" in script


def test_what_is_missing_is_named(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = pytest.raises(InputError, match=r"jobqueue\.slurm\.cores and jobqueue\.slurm\.memory")
    with missing, open_executor("slurm"):
        pass
    (jobs.parent / "bin" / "sbatch").write_text("#!/bin/sh\necho no such partition >&2\nexit 1\n")
    refused = pytest.raises(InputError, match=r"Slurm refuses the jobs .*no such partition")
    with dask.config.set(CONFIG), refused, open_executor("slurm"):
        pass
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with pytest.raises(DependencyError, match=r"bigunet\[slurm\]"), open_executor("slurm"):
        pass
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="needs the command sbatch"), open_executor("slurm"):
        pass
    assert not list(jobs.iterdir())
