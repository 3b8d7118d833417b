"""A network made ready to predict: on a device, at a precision, in eval mode.

`Predictor` is what travels to workers. Each process keeps one copy of the
network per digest on its device and runs one forward pass at a time with all
of torch's threads, so that memory does not grow with the number of tasks.
"""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from bigunet.errors import InputError
from bigunet.images.intensity import Limits
from bigunet.models.checkpoint import model_digest
from bigunet.models.symmetries import check_augment, log_mean_probabilities
from bigunet.models.unet import UNet

__all__ = [
    "Device",
    "Precision",
    "Predictor",
    "choose_device",
    "choose_precision",
    "torch_threads_kept",
]

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# torch has no arithmetic for the other unsigned types; float32 holds what a network sees.
_CAST_ON_DEVICE = frozenset({"uint8", "int8", "int16", "float32"})

_NETWORKS_KEPT = 2
_networks: dict[tuple[str, str], UNet] = {}
_networks_lock = threading.Lock()
_forward_lock = threading.Lock()


def choose_device(wanted: str = "auto") -> tuple[str, str | None]:
    """Return the device to use and, if there is one to give, a warning.

    Raises
    ------
    InputError
        The device is unknown, or torch cannot use it.
    """
    name = wanted.split(":")[0]
    if name not in get_args(Device):
        raise InputError(f"device '{wanted}' is unknown; choose one of {', '.join(_choices())}")
    if name == "auto":
        found = next((d for d in ("cuda", "mps") if _usable(d)), "cpu")
        hint = _unused_gpu() if found == "cpu" else None
        return found, hint and f"warning: {hint}"
    if not _usable(name):
        hint = _unused_gpu() or "no such device is visible"
        raise InputError(f"device '{wanted}' cannot be used: {hint}; or pass --device cpu")
    return wanted, None


def choose_precision(wanted: str, device: str) -> str:
    """Return the precision to use; ``auto`` is float32 on every device.

    Raises
    ------
    InputError
        The precision is unknown, or the device does not have it.
    """
    if wanted == "auto":
        return "float32"
    if wanted not in _DTYPES:
        raise InputError(f"precision '{wanted}' is unknown; choose auto, {', '.join(_DTYPES)}")
    if device.startswith("mps") and wanted == "bfloat16":
        raise InputError("precision 'bfloat16' is not to be had on mps; use float32 or float16")
    return wanted


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A network, a device and a precision: everything that scores depend on.

    Parameters
    ----------
    model : UNet
        A copy of its own on the CPU, in eval mode.
    device : str
        Where torch runs it.
    precision : str
        ``float32``, or the type of autocast.
    digest : str
        Of architecture and weights; names the network in caches and graphs.
    threads : int, optional
        Of torch on the CPU; what the process has set by default.
    augment : str
        ``none``, or ``d4``: the mean over the eight symmetries of the square.
    """

    model: UNet
    device: str
    precision: str
    digest: str
    threads: int | None = None
    augment: str = "none"

    @classmethod
    def of(
        cls,
        model: UNet,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        augment: str = "none",
    ) -> Predictor:
        """Copy a model and make it ready; the model itself is left as it is."""
        device, _ = choose_device(device)
        own = copy.deepcopy(model).to("cpu").eval().requires_grad_(False)
        # torch's annotations do not know this form of `Module.to`.
        own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            model=own,
            device=device,
            precision=choose_precision(precision, device),
            digest=model_digest(own),
            threads=threads,
            augment=check_augment(augment),
        )

    def scores(self, pixels: np.ndarray, limits: Limits | None) -> torch.Tensor:
        """Run one forward pass, or the eight of an average.

        Parameters
        ----------
        pixels : (C, Y, X) array
            A tile with its margin, of any real type.
        limits : sequence of (lo, hi) or None
            Per channel, mapped to 0 … 1; None leaves the values as they are.

        Returns
        -------
        (K, Y − 2·margin, X − 2·margin) float32 tensor on the device
            Logits; the log of the mean probabilities of an average.
        """
        with torch.inference_mode(), _forward_lock, _arithmetic(self.precision, self.device):
            if self.threads and torch.get_num_threads() != self.threads:
                torch.set_num_threads(self.threads)
            image = _normalise(_to_device(pixels, self.device), limits)
            if self.augment == "none":
                return self._forward(image)
            return log_mean_probabilities(self._forward, image)

    def _forward(self, image: torch.Tensor) -> torch.Tensor:
        image = image.contiguous(memory_format=torch.channels_last)
        scores: torch.Tensor = self._network()(image)
        return scores[0].float()

    def _network(self) -> UNet:
        key = (self.digest, self.device)
        with _networks_lock:
            if key not in _networks:
                while len(_networks) >= _NETWORKS_KEPT:
                    _networks.pop(next(iter(_networks)))
                on_cpu = self.device == "cpu"
                _networks[key] = self.model if on_cpu else copy.deepcopy(self.model).to(self.device)
            return _networks[key]

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return ("bigunet.Predictor", self.digest, self.device, self.precision, self.augment)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Leave torch's number of threads as it was found."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _choices() -> tuple[str, ...]:
    return get_args(Device)


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


def _to_device(pixels: np.ndarray, device: str) -> torch.Tensor:
    """Send a tile in its own type where torch can, as (1, C, Y, X) float32 on the device."""
    if pixels.dtype.name not in _CAST_ON_DEVICE or not pixels.dtype.isnative:
        pixels = pixels.astype(np.float32)
    # torch warns of arrays that it may not write to, such as memory maps.
    tile = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return tile.to(device, non_blocking=True).to(torch.float32)[None]


def _normalise(image: torch.Tensor, limits: Limits | None) -> torch.Tensor:
    """Map the limits of each channel to 0 … 1; pixels that are no number become 0."""
    if limits is not None:
        low = image.new_tensor([lo for lo, _ in limits])[:, None, None]
        high = image.new_tensor([hi for _, hi in limits])[:, None, None]
        image = (image - low) / (high - low)
    return torch.nan_to_num_(image, nan=0.0, posinf=0.0, neginf=0.0)


@contextmanager
def _arithmetic(precision: str, device: str) -> Iterator[None]:
    """Hold torch to a precision: autocast below float32, no TF32 in float32."""
    kind = device.split(":")[0]
    with ExitStack() as stack:
        if precision != "float32":
            stack.enter_context(torch.autocast(kind, dtype=_DTYPES[precision]))
        if kind == "cuda":
            # A timed choice of algorithm would make bits depend on how busy the device is.
            flags = torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            )
            stack.enter_context(flags)
        yield
