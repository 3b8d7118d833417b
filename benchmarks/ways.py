"""Ways to segment a slide with one network, each timed from file to file on the CPU.

All read level 0 of an OME-Zarr and write classes as Zarr. Only ours writes a pyramid, metadata and
a record to go on from. Where a job gives no limits of intensities, each way finds them:
ours with its rule, the others from every eighth pixel.

``floor-float32``, ``floor-bfloat16``
    The bare forward passes of the tiles of a plan, pixels in memory and normalised already.
``ours``, ``ours-bfloat16``
    `bigunet.segment_image`.
``recipe``
    What one writes by hand: `da.from_zarr`, `map_overlap` with the network as it is in float32,
    argmax, `to_zarr`; blocks of 1,024 px, one task per core.
``monai``
    `monai.inferers.sliding_window_inference`, which wants as many scores as pixels: the network in
    a `SameSize`, windows of 512 px and a halo, whose weight is 1 inside and 0 in the halo, so that every
    pixel has one window. The slide is in memory, mirrored at its borders.
``torch-em``
    `torch_em.util.prediction.predict_with_halo_pipelined` with the same `SameSize` and blocks of
    512 px; prefetching, normalising and argmax in its own threads. The slide is in memory,
    mirrored at its borders, for torch-em's own mirror leaves out the edge pixel.
``reference``
    One pass over the whole slide, which may take a lot of memory; it is not timed beside the others.

Peers and recipe are in eager float32, as their documentation shows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from bigunet import segment_image
from bigunet.geometry import legal_output, margin
from bigunet.images.intensity import Limits, normalise
from bigunet.images.open import image_planes, open_image
from bigunet.models.predictor import Predictor
from bigunet.pipeline import plan_image
from bigunet.plan import Plan
from bigunet.tiles import mirrored
from bigunet.work import plan_predictor

__all__ = ["WAYS", "Job", "SameSize", "Spent", "differing", "missing", "project_floor"]

RECIPE_SIDE, PEER_SIDE = 1024, 512
FEW = 3
"""Passes that a floor's candidate is judged by; the first warms up."""
TOLERANCE = 1e-5
"""Of the law of exactness, relative to the largest score; see docs/exactness.md."""


class Spent:
    """Wall-clock and processor seconds, of all threads, inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        self.facts: dict[str, Any] = {}
        """What was chosen, to be told beside the figures."""

    def __enter__(self) -> Spent:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a way has to do."""

    slide: Path
    model: Any
    output: Path
    """A new folder; its array ``0`` holds the classes afterwards, but for a floor's."""
    limits: Limits | None = None
    tile: int | None = None
    """Of a floor; what is planned by default."""
    runtime: str = "auto"
    """Of a floor."""

    def pixels(self) -> np.ndarray:
        """Read the slide: (1, Y, X)."""
        (plane,) = image_planes(open_image(self.slide), 0, (0,))
        return plane.read(slice(0, plane.shape[1]), slice(0, plane.shape[2]))

    def some_limits(self, pixels: np.ndarray) -> Limits:
        """Return the limits that are given, or those of every eighth pixel."""
        if self.limits is not None:
            return self.limits
        low, high = np.percentile(pixels[..., ::8, ::8], (1, 99.8))
        return ((float(low), float(high)),)

    def write(self, classes: np.ndarray, name: str = "0") -> None:
        """Write a whole map (Y, X)."""
        chunks = (min(1024, classes.shape[0]), min(1024, classes.shape[1]))
        zarr.create_array(self.output / name, data=classes, chunks=chunks)


def run_floor(job: Job, precision: str) -> Spent:
    """Time forward passes alone: every tile of the plan, one after another."""
    plan, predictor, image = _floor(job, precision)
    predictor.forward(next(_tiles(plan, image)))
    spent = Spent()
    for tile in _tiles(plan, image):
        with spent:
            predictor.forward(tile)
    return spent


def project_floor(job: Job, precision: str) -> float:
    """Return the seconds that the floor would take, by a few passes."""
    plan, predictor, image = _floor(job, precision)
    tile, each = next(_tiles(plan, image)), []
    for _ in range(FEW):
        with Spent() as spent:
            predictor.forward(tile)
        each.append(spent.seconds)
    return float(np.median(each[1:]) * plan.tiles)


def run_ours(job: Job, precision: str) -> Spent:
    with Spent() as spent:
        done = segment_image(
            job.slide,
            job.model,
            device="cpu",
            precision=precision,
            intensity=job.limits,
            save=("classes",),
            output=job.output,
        )
    chosen = done.plan.as_dict()
    spent.facts = {name: chosen[name] for name in ("runtime", "tile", "block", "workers")}
    return spent


def run_recipe(job: Job) -> Spent:
    import dask.array as da

    before, halo = margin(job.model.depth), _symmetric_halo(RECIPE_SIDE, job.model.depth)
    with Spent() as spent:
        stored = da.from_zarr(str(job.slide / "0"))
        image = stored.reshape(stored.shape[-2:]).rechunk(RECIPE_SIDE)
        ((low, high),) = job.limits or job.some_limits(np.asarray(image[::8, ::8]))

        def classes(block: np.ndarray) -> np.ndarray:
            x = (block[halo - before :, halo - before :].astype(np.float32) - low) / (high - low)
            with torch.inference_mode():
                scores = job.model(torch.from_numpy(x.astype(np.float32))[None, None])[0]
            return scores.argmax(0).numpy().astype(np.uint8)[:RECIPE_SIDE, :RECIPE_SIDE]

        mask = da.map_overlap(
            classes,
            image,
            depth=halo,
            boundary="reflect",
            trim=False,
            allow_rechunk=False,
            chunks=image.chunks,
            meta=np.empty((0, 0), np.uint8),
        )
        mask.to_zarr(str(job.output / "0"))
    return spent


def run_monai(job: Job) -> Spent:
    from monai.inferers import sliding_window_inference

    network = SameSize(job.model, PEER_SIDE)
    halo, window = network.halo, PEER_SIDE + 2 * network.halo
    weights = torch.zeros(window, window)
    weights[halo:-halo, halo:-halo] = 1
    with Spent() as spent:
        pixels = job.pixels()
        height, width = pixels.shape[1:]
        image = normalise(_mirrored_around(pixels, halo), job.some_limits(pixels))
        with torch.inference_mode():
            scores = sliding_window_inference(
                torch.from_numpy(image)[None],
                (window, window),
                1,
                network,
                # Half a pixel less, for their step is a fraction of the window, rounded down.
                overlap=(2 * halo - 0.5) / window,
                roi_weight_map=weights,
            )
            classes = scores[0, :, halo : halo + height, halo : halo + width].argmax(0)
        job.write(classes.numpy().astype(np.uint8))
    return spent


def run_torch_em(job: Job) -> Spent:
    from torch_em.util.prediction import predict_with_halo_pipelined

    network = SameSize(job.model, PEER_SIDE)
    halo = network.halo
    with Spent() as spent:
        pixels = job.pixels()
        height, width = pixels.shape[1:]
        limits, image = job.some_limits(pixels), _mirrored_around(pixels, halo)
        classes = np.zeros(image.shape[1:], np.uint8)
        predict_with_halo_pipelined(
            image,
            network,
            gpu_ids=["cpu"],
            block_shape=(PEER_SIDE, PEER_SIDE),
            halo=(halo, halo),
            output=classes,
            preprocess=lambda block: normalise(block, limits),
            postprocess=lambda scores: scores.argmax(0).astype(np.uint8),
            with_channels=True,
            disable_tqdm=True,
            roi=tuple(slice(halo, size - halo) for size in image.shape[1:]),
        )
        job.write(classes[halo : halo + height, halo : halo + width])
    return spent


def run_reference(job: Job) -> Spent:
    """Write the classes of one pass over the whole slide, and which pixels are ties."""
    pixels, depth = job.pixels(), job.model.depth
    before, (height, width) = margin(depth), pixels.shape[1:]
    after = ((before, legal_output(size, depth) - size + before) for size in (height, width))
    image = np.pad(normalise(pixels, job.some_limits(pixels)), ((0, 0), *after), mode="symmetric")
    with Spent() as spent, torch.inference_mode():
        # As tiles have it: the memory format decides in which order is added.
        last = torch.channels_last
        x = torch.from_numpy(image)[None].contiguous(memory_format=last)
        scores = job.model.to(memory_format=last)(x)[0, :, :height, :width]
    tolerance = TOLERANCE * max(1.0, float(scores.abs().max()))
    best = scores.topk(2, dim=0).values
    job.write(scores.argmax(0).numpy().astype(np.uint8))
    job.write((best[0] - best[1] <= 2 * tolerance).numpy(), "ties")
    return spent


WAYS: dict[str, Callable[[Job], Spent]] = {
    "floor-float32": partial(run_floor, precision="float32"),
    "floor-bfloat16": partial(run_floor, precision="bfloat16"),
    "ours": partial(run_ours, precision="float32"),
    "ours-bfloat16": partial(run_ours, precision="bfloat16"),
    "recipe": run_recipe,
    "monai": run_monai,
    "torch-em": run_torch_em,
    "reference": run_reference,
}
PEERS = {"monai": "monai", "torch-em": "torch_em"}


def missing() -> dict[str, str]:
    """Return which ways cannot be gone here, and why."""
    return {way: f"{p} is not installed" for way, p in PEERS.items() if find_spec(p) is None}


def differing(found: Path, reference: Path) -> dict[str, int]:
    """Count pixels whose class is not that of the reference, those that are ties apart."""
    classes, expected, ties = (
        np.squeeze(np.asarray(zarr.open_array(folder / name, mode="r")))
        for folder, name in ((found, "0"), (reference, "0"), (reference, "ties"))
    )
    other = classes != expected
    return {
        "pixels": other.size,
        "differing": int((other & ~ties).sum()),
        "differing_ties": int((other & ties).sum()),
        "ties": int(ties.sum()),
    }


class SameSize(torch.nn.Module):
    """An unpadded network as others want one: as many scores as pixels, 0 in the halo.

    Windows have ``side + 2 * halo`` pixels. Their halo is the same on all sides, so a few of its pixels
    are dropped before the network: it has to begin exactly one margin before what it gives, or its
    pooling would see another grid than that of the whole image.
    """

    def __init__(self, network: Any, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.halo = _symmetric_halo(side, network.depth)
        self._dropped = self.halo - margin(network.depth)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        inside = slice(self.halo, self.halo + self.side)
        scores = self.network(image[..., self._dropped :, self._dropped :])
        padded = scores.new_zeros((*scores.shape[:2], *image.shape[-2:]))
        padded[..., inside, inside] = scores[..., : self.side, : self.side]
        return padded


def _symmetric_halo(side: int, depth: int) -> int:
    """Return what is needed on all sides so that a legal output of `side` pixels fits."""
    return margin(depth) + legal_output(side, depth) - side


def _mirrored_around(pixels: np.ndarray, halo: int) -> np.ndarray:
    """Mirror a slide (1, Y, X) around it: whole windows, and their halo."""
    pads = ((halo, -size % PEER_SIDE + halo) for size in pixels.shape[1:])
    return np.pad(pixels, ((0, 0), *pads), mode="symmetric")


def _floor(job: Job, precision: str) -> tuple[Plan, Predictor, np.ndarray]:
    """Return a plan, its network, and the normalised slide (1, Y, X)."""
    plan = plan_image(
        job.slide,
        job.model,
        device="cpu",
        precision=precision,
        runtime=job.runtime,
        tile=job.tile,
        output=job.output,
    )
    pixels = job.pixels()
    return plan, plan_predictor(plan, job.model), normalise(pixels, job.some_limits(pixels))


def _tiles(plan: Plan, image: np.ndarray) -> Iterator[torch.Tensor]:
    """Yield the tiles (1, 1, y, x) of a plan."""
    tiling = plan.tiling
    for block in tiling.blocks():
        for tile in tiling.tiles(block):
            cut = mirrored(image, (0, 0), tiling.tile_read(tile), tiling.shape)
            yield torch.from_numpy(np.ascontiguousarray(cut))[None]
