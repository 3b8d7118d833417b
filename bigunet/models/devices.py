"""Where torch can run: the devices that this process sees, and the precisions they have."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from bigunet.errors import InputError

__all__ = [
    "Device",
    "Precision",
    "choose_device",
    "choose_precision",
    "computes_bfloat16",
    "device_bytes",
    "device_name",
    "device_room",
    "empty_cache",
    "library_bytes",
    "precision_warning",
    "visible_gpus",
]

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

_BFLOAT16 = ("amx_bf16", "avx512_bf16")
"""Instructions of processors; ARM's are not among them, for nobody has measured what they give."""


def choose_device(wanted: str = "auto") -> tuple[str, str | None]:
    """Return the device to use and, if there is one to give, a warning.

    Raises
    ------
    InputError
        The device is unknown, or torch cannot use it.
    """
    name = wanted.split(":")[0]
    if name not in get_args(Device):
        raise InputError(
            f"device '{wanted}' is unknown; choose one of {', '.join(get_args(Device))}"
        )
    if name == "auto":
        found = next((d for d in ("cuda", "mps") if _usable(d)), "cpu")
        hint = _unused_gpu() if found == "cpu" else None
        return found, hint and f"warning: {hint}"
    if not _usable(name):
        hint = _unused_gpu() or "no such device is visible"
        raise InputError(f"device '{wanted}' cannot be used: {hint}; or pass --device cpu")
    return wanted, None


def choose_precision(wanted: str, device: str, *, bfloat16: bool | None = None) -> str:
    """Return the precision to use; ``auto`` is bfloat16 on CUDA devices that compute with it, else float32.

    Parameters
    ----------
    bfloat16 : bool, optional
        Whether the device computes with it, where it is not one of this machine.

    Raises
    ------
    InputError
        The precision is unknown, or the device does not have it.
    """
    if wanted not in get_args(Precision):
        raise InputError(
            f"precision '{wanted}' is unknown; choose one of {', '.join(get_args(Precision))}"
        )
    if wanted == "auto":
        native = computes_bfloat16(device) if bfloat16 is None else bfloat16
        return "bfloat16" if native and device.startswith("cuda") else "float32"
    if device.startswith("mps") and wanted == "bfloat16":
        raise InputError("precision 'bfloat16' is not to be had on mps; use float32 or float16")
    return wanted


def precision_warning(precision: str, device: str, *, bfloat16: bool) -> str | None:
    """Return what to say of a precision that takes a device longer than float32 does.

    Parameters
    ----------
    bfloat16 : bool
        Whether the device computes with it.
    """
    # Hardly a processor has units for float16: 58 times the time of float32 was measured.
    slow = {"float16": device == "cpu", "bfloat16": not bfloat16}
    if not slow.get(precision, False):
        return None
    return (
        f"{precision} takes several times as long as float32 on a {device.split(':')[0]} "
        f"without units for it; use precision float32"
    )


def computes_bfloat16(device: str) -> bool:
    """Tell whether a device of this machine has units for bfloat16.

    CUDA devices have since Ampere, processors of servers since Sapphire Rapids and Zen 4, few of
    laptops. Others do it in float32, with conversions: 2.6 to 3.6 times the time of float32 was
    measured in segmenting, 2.9 to 3.2 times in training.
    """
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older torch does not tell.
    tell: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return device == "cpu" and any(tell().get(name, False) for name in _BFLOAT16)


def visible_gpus() -> int:
    """Return how many CUDA devices this process sees."""
    return torch.cuda.device_count()


def device_bytes(device: str) -> int | None:
    """Return the memory of a CUDA device, used or not; None for others, which run single tiles."""
    if not device.startswith("cuda"):
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def device_name(device: str) -> str:
    """Return what a device is called by who made it."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    found = platform.processor() or platform.machine()
    if device == "cpu" and (known := Path("/proc/cpuinfo")).exists():
        lines = known.read_text(encoding="utf-8", errors="replace").splitlines()
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return next(names, found)
    return found


def device_room(device: str) -> int | None:
    """Return the bytes of a GPU that this process has or could have now; None for the CPU."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device))
    if device.startswith("mps"):
        return int(torch.mps.recommended_max_memory())
    return None


def library_bytes() -> int:
    """Return what a build of torch for GPUs takes in every process beyond one for CPUs.

    Its libraries are loaded with torch, whether there is a GPU or not (measured: 262 MB of torch
    2.11 for CUDA 13).
    """
    return 280 * 2**20 if torch.version.cuda or torch.version.hip else 0


def empty_cache(device: str) -> None:
    """Give back what torch holds on to for later."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device.startswith("mps"):
        torch.mps.empty_cache()


def _usable(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_available()
    if device == "mps":
        return torch.backends.mps.is_available()
    return True


def _unused_gpu() -> str | None:
    """Say what helps where a graphics card is present that this torch cannot use."""
    if shutil.which("nvidia-smi") is None:
        return None
    if torch.version.cuda is None:
        return "an NVIDIA driver is here but this torch is a CPU build; install torch with CUDA"
    return (
        f"an NVIDIA driver is here but torch cannot use a GPU; torch was built for "
        f"CUDA {torch.version.cuda}, so update the driver or check CUDA_VISIBLE_DEVICES"
    )
