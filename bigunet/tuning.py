"""Which runtime and tile make the most output pixels a second: by rule, or as measured here.

The rule looks at the device and the runtime only; what `tune` measured counts once it was stored
on purpose. Nothing is timed in a run: bits depend on runtime and tile, and must not depend on
how busy a machine was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask.config
import torch
import yaml

from bigunet.errors import DeviceMemoryError, InputError
from bigunet.files import written_aside
from bigunet.geometry import input_size, legal_output, pooling_grid, round_up
from bigunet.memory import forward_bytes
from bigunet.models.devices import choose_device, choose_precision, device_name
from bigunet.models.predictor import Predictor, torch_threads_kept
from bigunet.models.runtimes import choose_runtime, usable_runtimes
from bigunet.models.unet import UNet

__all__ = ["Choice", "Measured", "Tuning", "fastest", "target_tile", "tune"]

# Torch on a CPU is fastest where a tile's activations stay near the cache. OpenVINO and GPUs lose
# less to memory than they gain from smaller halos, so there a tile is as large as its activations
# may be. GPUs were not measured.
_EAGER_TILE = 512
_LARGE_TILES = (2048, 1024)
_ACTIVATIONS = 2 * 2**30
_TILES = (256, 384, 512, 768, 1024, 1536, 2048)
# A curve that is below this share of its best, twice in a row, does not come back.
_FALLEN = 0.8
_SECONDS = 0.6
_STORED = "bigunet.tuned"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a network is run."""

    runtime: str
    tile: int
    """Output pixels along a side of a tile, about."""


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


def fastest(
    model: UNet, device: str, precision: str, runtime: str = "auto", *, here: bool = True
) -> Choice:
    """Return how a network is best run: as `tune` stored it for this machine, else by the rule.

    Parameters
    ----------
    device, precision : str
        As chosen, neither ``auto``.
    runtime : {"auto", "eager", "compile", "openvino"}
        What was asked for.
    here : bool
        Whether it runs on this machine; what was stored says nothing of others.

    Raises
    ------
    InputError
        The runtime cannot be used, or what is stored is no choice.
    """
    stored = _stored(model, device, precision) if here else None
    if stored is not None and runtime in ("auto", stored.runtime):
        choose_runtime(stored.runtime, device, precision)
        return stored
    runtime = choose_runtime(runtime, device, precision)
    return Choice(runtime=runtime, tile=target_tile(model, device, runtime))


def target_tile(model: UNet, device: str, runtime: str) -> int:
    """Return about how many pixels a tile should have along a side, by the rule.

    512 for torch on a CPU; else 2,048 or 1,024, the larger one whose activations in float32 take
    no more than 2 GiB, or 512.
    """
    if device == "cpu" and runtime != "openvino":
        return _EAGER_TILE
    fitting = (tile for tile in _LARGE_TILES if _activations(model, tile) <= _ACTIVATIONS)
    return next(fitting, _EAGER_TILE)


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
        network=_network_text(model),
        device=device_name(device),
        measured=tuple(measured),
        rule=_by_rule(model, device),
    )
    if not store:
        return tuning
    best = {
        _key(model, device, one.precision): asdict(Choice(runtime=one.runtime, tile=one.tile))
        for one in map(tuning.best, tuning.precisions)
    }
    return Tuning(**{**vars(tuning), "stored": _store(best)})


def _by_rule(model: UNet, device: str) -> Choice:
    runtime = choose_runtime("auto", device, "float32")
    return Choice(runtime=runtime, tile=target_tile(model, device, runtime))


def _activations(model: UNet, tile: int) -> int:
    """Return the most bytes of activations of a tile at once, in float32."""
    side = _input_side(model, tile)
    return forward_bytes(model, (side, side))


def _input_side(model: UNet, tile: int) -> int:
    output = legal_output(round_up(tile, pooling_grid(model.depth)), model.depth)
    return input_size(output, model.depth)


def _over_tiles(
    predictor: Predictor, tiles: Sequence[int], memory: int | None
) -> Iterator[Measured]:
    """Measure tiles one after another, as long as it may get better."""
    model, best, low = predictor.model, 0.0, 0
    for tile in tiles:
        side = round_up(tile, pooling_grid(model.depth))
        if memory is not None and _activations(model, side) > memory:
            return
        try:
            seconds = _seconds(predictor, _input_side(model, side))
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


def _stored(model: UNet, device: str, precision: str) -> Choice | None:
    known = dask.config.get(_STORED, {})
    found = known.get(_key(model, device, precision)) if isinstance(known, dict) else None
    match found:
        case None:
            return None
        case {"runtime": str(runtime), "tile": int(tile)} if tile > 0:
            return Choice(runtime=runtime, tile=tile)
    raise InputError(
        f"what is stored under '{_STORED}' in Dask's configuration ({dask.config.PATH}) is no "
        f"choice of runtime and tile: {found!r}; run bigunet tune --save again, or remove it"
    )


def _store(best: dict[str, dict[str, Any]]) -> Path:
    """Write choices beside those of other networks and devices."""
    path = Path(dask.config.PATH) / "bigunet.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    everything = {"bigunet": {"tuned": best}}
    if before:
        everything = dask.config.merge(before, everything)
    with written_aside(path) as aside:
        aside.write_text(yaml.safe_dump(everything), encoding="utf-8")
    return path


def _key(model: UNet, device: str, precision: str) -> str:
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    return f"{_network_text(model)}; {device_name(device)}{threads}; {precision}"


def _network_text(model: UNet) -> str:
    return (
        f"U-Net of width {model.width}, depth {model.depth}, "
        f"{model.in_channels} channels, {model.classes} classes"
    )
