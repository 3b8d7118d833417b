"""From a plane of pixels to scores and classes, without seams.

`predict` and `segment` are the lazy form, built on `dask.array.map_overlap`. Blocks are
predicted by `bigunet.tiles`; the pipeline feeds the same function by direct reads.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

from bigunet.cutting import Size, changed_size, fit_tiling
from bigunet.errors import InputError
from bigunet.geometry import Tiling
from bigunet.images.intensity import IntensityRule, Limits, given_limits, measure_limits
from bigunet.memory import choose_batch
from bigunet.models.devices import (
    choose_device,
    choose_precision,
    computes_bfloat16,
    device_bytes,
    precision_warning,
)
from bigunet.models.predictor import Predictor
from bigunet.models.unet import UNet
from bigunet.speed import fastest
from bigunet.tiles import predict_block

__all__ = ["overlapped", "predict", "segment"]


def predict(
    array: Any,
    model: UNet,
    *,
    block: Size | None = None,
    tile: Size | None = None,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    augment: str = "none",
    intensity: Sequence[tuple[float, float]] | None = None,
) -> da.Array:
    """Return the class scores of a plane, as if the whole plane were one input.

    Scores agree with one forward pass over the whole plane, mirrored at its
    borders, within ``1e-5 · max(1, largest |score|)`` in float32. They are
    bit-identical for any chunks, blocks, workers and order as long as tile, runtime,
    precision, kind of device and processor, threads per worker and, on CUDA, tiles in a pass
    (see `bigunet.memory.choose_batch`) are the same.

    Parameters
    ----------
    array : (Y, X) or (C, Y, X) dask or NumPy array
        Pixels of any real type.
    model : UNet
        The network; one that was loaded from a file normalises as the file says.
    block : int or (y, x), optional
        Pixels per Dask task; rounded up to whole tiles and to the halo.
    tile : int or (y, x), optional
        Output pixels per forward pass; rounded up to ``2**depth``.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the network runs.
    runtime : {"auto", "eager", "compile", "openvino"}
        What runs its arithmetic: torch as it is, torch compiled, or OpenVINO; ``auto`` is
        OpenVINO on a CPU where that is installed, else torch.
    precision : {"auto", "float32", "bfloat16", "float16"}
        Arithmetic of the network; ``auto`` is bfloat16 on a CUDA device that has units for it,
        else float32.
    augment : {"none", "d4"}
        ``d4`` averages the probabilities over the eight symmetries of the square
        (the paper averaged seven rotations), at eight times the work; see
        `bigunet.models.symmetries` for why this makes no seams either.
    intensity : sequence of (lo, hi), optional
        Limits per channel that are mapped to 0 … 1, instead of the model's rule.

    Returns
    -------
    (K, Y, X) float32 dask array
        Logits, before softmax; with ``d4`` the log of the mean probabilities, whose
        softmax is that mean. Nothing is computed yet.

    Raises
    ------
    InputError
        The array does not fit the model, or an option cannot be used.
    """
    return _lazy(
        "scores", array, model, block, tile, device, runtime, precision, augment, intensity
    )


def segment(
    array: Any,
    model: UNet,
    *,
    block: Size | None = None,
    tile: Size | None = None,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    augment: str = "none",
    intensity: Sequence[tuple[float, float]] | None = None,
) -> da.Array:
    """Return the class of every pixel of a plane: the best score of `predict`.

    Parameters are those of `predict`; ties go to the lower class.

    Returns
    -------
    (Y, X) uint8 dask array
    """
    layers = _lazy(
        "classes", array, model, block, tile, device, runtime, precision, augment, intensity
    )
    classes: da.Array = layers[0]
    return classes


@dataclass(frozen=True, kw_only=True)
class _OverlapBlock:
    """What map_overlap calls on each block with its halo."""

    tiling: Tiling
    predictor: Predictor
    kinds: tuple[str, ...]

    def __call__(
        self, pixels: np.ndarray, *, limits: Limits | None, block_id: tuple[int, ...]
    ) -> np.ndarray:
        block = self.tiling.block_at((block_id[-2], block_id[-1]))
        halo_y, halo_x = self.tiling.halo
        done = predict_block(
            pixels,
            (block.y.start - halo_y, block.x.start - halo_x),
            block,
            tiling=self.tiling,
            predictor=self.predictor,
            limits=limits,
            kinds=self.kinds,
        )
        layers = [done[kind].reshape(-1, block.y.size, block.x.size) for kind in self.kinds]
        return layers[0] if len(layers) == 1 else np.concatenate(layers)


def overlapped(
    plane: da.Array,
    *,
    tiling: Tiling,
    predictor: Predictor,
    limits: Any,
    kinds: tuple[str, ...],
) -> da.Array:
    """Return what is asked of a plane (C, Y, X), layer upon layer, by map_overlap.

    Returns
    -------
    (N, Y, X) dask array, one chunk per block
        The layers of all ``kinds``: K of scores or probabilities, one of classes.
    """
    layers = sum(1 if kind == "classes" else predictor.model.classes for kind in kinds)
    dtype = np.float32 if "scores" in kinds else np.uint8
    result: da.Array = da.map_overlap(
        _OverlapBlock(tiling=tiling, predictor=predictor, kinds=kinds),
        plane.rechunk((plane.shape[0], *tiling.chunks)),
        depth=(0, *tiling.halo),
        boundary="reflect",
        trim=False,
        # A chunk that Dask widens would leave the pooling grid.
        allow_rechunk=False,
        limits=limits,
        chunks=((layers,), *tiling.chunks),
        token=f"bigunet-{'-'.join(kinds)}",
        meta=np.empty((0, 0, 0), dtype),
    )
    return result


def _lazy(
    kind: str,
    array: Any,
    model: UNet,
    block: Size | None,
    tile: Size | None,
    device: str,
    runtime: str,
    precision: str,
    augment: str,
    intensity: Sequence[tuple[float, float]] | None,
) -> da.Array:
    plane = _as_plane(array, model)
    device, _ = choose_device(device)
    precision, averaged = choose_precision(precision, device), augment != "none"
    _say_slow(precision, device)
    choice = fastest(model, device, precision, runtime)
    tiling = fit_tiling(
        (plane.shape[1], plane.shape[2]),
        model.depth,
        tile=tile,
        block=block,
        target_tile=choice.tile,
    )
    _say_changed("block", block, tiling.block, tiling)
    _say_changed("tile", tile, tiling.tile, tiling)
    return overlapped(
        plane,
        tiling=tiling,
        predictor=Predictor.of(
            model,
            device=device,
            runtime=choice.runtime,
            precision=precision,
            augment=augment,
            batch=choose_batch(model, tiling, device_bytes(device), precision, averaged=averaged),
        ),
        limits=_choose_limits(plane, model.card.intensity, intensity),
        kinds=(kind,),
    )


def _choose_limits(
    plane: Any, rule: IntensityRule | None, given: Sequence[tuple[float, float]] | None
) -> Any:
    """Return what normalises a plane: given limits, those of the rule (lazy), or None."""
    if given is not None:
        return given_limits(given, plane.shape[-3])
    return None if rule is None else measure_limits(plane, rule)


def _check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse what is no grey value."""
    if dtype.kind not in "iuf":
        raise InputError(f"pixels of type {dtype} cannot be segmented; give integers or floats")


def _as_plane(array: Any, model: UNet) -> da.Array:
    """Return the input as (C, Y, X) dask array that fits the model."""
    plane = array if isinstance(array, da.Array) else da.asarray(array)
    _check_dtype(plane.dtype)
    if plane.ndim not in (2, 3):
        raise InputError(f"array has shape {plane.shape}; give (Y, X) or (C, Y, X)")
    plane = plane[None] if plane.ndim == 2 else plane
    if 0 in plane.shape:
        raise InputError(f"array has shape {plane.shape}; an axis without pixels has no result")
    if plane.shape[0] != model.in_channels:
        raise InputError(
            f"array has {plane.shape[0]} channels but the model takes {model.in_channels}; "
            f"choose channels, for example array[[0]]"
        )
    return plane


def _say_changed(name: str, asked: Size | None, used: tuple[int, int], tiling: Tiling) -> None:
    if asked is not None and changed_size(asked, used, tiling):
        message = f"{name} {asked} became {used}: whole tiles on the grid, at least the halo"
        warnings.warn(message, UserWarning, stacklevel=4)


def _say_slow(precision: str, device: str) -> None:
    said = precision_warning(precision, device, bfloat16=computes_bfloat16(device))
    if said is not None:
        warnings.warn(said, UserWarning, stacklevel=4)
