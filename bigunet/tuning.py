"""Measure which runtime and tile make the most output pixels a second on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bigunet.errors import DeviceMemoryError, InputError
from bigunet.geometry import pooling_grid, round_up
from bigunet.models.devices import choose_device, choose_precision, device_name
from bigunet.models.predictor import Predictor, torch_threads_kept
from bigunet.models.runtimes import usable_runtimes
from bigunet.models.unet import UNet
from bigunet.speed import Choice, activations, by_rule, network_text, store_choices, tile_input

__all__ = ["Measured", "Tuning", "tune"]

_TILES = (256, 384, 512, 768, 1024, 1536, 2048)
# A curve that is below this share of its best, twice in a row, does not come back.
_FALLEN = 0.8
_SECONDS = 0.6


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The speed of one way to run a network."""

    runtime: str
    precision: str
    tile: int
    megapixels_per_second: float
    """Output pixels of bare forward passes."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was measured of a network on a device."""

    network: str
    device: str
    measured: tuple[Measured, ...]
    rule: Choice
    """What is taken in float32 as long as nothing is stored."""
    stored: Path | None = None
    """Where the best were stored, if they were."""

    def best(self, precision: str) -> Measured:
        """Return the fastest of a precision."""
        known = [one for one in self.measured if one.precision == precision]
        return max(known, key=lambda one: one.megapixels_per_second)

    @property
    def precisions(self) -> tuple[str, ...]:
        """What was measured."""
        return tuple(dict.fromkeys(one.precision for one in self.measured))

    def lines(self) -> list[str]:
        """Return what was measured in words, for people."""
        lines = [f"{self.network}, {self.device}", "runtime   precision  tile  Mpx/s"]
        for one in self.measured:
            mark = "  <- best" if one == self.best(one.precision) else ""
            lines.append(
                f"{one.runtime:9} {one.precision:9} {one.tile:5} {one.megapixels_per_second:6.2f}{mark}"
            )
        for precision in self.precisions:
            best = self.best(precision)
            lines.append(
                f"best in {precision}: --precision {precision} --runtime {best.runtime} "
                f"--tile {best.tile}"
            )
        lines.append(f"by rule: --runtime {self.rule.runtime} --tile {self.rule.tile}")
        if self.stored is not None:
            lines.append(f"stored in {self.stored}: runs on this machine take the best from now on")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return what was measured for machines."""
        return {
            "network": self.network,
            "device": self.device,
            "measured": [asdict(one) for one in self.measured],
            "best": {precision: asdict(self.best(precision)) for precision in self.precisions},
            "rule": asdict(self.rule),
            "stored": self.stored and str(self.stored),
        }


def tune(
    model: UNet,
    *,
    device: str = "auto",
    precisions: Sequence[str] = ("float32", "bfloat16"),
    runtimes: Sequence[str] | None = None,
    tiles: Sequence[int] = _TILES,
    memory: int | None = None,
    store: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Tuning:
    """Measure how fast this machine runs a network, bare forward passes on noise.

    Parameters
    ----------
    model : UNet
        Only its architecture counts.
    device : {"auto", "cpu", "cuda", "mps"}
    precisions, runtimes : sequence of str, optional
        What is tried; all runtimes that are here by default.
    tiles : sequence of int
        Sides in output pixels, ascending. The larger ones are left out once speed has fallen.
    memory : int, optional
        Bytes that a pass may take; larger tiles are left out.
    store : bool
        Let runs on this machine take the best from now on; written to Dask's configuration.
    progress : callable, optional
        Called with the ways tried so far, and in all.

    Raises
    ------
    InputError
        The device, a runtime or a precision cannot be used.
    OutputError
        It cannot be stored.
    """
    device, _ = choose_device(device)
    precisions = [choose_precision(precision, device) for precision in precisions]
    ways = [
        (runtime, precision)
        for precision in precisions
        for runtime in (runtimes or usable_runtimes(device, precision))
    ]
    measured: list[Measured] = []
    with torch_threads_kept():
        for number, (runtime, precision) in enumerate(ways):
            if progress:
                progress(number, len(ways))
            predictor = Predictor.of(model, device=device, runtime=runtime, precision=precision)
            measured += _over_tiles(predictor, tiles, memory)
    if progress:
        progress(len(ways), len(ways))
    if not measured:
        raise InputError(f"not even a tile of {min(tiles)} px fits the memory; use another device")
    tuning = Tuning(
        network=network_text(model),
        device=device_name(device),
        measured=tuple(measured),
        rule=by_rule(model, device, "float32"),
    )
    if not store:
        return tuning
    best = {one.precision: one for one in map(tuning.best, tuning.precisions)}
    choices = {p: Choice(runtime=one.runtime, tile=one.tile) for p, one in best.items()}
    return replace(tuning, stored=store_choices(model, device, choices))


def _over_tiles(
    predictor: Predictor, tiles: Sequence[int], memory: int | None
) -> Iterator[Measured]:
    """Measure tiles one after another, as long as it may get better."""
    model, best, low = predictor.model, 0.0, 0
    for tile in tiles:
        side = round_up(tile, pooling_grid(model.depth))
        if memory is not None and activations(model, side) > memory:
            return
        try:
            seconds = _seconds(predictor, tile_input(model, side))
        except DeviceMemoryError:
            return
        speed = side**2 / seconds / 1e6
        yield Measured(
            runtime=predictor.runtime,
            precision=predictor.precision,
            tile=side,
            megapixels_per_second=speed,
        )
        best = max(best, speed)
        low = low + 1 if speed < _FALLEN * best else 0
        if low == 2:
            return


def _seconds(predictor: Predictor, side: int) -> float:
    """Return the least seconds of a pass: what disturbs only ever adds."""
    noise = torch.rand(1, predictor.model.in_channels, side, side).numpy()[0]
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < _SECONDS:
        began = time.perf_counter()
        predictor.scores(noise, None).cpu()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
