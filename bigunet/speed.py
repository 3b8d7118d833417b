"""How a network is best run: its runtime and tile, by a fixed rule or as stored on purpose.

The rule looks at the device, the runtime and the size of the network. What `bigunet.tuning`
measured counts once it was stored. Nothing is timed in a run: bits depend on runtime and tile,
and must not depend on how busy a machine was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import dask.config
import torch
import yaml

from bigunet.errors import InputError
from bigunet.files import written_aside
from bigunet.geometry import input_size, legal_output, pooling_grid, round_up
from bigunet.memory import forward_bytes
from bigunet.models.devices import device_name
from bigunet.models.runtimes import choose_runtime
from bigunet.models.unet import UNet

__all__ = [
    "Choice",
    "activations",
    "by_rule",
    "fastest",
    "network_text",
    "store_choices",
    "target_tile",
    "tile_input",
]

# Torch on a CPU is fastest where a tile's activations stay near the cache. OpenVINO and GPUs lose
# less to memory than they gain from smaller halos, so there a tile is as large as its activations
# may be. GPUs were not measured.
_EAGER_TILE = 512
_LARGE_TILES = (2048, 1024)
_ACTIVATIONS = 2 * 2**30
_STORED = "bigunet.tuned"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a network is run."""

    runtime: str
    tile: int
    """Output pixels along a side of a tile, about."""


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
    return by_rule(model, device, precision, runtime)


def by_rule(model: UNet, device: str, precision: str, runtime: str = "auto") -> Choice:
    """Return how a network is best run where nothing is stored; see `fastest`."""
    runtime = choose_runtime(runtime, device, precision)
    return Choice(runtime=runtime, tile=target_tile(model, device, runtime))


def target_tile(model: UNet, device: str, runtime: str) -> int:
    """Return about how many pixels a tile should have along a side, by the rule.

    512 for torch on a CPU; else 2,048 or 1,024, the larger one whose activations in float32 take
    no more than 2 GiB, or 512.
    """
    if device == "cpu" and runtime != "openvino":
        return _EAGER_TILE
    fitting = (tile for tile in _LARGE_TILES if activations(model, tile) <= _ACTIVATIONS)
    return next(fitting, _EAGER_TILE)


def activations(model: UNet, tile: int) -> int:
    """Return the most bytes of activations of a tile at once, in float32."""
    side = tile_input(model, tile)
    return forward_bytes(model, (side, side))


def tile_input(model: UNet, tile: int) -> int:
    """Return the side of what a tile of about so many pixels sees, in pixels."""
    output = legal_output(round_up(tile, pooling_grid(model.depth)), model.depth)
    return input_size(output, model.depth)


def store_choices(model: UNet, device: str, best: Mapping[str, Choice]) -> Path:
    """Let runs on this machine take choices, one for each precision; return where they stand.

    They are written to Dask's configuration, beside those of other networks and devices.

    Raises
    ------
    OutputError
        Nothing can be written there.
    """
    tuned = {_key(model, device, precision): asdict(one) for precision, one in best.items()}
    path = Path(dask.config.PATH) / "bigunet.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    everything = {"bigunet": {"tuned": tuned}}
    if before:
        everything = dask.config.merge(before, everything)
    with written_aside(path) as aside:
        aside.write_text(yaml.safe_dump(everything), encoding="utf-8")
    return path


def _stored(model: UNet, device: str, precision: str) -> Choice | None:
    known = dask.config.get(_STORED, None)
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


def _key(model: UNet, device: str, precision: str) -> str:
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    return f"{network_text(model)}; {device_name(device)}{threads}; {precision}"


def network_text(model: UNet) -> str:
    """Name a network by all that its speed depends on."""
    return (
        f"U-Net of width {model.width}, depth {model.depth}, "
        f"{model.in_channels} channels, {model.classes} classes"
    )
