"""docs/clusters.md: what it says to type is typed here, in small, on the CPU and on loopback."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
from commands import run
from slides import constant_speed_model, is_listed, read_label

from benchmarks.simulated import write_blank_slide
from bigunet.cutting import pixels_decoded, write_shard
from bigunet.errors import InputError
from bigunet.images.open import MOST_CHUNKS
from bigunet.images.sample import write_sample
from bigunet.ledger import Done, Ledger, Record
from bigunet.pipeline import plan_image
from bigunet.status import image_status

pytest.importorskip("distributed")
if sys.platform == "win32":
    pytest.skip("the page is for clusters, which run Linux", allow_module_level=True)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "clusters.md"
LOOPBACK = "127.0.0.1"
PATIENCE = 200
"""Seconds: the machine may be busy."""
SMALL = " --device cpu --tile 128 --block 128"

# Stand-ins for Slurm's commands.
SRUN = f"""#!{sys.executable}
import os, pathlib, sys
os.setsid()  # a step, which Slurm signals as a whole and without the script
pathlib.Path("step").write_text(str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""
SCONTROL = '#!/bin/sh\necho "$@" >> requeued\n'
SBATCH = '#!/bin/sh\ncp "$1" job\nsh job > job.log 2>&1 &\necho $! > job.pid\necho "Submitted batch job 9"\n'
SCANCEL = '#!/bin/sh\nkill "$(cat job.pid)"\n'


def section(heading: str) -> str:
    """Return what stands under a heading of the page."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)
    return str(text)


def block(heading: str, first_words: str, *changes: str) -> str:
    """Return the block of code under a heading that begins with these words, made small.

    Each change is of something that stands there.
    """
    blocks = re.findall(r"^```\w+\n(.*?)^```$", section(heading), re.M | re.S)
    (text,) = (one for one in blocks if one.startswith(first_words))
    for change in changes:
        old, new = change.split(" => ")
        assert old in text, f"{old!r} is not in {text!r}"
        text = text.replace(old, new)
    return str(text)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("source") / "slide.zarr", 512)


@pytest.fixture
def slide(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the slide, and this process, where the commands are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(tmp_path))
    monkeypatch.setenv(
        "PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    for patience in ("REPLY_SECONDS", "LOST_SECONDS"):
        monkeypatch.setattr(f"bigunet.cluster.watch.{patience}", PATIENCE)
    yield Path(shutil.copytree(source, tmp_path / "slide.zarr"))
    if Path("step").exists():
        with suppress(ProcessLookupError):
            os.killpg(int(Path("step").read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def expected(source: Path) -> np.ndarray:
    """Return the label of a run in this process."""
    done = run("segment", source, "--model", "nuclei", "--name", "here", *SMALL.split())
    assert done.exit_code == 0, done.stderr
    found = read_label(source, "here")
    assert found.max() > 50
    shutil.rmtree(source / "labels" / "here")
    return found


def stand_in(**scripts: str) -> None:
    """Put scripts on the path."""
    folder = Path("bin")
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)


@contextmanager
def running(*scripts: str, heard: bool = False) -> Iterator[list[subprocess.Popen[str]]]:
    """Start scripts, each in a session of its own; end with the block what has not ended."""
    pipe = subprocess.PIPE if heard else None
    processes = [
        subprocess.Popen(
            ["bash", "-c", script], stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        for script in scripts
    ]
    try:
        yield processes
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait, as long as a process lives on which it depends."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def group_lives(group: int) -> bool:
    """Tell whether a process of a group is at work; the dead may wait for init."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def typed(script: str, more: str = "") -> Any:
    """Run lines that set variables, then one of bigunet, in this process, for torch is loaded."""
    with pytest.MonkeyPatch.context() as patch:
        *exports, line = script.strip().splitlines()
        for words in map(shlex.split, exports):
            assert words[0] == "export"
            patch.setenv(*words[1].split("="))
        program, *arguments = shlex.split(line + more)
        assert program == "bigunet"
        return run(*arguments)


def free_port() -> int:
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        return int(one.getsockname()[1])


def ended(script: str) -> tuple[int, str]:
    """Run a script to its end; return its exit code and what it said."""
    with running(script, heard=True) as (process,):
        _, talk = process.communicate(timeout=PATIENCE)
        return process.returncode, talk


def blocks_done(slide: Path) -> int:
    """Return how many blocks of an unfinished run are on record."""
    found = [label.blocks for label in image_status(slide).labels if label.blocks]
    return found[0]["done"] if found else 0


def test_one_node_of_slurm(
    slide: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(srun=SRUN, scontrol=SCONTROL)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    small = f"--device cuda => --workers 2{SMALL}"
    script = block("One node of Slurm", "#!/bin/bash", small)
    with running(script, heard=True) as (job,):
        wait_for(lambda: blocks_done(slide) >= 2, job)
        step = int(Path("step").read_text())
        os.killpg(step, signal.SIGTERM)
        _, talk = job.communicate(timeout=PATIENCE)
    assert job.returncode == 3, talk
    assert Path("requeued").read_text() == "requeue 17\n"
    assert talk.splitlines()[-1].startswith("Stopped by SIGTERM.") and "Traceback" not in talk
    assert not is_listed(slide, "nuclei")
    wait_for(lambda: not group_lives(step))

    shown = re.search(r"^nuclei: unfinished.*$", section("When something goes wrong"), re.M)
    said = run("status", slide).stdout
    assert shown is not None and re.sub(r"\d+", "N", shown[0]) in re.sub(r"\d+", "N", said)

    # Other processes may go on.
    code, talk = ended(script.replace("--workers 2", "--workers 1"))
    assert code == 0, talk
    assert re.search(r"going on with an unfinished run: \d+ of 16 blocks are done", talk)
    assert Path("requeued").read_text() == "requeue 17\n"
    np.testing.assert_array_equal(read_label(slide, "nuclei"), expected)


def test_a_failure_is_not_queued_again(slide: Path) -> None:
    stand_in(srun="#!/bin/sh\nexit 1\n", scontrol=SCONTROL)
    code, _ = ended(block("One node of Slurm", "#!/bin/bash"))
    assert code == 1 and not Path("requeued").exists()


def test_a_scheduler_of_your_own(slide: Path, expected: np.ndarray) -> None:
    own = "A Dask scheduler of your own"
    lo = "ib0 => lo"
    scheduler = block(own, "dask scheduler", lo, "--no-dashboard => --no-dashboard --port 0")
    gpu_workers = block(own, "for gpu in", lo, "0 1 2 3 => 0")
    others = block(own, "dask worker", lo, "--nworkers 8 => --nworkers 1")
    with running(scheduler, gpu_workers, others):
        wait_for(Path("cluster.json").exists)
        from distributed import Client

        with Client(scheduler_file="cluster.json", set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
            facts = client.scheduler_info(n_workers=-1)
            resources = [worker["resources"] for worker in facts["workers"].values()]
            assert sorted(resources, key=len) == [{}, {"GPU": 1.0}]
            threads = {worker["nthreads"] for worker in facts["workers"].values()}
            assert threads == {2}
        address = f"tcp://10.0.0.1:8786 => {facts['address']}"
        scripts = (
            block(own, "bigunet segment slide.zarr --model nuclei --scheduler cluster.json"),
            block(own, "bigunet segment slide.zarr --model nuclei --scheduler tcp", address),
            block(own, "export DASK_SCHEDULER_ADDRESS", address),
        )
        for number, script in enumerate(scripts):
            done = typed(script, f"{SMALL} --name n{number}")
            assert done.exit_code == 0, done.stderr
            # The threads are those of the workers.
            assert "float32, 2 threads" in done.stderr
            np.testing.assert_array_equal(read_label(slide, f"n{number}"), expected)
        in_python = block(
            own, "from dask", "scheduler=client => scheduler=client, device='cpu', block=128"
        )
        exec(compile(in_python, str(PAGE), "exec"), {})
    np.testing.assert_array_equal(read_label(slide, "nuclei"), expected)


def test_jobs_of_slurm(slide: Path, expected: np.ndarray) -> None:
    pytest.importorskip("dask_jobqueue")
    yaml = pytest.importorskip("yaml")
    stand_in(sbatch=SBATCH, scancel=SCANCEL)
    jobs = "Workers as jobs of Slurm"
    config = yaml.safe_load(block(jobs, "jobqueue:", "ib0 => lo"))["jobqueue"]["slurm"]
    command = block(jobs, "bigunet segment", "--workers 8 => --workers 1")
    with dask.config.set({f"jobqueue.slurm.{key}": value for key, value in config.items()}):
        done = typed(command, SMALL)
    assert done.exit_code == 0, done.stderr
    script = Path("job").read_text()
    for words in (
        *("-p gpu", "--cpus-per-task=8", "--gpus=1", "-t 04:00:00", "--mem=30G"),
        *("--resources GPU=1", "--nthreads 2", "--interface lo", "tcp://127.0.0.1"),
    ):
        assert words in script
    np.testing.assert_array_equal(read_label(slide, "nuclei"), expected)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
@pytest.mark.slow
def test_tls(slide: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    security, port = "Who may send work", free_port()
    subprocess.run(["bash", "-c", block(security, "openssl")], check=True, capture_output=True)
    assert Path("cluster.key").stat().st_mode & 0o77 == 0
    told = block(security, "export DASK_DISTRIBUTED")
    at = f"10.0.0.1:8786 => {LOOPBACK}:{port}"
    commands = (
        block(security, "dask scheduler", "ib0 => lo", f"8786 => {port}"),
        block(security, "dask worker", "ib0 => lo", at),
    )
    with running(*(told + command for command in commands)):
        segment = block(security, "bigunet segment", at).strip()
        wait = (
            f"until (echo > /dev/tcp/{LOOPBACK}/{port}) 2> /dev/null; do sleep 0.1; done; sleep 2"
        )
        code, talk = ended(f"{told}\n{wait}\n{segment}{SMALL}")
        assert code == 0, talk
        # Who has no key is not let in.
        monkeypatch.setattr("bigunet.cluster.connect.CONNECT_SECONDS", 1)
        refused = typed(segment.replace("tls://", "tcp://"), " --name stranger")
        assert refused.exit_code == 2 and "no Dask scheduler answers" in refused.stderr
    np.testing.assert_array_equal(read_label(slide, "nuclei"), expected)


# One petapixel


PETA = "One petapixel: a plan"
SIDE, PART = 31_622_784, 1_048_576
FIELD = {"block": 8192, "tile": 1024, "overlap": "direct", "intensity": [(0, 255)]}


def stated(text: str) -> None:
    """Hold the plan to a figure."""
    assert text in " ".join(section(PETA).split())


def test_the_plan_of_a_petapixel_is_what_the_program_plans(tmp_path: Path) -> None:
    network = constant_speed_model(depth=3)
    slide = write_blank_slide(tmp_path / "slide.zarr", SIDE, 2048)
    whole = plan_image(slide, network, **FIELD)
    assert SIDE**2 == pytest.approx(1e15, rel=1e-4)
    stated(f"{whole.blocks:,} blocks")
    (chunk,) = set(whole.outputs[0].chunk)
    stated(f"{math.ceil(SIDE / chunk) ** 2:,} files")
    (shard,) = set(write_shard(whole.tiling))
    stated(f"in shards of {shard:,} px at these blocks, {math.ceil(SIDE / shard) ** 2:,} files")
    decoded = pixels_decoded(whole.tiling, whole.planes[0], processes=2)
    stated(f"{decoded / whole.pixels:.2f} times")
    part = plan_image(slide, network, region=((0, PART), (0, PART)), **FIELD)
    stated(f"{part.blocks:,} blocks")
    stated(f"{math.ceil(SIDE / PART) ** 2} regions")
    small = write_blank_slide(tmp_path / "small.zarr", SIDE, 1024)
    with pytest.raises(InputError, match=f"more than {MOST_CHUNKS} chunks"):
        plan_image(small, network, **FIELD)
    stated(f"{MOST_CHUNKS:,} chunks")


def test_the_figures_are_those_of_the_benchmark() -> None:
    file = PAGE.parents[1] / "benchmarks" / "results" / "cluster_machinery_cpu.json"
    found = json.loads(file.read_text())["processes"]
    stated(f"{found['cpu_milliseconds_per_block']:.1f} ms a block")
    stated(f"grew by {found['grown'] / 1e6:.0f} MB")


def test_the_bytes_of_a_ledger(tmp_path: Path) -> None:
    path, known = tmp_path / "x.run", Done(number=10**7, input="0" * 32, output="1" * 32)
    with Ledger(path, Record(family="", blocks=1, settings={})) as ledger:
        before = path.stat().st_size
        ledger.done(known)
    stated(f"{path.stat().st_size - before} bytes a block")


def test_classes_of_regions_are_those_of_the_whole(source: Path, tmp_path: Path) -> None:
    slide = Path(shutil.copytree(source, tmp_path / "slide.zarr"))
    options = ["--model", "nuclei", "--save", "classes", "--intensity", "400,12000"]
    options += SMALL.split()
    parts = {"0:256,0:512": "upper", "256:512,0:512": "lower"}
    runs = [["--name", "whole"], *(["--region", r, "--name", n] for r, n in parts.items())]
    for more in runs:
        done = run("segment", slide, *options, *more)
        assert done.exit_code == 0, done.stderr
    upper, lower, whole = (read_label(slide, name) for name in ("upper", "lower", "whole"))
    assert whole[240:272].any()
    np.testing.assert_array_equal(upper + lower, whole)
