"""What runs a network's arithmetic: torch as it is, torch compiled, or OpenVINO.

All have one interface, `Network`: from normalised images on the device to scores there. Which one
is taken follows from what is asked and installed, never from a timed trial: runtimes differ
in the last bits, and bits must not depend on how busy a machine was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

import torch

from bigunet.errors import InputError
from bigunet.models.unet import UNet

__all__ = ["Network", "Runtime", "TorchUNet", "choose_runtime", "open_network", "usable_runtimes"]

Runtime = Literal["auto", "eager", "compile", "openvino"]

Network: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From float32 images (N, C, Y, X) to float32 scores (N, K, y, x), both on the device."""

# What OpenVINO computes with where it is asked to; it takes bfloat16 for float16 without a word.
_OPENVINO_PRECISIONS = ("float32", "bfloat16")


def choose_runtime(wanted: str, device: str, precision: str) -> str:
    """Return the runtime to use; ``auto`` is OpenVINO on a CPU where it is installed, else torch.

    Raises
    ------
    InputError
        The runtime is unknown, not installed, or has not this device or precision.
    """
    if wanted not in get_args(Runtime):
        raise InputError(
            f"runtime '{wanted}' is unknown; choose one of {', '.join(get_args(Runtime))}"
        )
    if wanted == "auto":
        return _by_rule(device, precision)
    if wanted == "openvino" and not _able(device, precision):
        raise InputError(
            f"runtime 'openvino' runs on the CPU, in {' or '.join(_OPENVINO_PRECISIONS)}, not on "
            f"{device} in {precision}; use --runtime eager"
        )
    if wanted == "openvino" and not _installed():
        raise InputError(
            "runtime 'openvino' is not installed: pip install 'bigunet[openvino]'; "
            "or use --runtime eager"
        )
    return wanted


def usable_runtimes(device: str, precision: str) -> tuple[str, ...]:
    """Return what can be tried on a device; compiling pays on GPUs only, and takes its time."""
    other = ("compile",) if device.startswith("cuda") else ()
    if choose_runtime("auto", device, precision) == "openvino":
        other = ("openvino",)
    return ("eager", *other)


def open_network(model: UNet, runtime: str, device: str, precision: str) -> Network:
    """Bring a network to a device and make it ready to run there.

    Parameters
    ----------
    model : UNet
        On the CPU, in eval mode; it is left as it is.
    runtime, device, precision : str
        As chosen, none of them ``auto``.
    """
    if runtime == "openvino":
        from bigunet.models.openvino_unet import OpenVinoUNet

        return OpenVinoUNet(model, precision)
    return TorchUNet(model, device, precision, compiled=runtime == "compile")


class TorchUNet:
    """Runs a U-Net with torch, channels last; see `Network`."""

    def __init__(self, model: UNet, device: str, precision: str, *, compiled: bool = False) -> None:
        self.module = model if device == "cpu" else copy.deepcopy(model).to(device)
        # Tiles of a run have one shape, for which the code is made.
        self._run = torch.compile(self.module, dynamic=False) if compiled else self.module
        self._device, self._precision = device, precision

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores (N, K, y, x) of images (N, C, Y, X)."""
        with _arithmetic(self._precision, self._device):
            scores: torch.Tensor = self._run(image.contiguous(memory_format=torch.channels_last))
        return scores.float()


def _by_rule(device: str, precision: str) -> str:
    return "openvino" if _able(device, precision) and _installed() else "eager"


def _able(device: str, precision: str) -> bool:
    """Tell whether OpenVINO would do what is asked."""
    return device == "cpu" and precision in _OPENVINO_PRECISIONS


def _installed() -> bool:
    return find_spec("openvino") is not None


@contextmanager
def _arithmetic(precision: str, device: str) -> Iterator[None]:
    """Hold torch to a precision: autocast below float32, no TF32 in float32."""
    kind = device.split(":")[0]
    with ExitStack() as stack:
        if precision != "float32":
            stack.enter_context(torch.autocast(kind, dtype=getattr(torch, precision)))
        if kind == "cuda":
            # A timed choice of algorithm would make bits depend on how busy the device is.
            flags = torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            )
            stack.enter_context(flags)
        yield
