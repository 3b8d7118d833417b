"""The U-Net as published.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical
Image Segmentation", MICCAI 2015, arXiv:1505.04597, figure 1 and section 3.

Shapes in the comments: B images, C channels, K classes, W = width, and at
level l = 0 … depth the side n_l; all convolutions are unpadded.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from bigunet.geometry import margin
from bigunet.models.card import ModelCard

__all__ = ["UNet", "skip_crop"]


class UNet(nn.Module):
    """U-Net of unpadded convolutions; the defaults are the paper's (572 → 388).

    Parameters
    ----------
    in_channels : int
        Channels C of the image.
    classes : int
        Classes K of the scores.
    width : int
        Features at the finest level; each level down has twice as many.
    depth : int
        Number of 2×2 poolings.
    dropout : float
        Share of features dropped, in training, at the end of the contracting
        path (its last two levels, as in the authors' published network).

    Attributes
    ----------
    card : ModelCard
        What a model file says beside the weights; a bare network normalises
        nothing.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        width: int = 64,
        depth: int = 4,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        _check(in_channels=in_channels, classes=classes, width=width, depth=depth)
        self.in_channels, self.classes = in_channels, classes
        self.width, self.depth = width, depth
        self.card = ModelCard()
        features = [width * 2**level for level in range(depth + 1)]
        self.contract = nn.ModuleList(
            _two_convolutions(before, after)
            for before, after in zip([in_channels, *features], features, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * f, f, kernel_size=2, stride=2) for f in features[:-1]
        )
        self.expand = nn.ModuleList(_two_convolutions(2 * f, f) for f in features[:-1])
        self.head = nn.Conv2d(width, classes, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.apply(_initialise)

    @property
    def margin(self) -> int:
        """Pixels eaten on each side."""
        return margin(self.depth)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return class scores (B, K, Y − 2·margin, X − 2·margin) of an image (B, C, Y, X)."""
        x, skips = image, []
        for level, convolutions in enumerate(self.contract):
            if level:
                x = functional.max_pool2d(x, 2)  # (B, W·2^(l−1), n_l, n_l)
            x = convolutions(x)  # (B, W·2^l, n_l − 4, n_l − 4)
            if level >= self.depth - 1:
                x = self.dropout(x)
            skips.append(x)
        x = skips.pop()
        for up, convolutions in zip(reversed(self.up), reversed(self.expand), strict=True):
            x = up(x)  # (B, W·2^l, 2n, 2n)
            x = torch.cat([_centre(skips.pop(), x), x], dim=1)  # (B, 2·W·2^l, 2n, 2n)
            x = convolutions(x)  # (B, W·2^l, 2n − 4, 2n − 4)
        scores: torch.Tensor = self.head(x)  # (B, K, Y − 2·margin, X − 2·margin)
        return scores


def _check(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it has to be at least 1")


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, kernel_size=3),
        nn.ReLU(inplace=True),
    )


def skip_crop(skip: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return where in a skip connection (y, x) the middle of a size begins."""
    return (skip[0] - size[0]) // 2, (skip[1] - size[1]) // 2


def _centre(skip: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Cut the middle of ``skip`` to the size of ``like``."""
    height, width = like.shape[-2:]
    y, x = skip_crop((skip.shape[-2], skip.shape[-1]), (height, width))
    return skip[..., y : y + height, x : x + width]


def _initialise(layer: nn.Module) -> None:
    """Draw weights from N(0, sqrt(2/N)), N the incoming nodes of a neuron (section 3).

    Each output pixel of a 2×2 up-convolution with stride 2 sees one input pixel,
    so its N is the number of input channels; torch's fan-in would be four times
    the number of output channels.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        incoming = layer.in_channels
    elif isinstance(layer, nn.Conv2d):
        incoming = layer.in_channels * math.prod(layer.kernel_size)
    else:
        return
    if layer.weight.is_meta:
        # Weights come from a file; drawing none would make torch import its compiler, for 1.6 s.
        return
    nn.init.normal_(layer.weight, std=math.sqrt(2 / incoming))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
