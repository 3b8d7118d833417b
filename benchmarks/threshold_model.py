"""A U-Net whose weights are set by hand: it smooths and thresholds.

It stands in for a trained model where a result is to make sense and to be
checked against scipy: the scores are (0, smoothed − threshold), smoothed by
four 3×3 binomial kernels (a Gaussian of 1.41 px). Run it to write a file::

    python -m benchmarks.threshold_model demo/threshold.pt
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from bigunet import UNet, save_model

BINOMIAL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


def threshold_model(threshold: float = 0.15, width: int = 2, depth: int = 2) -> UNet:
    """Return a network for one channel, normalised to 0 … 1, and two classes."""
    model = UNet(in_channels=1, classes=2, width=width, depth=depth)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # The first feature carries the image: down, over the skip connection, and up.
        for convolutions in (model.contract[0], model.expand[0]):
            # What a ModuleList holds is a Module to mypy; these are Sequential.
            for layer in convolutions:
                if isinstance(layer, nn.Conv2d):
                    layer.weight[0, 0] = BINOMIAL
        model.head.weight[1, 0] = 1
        model.head.bias[1] = -threshold
    return model


def write_threshold_model(path: Path) -> Path:
    """Write the model with the intensity rule of fluorescence; returns the path."""
    save_model(
        threshold_model(),
        path,
        name="threshold",
        class_names=("background", "nucleus"),
        intensity="percentile",
    )
    return path


if __name__ == "__main__":
    write_threshold_model(Path(sys.argv[1]))
