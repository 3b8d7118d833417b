"""A network made ready to predict: on a device, in a runtime, at a precision, in eval mode.

`Predictor` is what travels to workers. Each process keeps one copy of the
network per digest on its device and runs one forward pass at a time with all
of torch's threads, so that memory does not grow with the number of tasks. What
a thread does before and after a pass does not wait for those of others.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch

from bigunet.errors import DeviceMemoryError
from bigunet.images.intensity import Limits
from bigunet.models.checkpoint import model_digest
from bigunet.models.devices import choose_device, choose_precision, device_room, empty_cache
from bigunet.models.runtimes import Network, choose_runtime, open_network
from bigunet.models.symmetries import check_augment, log_mean_probabilities
from bigunet.models.transfers import Results, as_tensor, open_transfers
from bigunet.models.unet import UNet

__all__ = ["Predictor", "torch_threads_kept"]

# What torch and its libraries say when memory is full; some of it has no type of its own.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|bad_alloc|_ALLOC_FAILED|Invalid buffer size"
    # torch's, where no algorithm of cuDNN's finds room for its workspace.
    r"|unable to find an engine"
    # oneDNN's, of the CPU; its other failures name a descriptor.
    r"|could not create a primitive$"
    # OpenVINO's.
    r"|Failed to allocate \d+ bytes"
)

_NETWORKS_KEPT = 2
_networks: dict[tuple[str, ...], Network] = {}
_networks_here: WeakValueDictionary[str, UNet] = WeakValueDictionary()
_networks_lock = threading.Lock()
_forward_lock = threading.Lock()
# Of predictors that once met a full device: the tiles that a pass has had since.
_reduced: dict[tuple[str | int, ...], int] = {}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A network, a device, a runtime and a precision: everything that scores depend on.

    Parameters
    ----------
    model : UNet
        A copy of its own on the CPU, in eval mode; one for a digest in each process.
    device : str
        Where torch runs it.
    runtime : str
        What runs the arithmetic; see `bigunet.models.runtimes`.
    precision : str
        ``float32``, ``bfloat16`` or ``float16``.
    digest : str
        Of architecture and weights; names the network in caches and graphs.
    threads : int, optional
        Of torch on the CPU; what the process has set by default.
    augment : str
        ``none``, or ``d4``: the mean over the eight symmetries of the square.
    batch : int
        Tiles in a pass on CUDA; 1 elsewhere. Other batches may give other bits there,
        for cuDNN may choose other algorithms, so every pass has this many, filled up if need
        be. Only where the device turns out to be full does the process go on with half of
        them (see `fitting_batch`): the law of exactness holds as ever, equal bits are no
        longer promised.
    """

    model: UNet
    device: str
    runtime: str
    precision: str
    digest: str
    threads: int | None = None
    augment: str = "none"
    batch: int = 1

    @classmethod
    def of(
        cls,
        model: UNet,
        *,
        device: str = "auto",
        runtime: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        augment: str = "none",
        batch: int = 1,
    ) -> Predictor:
        """Copy a model and make it ready; the model itself is left as it is.

        A device that is named need not be here, but where it is going to run.
        """
        device = choose_device()[0] if device == "auto" else device
        precision = choose_precision(precision, device)
        own = copy.deepcopy(model).to("cpu").eval().requires_grad_(False)
        # torch's annotations do not know this form of `Module.to`.
        own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        digest = model_digest(own)
        return cls(
            model=_one_for_all(digest, own),
            device=device,
            runtime=choose_runtime(runtime, device, precision),
            precision=precision,
            digest=digest,
            threads=threads,
            augment=check_augment(augment),
            batch=batch,
        )

    @property
    def fitting_batch(self) -> int:
        """Tiles in a pass in this process: `batch`, or less since the device was full."""
        return _reduced.get(self.__dask_tokenize__(), self.batch)

    def scores(self, pixels: np.ndarray, limits: Limits | None) -> torch.Tensor:
        """Run one forward pass, or the eight of an average, for one tile.

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

        Raises
        ------
        DeviceMemoryError
            The device has no room for it.
        """
        (scores,) = self._run(as_tensor(pixels)[None], limits, lambda scores: scores[0])
        return scores

    def outputs(
        self,
        tiles: Iterable[np.ndarray],
        limits: Limits | None,
        finish: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    ) -> Results:
        """Yield what is made of the scores of each tile, in order.

        Tiles are taken when their turn comes, a batch at a time; on CUDA the next is taken and
        sent while the device has the last.

        Parameters
        ----------
        tiles : iterable of (C, Y, X) array
            With their margins, of one shape and type.
        limits : sequence of (lo, hi) or None
            As for `scores`.
        finish : callable
            From scores (N, K, y, x) on the device to tensors (N, …) there.

        Yields
        ------
        tuple of array
            For each tile what `finish` made of it.

        Raises
        ------
        DeviceMemoryError
            The device has no room for a single tile.
        """
        transfers = open_transfers(self.device)

        def run(batch: torch.Tensor) -> list[Results]:
            return self._run(batch, limits, lambda scores: transfers.fetch(finish(scores)))

        return transfers.stream(tiles, self.batch, run)

    def _run(
        self, tiles: torch.Tensor, limits: Limits | None, finish: Callable[[torch.Tensor], T]
    ) -> list[T]:
        """Return what is made of tiles (N, C, Y, X), or of its parts where memory asks for them."""
        made: list[T] = []
        start = 0
        while start < len(tiles):
            part = tiles[start : start + self.fitting_batch]
            try:
                made.append(self._pass(part, limits, finish))
                start += len(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise DeviceMemoryError(_no_room(part, self.device)) from error
            # Not before the error is gone: its frames hold on to what the pass had made.
            self._reduce(len(part) // 2)
        return made

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the bare network makes of images that are normalised and on the device.

        Parameters
        ----------
        image : (N, C, Y, X) float32 tensor

        Returns
        -------
        (N, K, Y − 2·margin, X − 2·margin) float32 tensor
            Logits.
        """
        with self._alone():
            return self._network()(image)

    def _pass(
        self, tiles: torch.Tensor, limits: Limits | None, finish: Callable[[torch.Tensor], T]
    ) -> T:
        with self._alone():
            sent = open_transfers(self.device).send(tiles)
            image = _normalise(sent.to(torch.float32), limits)
            network = self._network()
            if self.augment == "none":
                return finish(network(image))
            return finish(log_mean_probabilities(network, image))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads from the network, and let torch have the threads of this one."""
        with torch.inference_mode(), _forward_lock:
            if self.threads and torch.get_num_threads() != self.threads:
                torch.set_num_threads(self.threads)
            yield

    def _reduce(self, batch: int) -> None:
        """Go on with fewer tiles in a pass, for the rest of the process's life."""
        with _forward_lock:
            _reduced[self.__dask_tokenize__()] = min(batch, self.fitting_batch)
            empty_cache(self.device)

    def _network(self) -> Network:
        key = (self.digest, self.runtime, self.device, self.precision)
        if key not in _networks:
            while len(_networks) >= _NETWORKS_KEPT:
                _networks.pop(next(iter(_networks)))
            _networks[key] = open_network(self.model, self.runtime, self.device, self.precision)
        return _networks[key]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A task may bring a copy of what the process has already.
        self.__dict__.update(state, model=_one_for_all(state["digest"], state["model"]))

    def __dask_tokenize__(self) -> tuple[str | int, ...]:
        settings = (self.device, self.runtime, self.precision, self.augment, self.batch)
        return ("bigunet.Predictor", self.digest, *settings)


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Leave torch's number of threads as it was found."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_for_all(digest: str, network: UNet) -> UNet:
    """Return the network of a digest that this process has on the CPU already, else this one."""
    with _networks_lock:
        return _networks_here.setdefault(digest, network)


def _out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or _OUT_OF_MEMORY.search(str(error)) is not None


def _no_room(tiles: torch.Tensor, device: str) -> str:
    (y, x), room = tiles.shape[-2:], device_room(device)
    size = "" if room is None else f" ({room / 1e9:.2f} GB to be had)"
    return f"a tile of {y} × {x} px, margins included, does not fit the memory of {device}{size}"


def _normalise(image: torch.Tensor, limits: Limits | None) -> torch.Tensor:
    """Map the limits of each channel to 0 … 1; pixels that are no number become 0."""
    if limits is not None:
        bounds = torch.tensor(limits, dtype=torch.float32)[..., None, None]
        if image.is_cuda:
            # Unpinned memory would be waited for, and with it all that was queued before.
            bounds = bounds.pin_memory()
        low, high = bounds.to(image.device, non_blocking=True).unbind(1)
        image = (image - low).div_(high - low)
        return image.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    # Not in place: where nothing had to be cast, the image is still the caller's array.
    return torch.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
