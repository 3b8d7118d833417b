"""Devices and precisions."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

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


IS_SUPPORTED = torch.cuda.is_bf16_supported  # as torch has it; the suite's is another


@pytest.mark.parametrize(("generation", "expected"), [(7, "float32"), (8, "bfloat16")])
def test_a_gpu_computes_in_bfloat16_if_it_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, generation: int, expected: str
) -> None:
    seen = SimpleNamespace(major=generation, minor=5)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", IS_SUPPORTED)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: seen)
    assert choose_precision("auto", "cuda") == expected
    assert choose_precision("auto", "cuda:1") == expected
    assert choose_precision("auto", "cpu") == choose_precision("auto", "mps") == "float32"


def test_precisions() -> None:
    # What other machines have is known from them.
    assert choose_precision("auto", "cuda", bfloat16=True) == "bfloat16"
    assert choose_precision("auto", "cuda", bfloat16=False) == "float32"
    assert choose_precision("float32", "cuda", bfloat16=True) == "float32"
    assert choose_precision("float16", "cuda", bfloat16=False) == "float16"
    assert choose_precision("bfloat16", "cpu") == "bfloat16"
    with pytest.raises(InputError, match="not to be had on mps"):
        choose_precision("bfloat16", "mps")
