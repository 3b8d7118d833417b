"""From a plane of pixels to scores and classes, without seams.

`predict` and `segment` are the lazy form, built on `dask.array.map_overlap`.
`predict_block` is the one function behind it that cuts a block into tiles; the
pipeline feeds the same function by direct reads. Why the result does not depend
on the blocks: see `bigunet.geometry`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import torch

from bigunet.cutting import Size, changed_size, fit_tiling
from bigunet.errors import DeviceMemoryError, InputError
from bigunet.geometry import Block, Span, Tiling, mirror_indices
from bigunet.images.intensity import IntensityRule, Limits, measure_limits
from bigunet.memory import choose_batch, device_memory, smaller_tiling
from bigunet.models.devices import choose_device, choose_precision, device_bytes, device_room
from bigunet.models.predictor import Predictor
from bigunet.models.unet import UNet
from bigunet.speed import fastest

__all__ = [
    "check_dtype",
    "choose_limits",
    "given_limits",
    "mirrored",
    "overlapped",
    "predict",
    "predict_block",
    "segment",
    "time_tile",
]


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


def predict_block(
    pixels: np.ndarray,
    origin: tuple[int, int],
    block: Block,
    *,
    tiling: Tiling,
    predictor: Predictor,
    limits: Limits | None,
    kinds: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return what is asked of one block, tile by tile.

    Parameters
    ----------
    pixels : (C, y, x) array
        At least ``tiling.source(block)``; pixels of the plane itself.
    origin : (y, x)
        Place of ``pixels[:, 0, 0]`` in the plane; negative where Dask put a
        mirrored border in front.
    kinds : sequence of {"scores", "classes", "probabilities"}
        What to return: (K, y, x) float32 logits, (y, x) uint8 classes, (K, y, x)
        uint8 softmax in steps of 1/255.

    Raises
    ------
    DeviceMemoryError
        The device has no room for a single tile; names one that would fit.
    """
    tiles = list(tiling.tiles(block))
    reads = (mirrored(pixels, origin, tiling.tile_read(tile), tiling.shape) for tile in tiles)
    results: dict[str, np.ndarray] = {}
    with _fitting_tile_named(predictor, tiling):
        outputs = predictor.outputs(reads, limits, lambda scores: _finished(scores, kinds))
        for tile, parts in zip(tiles, outputs, strict=True):
            inside = tile[0].cut(block.y), tile[1].cut(block.x)
            part_of = inside[0].shift(-tile[0].start), inside[1].shift(-tile[1].start)
            place = inside[0].shift(-block.y.start), inside[1].shift(-block.x.start)
            for kind, part in zip(kinds, parts, strict=True):
                if kind not in results:
                    shape = (*part.shape[:-2], block.y.size, block.x.size)
                    results[kind] = np.empty(shape, part.dtype)
                cut = part[..., part_of[0].slice, part_of[1].slice]
                results[kind][..., place[0].slice, place[1].slice] = cut
    return results


def _finished(scores: torch.Tensor, kinds: Sequence[str]) -> list[torch.Tensor]:
    """Return what is asked of the scores (N, K, y, x) of a batch."""
    return [_KINDS[kind](scores) for kind in kinds]


def _classes(scores: torch.Tensor) -> torch.Tensor:
    """Return the class of the best score, of equal ones the first, of scores (N, K, y, x)."""
    # Torch's argmax and max take 4 to 20 times as long on a CPU: they keep indices of 8 bytes.
    best, *others = scores.unbind(1)
    classes = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number, score in enumerate(others, 1):
        torch.maximum(classes, (score > best).view(torch.uint8) * number, out=classes)
        best = torch.maximum(best, score)
    return classes


def _probabilities(scores: torch.Tensor) -> torch.Tensor:
    return scores.softmax(1).mul_(255).round_().to(torch.uint8)


_KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "scores": lambda scores: scores,
    "classes": _classes,
    "probabilities": _probabilities,
}


@contextmanager
def _fitting_tile_named(predictor: Predictor, tiling: Tiling) -> Iterator[None]:
    """Say which tile would fit, where one does not; none is taken in its stead, for bits."""

    def projected(tried: Tiling) -> int:
        averaged = predictor.augment != "none"
        return device_memory(predictor.model, tried, 1, predictor.precision, averaged=averaged)

    try:
        yield
    except DeviceMemoryError as error:
        room = device_room(predictor.device)
        fitting = smaller_tiling(tiling, projected, projected(tiling) if room is None else room)
        way_out = "use another device" if fitting is None else f"pass --tile {max(fitting.tile)}"
        raise DeviceMemoryError(f"{error}; {way_out}") from error


def mirrored(
    pixels: np.ndarray, origin: tuple[int, int], read: tuple[Span, Span], shape: tuple[int, int]
) -> np.ndarray:
    """Cut a read out of pixels (C, y, x), mirrored where it leaves the plane of ``shape``."""
    for axis in (0, 1):
        span, size, first = read[axis], shape[axis], origin[axis]
        if 0 <= span.start and span.stop <= size:
            chosen: Any = slice(span.start - first, span.stop - first)
        else:
            chosen = np.asarray(mirror_indices(span.start, span.stop, size)) - first
        pixels = pixels[:, chosen] if axis == 0 else pixels[:, :, chosen]
    return pixels


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


def time_tile(predictor: Predictor, tiling: Tiling) -> float:
    """Return the seconds that all passes over a tile of noise take; a first time warms up."""
    shape = (predictor.model.in_channels, *tiling.tile_input)
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    batch = [noise] * predictor.batch
    with _fitting_tile_named(predictor, tiling):
        for _ in range(2):
            began = time.perf_counter()
            for _ in predictor.outputs(batch, None, lambda scores: [_classes(scores)]):
                pass
    return (time.perf_counter() - began) / len(batch)


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
        limits=choose_limits(plane, model.card.intensity, intensity),
        kinds=(kind,),
    )


def choose_limits(
    plane: Any, rule: IntensityRule | None, given: Sequence[tuple[float, float]] | None
) -> Any:
    """Return what normalises a plane: given limits, those of the rule (lazy), or None."""
    if given is not None:
        return given_limits(given, plane.shape[-3])
    return None if rule is None else measure_limits(plane, rule)


def given_limits(given: Sequence[tuple[float, float]], channels: int) -> Limits:
    """Return a caller's limits, one pair per channel; a single pair is for all.

    Raises
    ------
    InputError
        The limits do not fit the channels, or are no interval.
    """
    limits = tuple((float(lo), float(hi)) for lo, hi in given)
    if len(limits) == 1:
        limits *= channels
    if len(limits) != channels:
        raise InputError(f"{len(limits)} intensity limits for {channels} channels; give one or all")
    for lo, hi in limits:
        if not lo < hi:
            raise InputError(f"intensity limits {lo:g},{hi:g} are no interval; give LO < HI")
    return limits


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse what is no grey value.

    Raises
    ------
    InputError
        The type is complex, boolean or no number.
    """
    if dtype.kind not in "iuf":
        raise InputError(f"pixels of type {dtype} cannot be segmented; give integers or floats")


def _as_plane(array: Any, model: UNet) -> da.Array:
    """Return the input as (C, Y, X) dask array that fits the model."""
    plane = array if isinstance(array, da.Array) else da.asarray(array)
    check_dtype(plane.dtype)
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
