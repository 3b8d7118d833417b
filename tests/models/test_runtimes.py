"""What runs the arithmetic: one network, whatever computes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import assert_same_scores, random_image, random_model, tolerance

from bigunet import UNet
from bigunet.errors import InputError
from bigunet.geometry import input_size, legal_output
from bigunet.models import runtimes
from bigunet.models.checkpoint import load_model
from bigunet.models.predictor import Predictor
from bigunet.models.runtimes import choose_runtime, open_network

# The suite itself goes by another rule, see conftest.py.
BY_RULE = runtimes._by_rule


def installed(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(runtimes, "_installed", lambda: answer)


def test_the_rule_of_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_by_rule", BY_RULE)
    installed(monkeypatch, True)
    assert choose_runtime("auto", "cpu", "float32") == "openvino"
    assert choose_runtime("auto", "cpu", "bfloat16") == "openvino"
    assert choose_runtime("auto", "cpu", "float16") == "eager"
    assert choose_runtime("auto", "cuda:1", "float32") == "eager"
    installed(monkeypatch, False)
    assert choose_runtime("auto", "cpu", "float32") == "eager"


def test_what_cannot_run_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, False)
    with pytest.raises(InputError, match=r"pip install 'bigunet\[openvino\]'"):
        choose_runtime("openvino", "cpu", "float32")
    installed(monkeypatch, True)
    for device, precision in (("cuda", "float32"), ("cpu", "float16")):
        with pytest.raises(
            InputError, match=f"not on {device} in {precision}; use --runtime eager"
        ):
            choose_runtime("openvino", device, precision)
    with pytest.raises(InputError, match="'tensorrt' is unknown; choose one of auto, eager"):
        choose_runtime("tensorrt", "cpu", "float32")


@given(
    depth=st.integers(1, 3),
    width=st.integers(1, 9),
    channels=st.integers(1, 3),
    classes=st.integers(1, 4),
    batch=st.integers(1, 2),
    extra=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
@settings(max_examples=15)
def test_openvino_computes_the_same_network(
    depth: int, width: int, channels: int, classes: int, batch: int, extra: tuple[int, int]
) -> None:
    model = UNet(channels, classes, width=width, depth=depth).eval().requires_grad_(False)
    sides = [input_size(legal_output(1, depth) + n * 2**depth, depth) for n in extra]
    image = torch.randn(batch, channels, *sides)
    found = open_network(model, "openvino", "cpu", "float32")(image)
    expected = model(image)
    assert found.shape == expected.shape
    assert_same_scores(found.numpy(), expected.numpy(), tolerance(expected.numpy()))


# torch warns of what it uses itself when it compiles.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "runtime", ["eager", pytest.param("compile", marks=pytest.mark.slow), "openvino"]
)
def test_a_pass_gives_the_same_bits_each_time(runtime: str) -> None:
    """And what it gave stays as it is when the next one runs."""
    network = open_network(random_model(2).eval().requires_grad_(False), runtime, "cpu", "float32")
    with torch.inference_mode():
        images = torch.randn(2, 1, 1, 60, 76)
        first, kept = network(images[0]), network(images[0]).clone()
        network(images[1])
        assert torch.equal(first, kept) and torch.equal(network(images[0]), kept)
        expected = random_model(2).eval()(images[0]).numpy()
    assert_same_scores(kept.numpy(), expected, tolerance(expected))


PASS_ELSEWHERE = """
import sys
import numpy as np, torch
from bigunet.models.checkpoint import load_model
from bigunet.models.runtimes import open_network

assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
model, image, runtime, scores = sys.argv[1:]
network = open_network(load_model(model), runtime, "cpu", "float32")
with torch.inference_mode():
    np.save(scores, network(torch.from_numpy(np.load(image))).numpy())
"""


@pytest.mark.parametrize("runtime", ["eager", "openvino"])
def test_a_processor_with_fewer_instructions_obeys_the_law(tmp_path: Path, runtime: str) -> None:
    """Workers of a cluster differ, and a run may go on elsewhere; oneDNN is under both runtimes."""
    fewer = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
    model, image = load_model("nuclei"), np.random.default_rng(0).random((1, 1, 156, 156), "f4")
    np.save(tmp_path / "image.npy", image)
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)).numpy()
    given = ["nuclei", tmp_path / "image.npy", runtime, tmp_path / "scores.npy"]
    command = [sys.executable, "-c", PASS_ELSEWHERE, *map(str, given)]
    subprocess.run(command, check=True, env=os.environ | fewer)
    assert_same_scores(np.load(tmp_path / "scores.npy"), expected, tolerance(expected))


@pytest.mark.parametrize("runtime", ["eager", "openvino"])
def test_bfloat16_is_near(runtime: str) -> None:
    pixels = random_image((1, 60, 60), np.uint8)
    exact = Predictor.of(random_model(2), device="cpu", runtime="eager").scores(pixels, None)
    low = Predictor.of(random_model(2), device="cpu", runtime=runtime, precision="bfloat16")
    error = (low.scores(pixels, None) - exact).abs().max() / exact.abs().max()
    assert error < 0.05


def test_float32_means_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TF32 and no timed choice of algorithms inside, and the caller's flags outside."""
    cudnn = torch.backends.cudnn
    before = (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    with runtimes._arithmetic("float32", "cuda:0"):
        assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == (False, False, True)
    assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == before
