"""Devices and precisions."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from bigunet.errors import InputError
from bigunet.models import devices
from bigunet.models.devices import (
    choose_device,
    choose_precision,
    computes_bfloat16,
    library_bytes,
    precision_warning,
)


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


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"neon": True, "bf16": True}, False),
        (None, False),
    ],
)
def test_a_processor_computes_in_bfloat16_if_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, bool] | None, expected: bool
) -> None:
    if has is None:  # torch that does not tell
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert computes_bfloat16("cpu") is expected
    assert not computes_bfloat16("mps")
    assert choose_precision("auto", "cpu") == "float32"


def test_a_precision_that_takes_longer_than_float32_is_said() -> None:
    said = precision_warning("bfloat16", "cpu", bfloat16=False)
    assert said is not None and "use precision float32" in said
    assert precision_warning("float16", "cpu", bfloat16=True)
    assert precision_warning("bfloat16", "cuda:0", bfloat16=False)
    for device in ("cpu", "cuda"):
        assert precision_warning("bfloat16", device, bfloat16=True) is None
        assert precision_warning("float32", device, bfloat16=False) is None
    assert precision_warning("float16", "cuda", bfloat16=False) is None


def test_only_a_build_for_gpus_has_their_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert library_bytes() == 0
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert library_bytes() > 262e6
