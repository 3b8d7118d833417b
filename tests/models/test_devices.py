"""Devices and precisions."""

from __future__ import annotations

import pytest
import torch

from bigunet.errors import InputError
from bigunet.models import devices
from bigunet.models.devices import choose_device, choose_precision


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_the_cpu_is_taken_in_silence_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda _: None)
    assert choose_device("auto") == ("cpu", None)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    ("built", "remedy"), [(None, "install torch with CUDA"), ("13.0", "driver")]
)
def test_a_gpu_that_torch_cannot_use_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, built: str | None, remedy: str
) -> None:
    monkeypatch.setattr(devices.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", built)
    device, warning = choose_device("auto")
    assert device == "cpu" and warning is not None and remedy in warning
    assert warning.startswith("warning: "), "what -q keeps"
    with pytest.raises(InputError, match=remedy):
        choose_device("cuda")


def test_a_gpu_is_taken_where_torch_can_use_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == ("cuda", None)
    assert choose_device("cuda:1") == ("cuda:1", None)
    assert choose_device("cpu") == ("cpu", None)


def test_precisions() -> None:
    assert choose_precision("auto", "cuda") == "float32"
    assert choose_precision("bfloat16", "cpu") == "bfloat16"
    with pytest.raises(InputError, match="not to be had on mps"):
        choose_precision("bfloat16", "mps")
