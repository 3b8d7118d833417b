"""The U-Net as a graph of OpenVINO's operations.

OpenVINO's own converter traces the network with what torch has deprecated, in seconds and with
warnings; this takes milliseconds, and tests compare it with `UNet.forward` step by step.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import openvino
import torch
from openvino import opset15 as ops

from bigunet.models.unet import UNet, skip_crop

__all__ = ["OpenVinoUNet"]

Node: TypeAlias = Any
"""What an operation gives; OpenVINO's functions have no annotations."""

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoUNet:
    """Runs a U-Net with OpenVINO on the CPU; see `bigunet.models.runtimes.Network`.

    A graph is compiled for the shape of images, which is one for a run, and for the number of
    threads that torch has. Only the last is kept: each holds on to its activations.

    Parameters
    ----------
    model : UNet
        On the CPU.
    precision : {"float32", "bfloat16"}
        Of its arithmetic; a processor without units for bfloat16 takes longer with it.
    """

    def __init__(self, model: UNet, precision: str) -> None:
        self._model, self._precision = model, precision
        self._key: tuple[int, ...] = ()
        self._request: Any = None

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores (N, K, y, x) of images (N, C, Y, X); not for two threads at a time."""
        key = (torch.get_num_threads(), *image.shape)
        if key != self._key:
            # Before another is made: two would not have to fit the memory.
            self._key, self._request = (), None
            self._request = self._compile(*key)
            self._key = key
        (scores,) = self._request.infer([image.contiguous().numpy()], share_inputs=True).values()
        return torch.from_numpy(scores)

    def _compile(self, threads: int, *shape: int) -> Any:
        compiled = _core().compile_model(
            _graph(self._model, shape),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _PRECISIONS[self._precision],
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                # Else two processes run on the same cores, and readers cannot make way.
                "ENABLE_CPU_PINNING": False,
            },
        )
        return compiled.create_infer_request()


@cache
def _core() -> Any:
    return openvino.Core()


def _graph(model: UNet, shape: Iterable[int]) -> openvino.Model:
    """Write `UNet.forward` as a graph for images of one shape (N, C, Y, X)."""
    image = ops.parameter(list(shape), np.float32, name="image")
    x, skips = image, []
    for level, convolutions in enumerate(model.contract):
        if level:
            pooled = ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2])
            x = pooled.output(0)
        x = _two_convolutions(x, convolutions)
        skips.append(x)
    x = skips.pop()
    for up, convolutions in zip(reversed(model.up), reversed(model.expand), strict=True):
        x = _up_convolution(x, up)
        x = ops.concat([_centre(skips.pop(), _size(x)), x], axis=1)
        x = _two_convolutions(x, convolutions)
    return openvino.Model([_convolution(x, model.head)], [image], "U-Net")


def _two_convolutions(x: Node, layers: Any) -> Node:
    first, _, second, _ = layers
    return ops.relu(_convolution(ops.relu(_convolution(x, first)), second))


def _convolution(x: Node, layer: Any) -> Node:
    weight = layer.weight.numpy()
    return _biased(ops.convolution(x, weight, [1, 1], [0, 0], [0, 0], [1, 1]), layer)


def _up_convolution(x: Node, layer: Any) -> Node:
    none, one, two = [0, 0], [1, 1], [2, 2]
    weight = layer.weight.numpy()
    up = ops.convolution_backprop_data(
        x, weight, two, pads_begin=none, pads_end=none, dilations=one
    )
    return _biased(up, layer)


def _biased(x: Node, layer: Any) -> Node:
    return ops.add(x, layer.bias.numpy()[None, :, None, None])


def _centre(skip: Node, size: tuple[int, int]) -> Node:
    """Cut the middle of ``skip`` to a size."""
    start = np.array(skip_crop(_size(skip), size))
    return ops.slice(skip, start, start + size, np.array([1, 1]), np.array([2, 3]))


def _size(x: Node) -> tuple[int, int]:
    _, _, y, cols = x.output(0).shape
    return int(y), int(cols)
