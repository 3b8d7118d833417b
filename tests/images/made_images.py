"""Images made for the tests of what opens them, and the line that a broken one gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from bigunet.errors import BigunetError
from bigunet.images.ngff import Axis, Channel
from bigunet.images.open import Image, Level, open_image

ALL = slice(None)


RNG = np.random.default_rng(0)


def describe(axes: str, *paths: str, unit: str | None = "micrometer") -> dict[str, Any]:
    """Multiscales metadata of 0.4 and 0.5, every level half of the one before."""
    spatial = {"type": "space"} | ({"unit": unit} if unit else {})
    types = {"t": {"type": "time"}, "c": {"type": "channel"}}
    scales = [[1.0 if a in "tcz" else 0.5 * 2.0**i for a in axes] for i in range(len(paths))]
    return {
        "axes": [{"name": a, **types.get(a, spatial)} for a in axes],
        "datasets": [
            {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for path, scale in zip(paths, scales, strict=True)
        ],
    }


def write_image(
    folder: Path,
    pixels: npt.NDArray[Any],
    axes: str,
    *,
    zarr_format: int = 3,
    names: tuple[str, ...] = (),
    path: str = "0",
    metadata: Any = None,
    **storage: Any,
) -> Path:
    """Write an image of one level; `metadata` replaces its multiscales entry."""
    entry = describe(axes, path) if metadata is None else metadata
    ome: dict[str, Any] = {"multiscales": [entry]}
    if names:
        ome["omero"] = {"channels": [{"label": name} for name in names]}
    if zarr_format == 3:
        ome = {"ome": {"version": "0.5", **ome}}
    else:
        entry["version"] = "0.4"
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format, attributes=ome)
    storage.setdefault("chunks", tuple(min(8, n) for n in pixels.shape))
    array = group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, **storage)
    array[...] = pixels
    return folder


def random_pixels(*shape: int, dtype: str = "uint16") -> npt.NDArray[Any]:
    return RNG.integers(0, 2**15 if dtype == "uint16" else 100, shape).astype(dtype)


def bare_image(folder: Path, axes: str, paths: tuple[str, ...] = ("0",)) -> zarr.Group:
    ome = {"ome": {"version": "0.5", "multiscales": [describe(axes, *paths)]}}
    return zarr.open_group(folder, mode="w", attributes=ome)


def made_up(
    sizes: list[float], unit: str | None = "micrometer", names: tuple[str, ...] = ()
) -> Image:
    space = [Axis(name=n, type="space", unit=unit) for n in "yx"]
    levels = [
        Level(
            path=str(i),
            shape=(64, 64),
            dtype="uint8",
            chunks=(64, 64),
            shards=None,
            scale=(size, size),
            translation=(0.0, 0.0),
        )
        for i, size in enumerate(sizes)
    ]
    return Image(
        path=Path("a.zarr"),
        version="0.5",
        zarr_format=3,
        axes=tuple(space),
        levels=tuple(levels),
        channels=tuple(Channel(index=i, name=n) for i, n in enumerate(names or ("channel 0",))),
        name="a",
        labels=(),
    )


def refusal(path: Path | str) -> str:
    with pytest.raises(BigunetError) as refused:
        open_image(path)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.exit_code == 2
    return line
