"""Annotated images written for the tests of training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from bigunet.errors import BigunetError
from bigunet.training.dataset import Dataset, open_dataset

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
BINARY = np.zeros((6, 8), np.uint8)
BINARY[1:3, 1:3] = BINARY[4:, 5:] = 255
MANY = np.arange(48, dtype=np.uint8).reshape(6, 8)
"""An instance map beyond doubt."""


def write(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Write (Y, X) or (Y, X, S) as PNG or TIFF, by the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Pillow.fromarray(pixels).save(path, **options)
    else:
        tifffile.imwrite(path, pixels, **options)
    return path


def write_pairs(
    root: Path,
    masks: dict[str, np.ndarray],
    images: dict[str, np.ndarray] | None = None,
    suffix: str = "",
) -> Path:
    """Write a folder of images and masks; images are grey where none is given."""
    for name, mask in masks.items():
        image = (images or {}).get(name, np.resize(GREY, mask.shape))
        write(root / "images" / f"{name}.png", image)
        write(root / "masks" / f"{name}{suffix}.png", mask)
    return root


def refusal(data: Any, kind: type[BigunetError] = BigunetError, **options: Any) -> str:
    """Open what cannot be used, and return what is said: one line."""
    with pytest.raises(kind) as caught:
        open_dataset(data, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def names(examples: Dataset | Any) -> list[str]:
    return [example.name for example in examples]
