"""Devices, precisions and what a forward pass leaves behind."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from strategies import random_image, random_model

from bigunet.errors import InputError
from bigunet.models import runtime
from bigunet.models.runtime import (
    Predictor,
    choose_device,
    choose_precision,
    torch_threads_kept,
)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_the_cpu_is_taken_in_silence_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime.shutil, "which", lambda _: None)
    assert choose_device("auto") == ("cpu", None)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    ("built", "remedy"), [(None, "install torch with CUDA"), ("13.0", "driver")]
)
def test_a_gpu_that_torch_cannot_use_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, built: str | None, remedy: str
) -> None:
    monkeypatch.setattr(runtime.shutil, "which", lambda _: "nvidia-smi")
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


def test_float32_means_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TF32 and no timed choice of algorithms inside, and the caller's flags outside."""
    cudnn = torch.backends.cudnn
    before = (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    with runtime._arithmetic("float32", "cuda:0"):
        assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == (False, False, True)
    assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == before


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64, np.float16, np.float64]
)
def test_pixels_of_any_type_are_the_same_numbers_to_the_network(dtype: type) -> None:
    predictor = Predictor.of(random_model(2), device="cpu")
    pixels = random_image((1, 60, 60), np.uint8) // 2
    expected = predictor.scores(pixels.astype(np.float32), None)
    assert torch.equal(predictor.scores(pixels.astype(dtype), None), expected)
    swapped = pixels.astype(dtype).astype(np.dtype(dtype).newbyteorder(">"))
    swapped.flags.writeable = False
    assert torch.equal(predictor.scores(swapped, None), expected)


def test_one_network_per_process_and_digest() -> None:
    model = random_model(2)
    one, two = Predictor.of(model, device="cpu"), Predictor.of(model, device="cpu")
    assert one.digest == two.digest and one._network() is two._network()
    other = Predictor.of(random_model(2, seed=3), device="cpu")
    assert other._network() is not one._network()
    assert len(runtime._networks) <= runtime._NETWORKS_KEPT


def test_one_forward_pass_at_a_time() -> None:
    """Memory does not grow with the number of tasks."""
    predictor = Predictor.of(random_model(2), device="cpu")
    inside, most = 0, 0

    def enter(*_: object) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)

    def leave(*_: object) -> None:
        nonlocal inside
        inside -= 1

    network = predictor._network()
    hooks = [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]
    pixels = random_image((1, 300, 300), np.uint8)
    threads = [threading.Thread(target=predictor.scores, args=(pixels, None)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for hook in hooks:
        hook.remove()
    assert most == 1


def test_the_number_of_threads_is_that_of_the_plan_and_given_back() -> None:
    before = torch.get_num_threads()
    with torch_threads_kept():
        Predictor.of(random_model(2), device="cpu", threads=before + 1).scores(
            random_image((1, 60, 60), np.uint8), None
        )
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
