"""Whole runs on clusters whose workers differ: the same bytes as on one computer."""

from __future__ import annotations

import os
import shutil
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slides import files, write_slide
from strategies import random_image, random_model

from bigunet import save_model, segment_image
from bigunet.cluster.dask_cluster import Cluster
from bigunet.pipeline import Progress

distributed = pytest.importorskip("distributed")
if not hasattr(signal, "SIGKILL"):
    pytest.skip("signals differ on Windows", allow_module_level=True)

SIDE, BLOCK = 192, 32
BLOCKS = (SIDE // BLOCK) ** 2
SETTINGS: dict[str, Any] = {
    "tile": BLOCK,
    "block": BLOCK,
    "device": "cpu",
    "runtime": "openvino",
    "name": "nuclei",
}
SAVE = ("objects", "classes")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide and a model."""
    folder = tmp_path_factory.mktemp("source")
    pixels = random_image((SIDE, SIDE), np.uint8)
    write_slide(folder / "slide.zarr", pixels, "yx", chunk=64)
    save_model(random_model(1), folder / "model.pt", name="nuclei")
    return folder


@pytest.fixture
def slide(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source / "slide.zarr", tmp_path / "slide.zarr"))


@pytest.fixture
def expected(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the files of a run in this process, with the threads that workers have."""
    slide = Path(shutil.copytree(source / "slide.zarr", tmp_path / "here.zarr"))
    with monkeypatch.context() as patch:
        patch.setattr("bigunet.sites.available_cores", lambda: 1)
        segment_image(slide, source / "model.pt", save=SAVE, **SETTINGS)
    return files(slide / "labels")


@pytest.fixture
def only_with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network go where the resource GPU is, and run on the CPU there."""
    crew = Cluster._crew

    def pretended(cluster: Cluster, device: str | None) -> Any:
        return crew(cluster, "cuda" if device == "cpu" else device)

    monkeypatch.setattr(Cluster, "_crew", pretended)


@pytest.mark.usefixtures("only_with_gpu")
def test_a_mixed_cluster_gives_the_same_bytes(
    start_cluster: Any, source: Path, slide: Path, expected: dict[str, bytes]
) -> None:
    """Also where a worker without the device dies in mid-run."""
    has_gpu = {"name": "gpu", "resources": {"GPU": 1}}
    with (
        start_cluster(has_gpu, {"name": "cpu"}) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.get_task_stream()  # From now on it is written down who does what.
        names = {facts["id"]: at for at, facts in cluster.scheduler_info["workers"].items()}
        pid = client.run(os.getpid, workers=[names["cpu"]])[names["cpu"]]

        def kill_one(step: Progress) -> None:
            if (step.stage, step.done) == ("segment", BLOCKS // 3):
                os.kill(pid, signal.SIGKILL)

        options: dict[str, Any] = {"save": SAVE, "scheduler": client, "progress": kill_one}
        done = segment_image(slide, source / "model.pt", **options, **SETTINGS)
        workers = defaultdict(set)
        for fact in client.get_task_stream():
            if isinstance(fact["key"], tuple):
                workers[fact["key"][0].rpartition("-")[2]].add(fact["worker"])
    assert done.blocks["computed"] == BLOCKS
    assert workers["compute"] == {names["gpu"]}
    assert workers["read"] > {names["gpu"]} and workers["write"] > {names["gpu"]}
    assert files(slide / "labels") == expected
