"""The network is the one that was published."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bigunet import UNet


def test_papers_network() -> None:
    model = UNet(in_channels=1, classes=2, width=64, depth=4)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23
    assert sum(p.numel() for p in model.parameters()) == 31_030_658
    with torch.device("meta"):
        ghost = UNet(1, 2, 64, 4)
        assert ghost(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)


@pytest.mark.parametrize("layer", ["contract.2.0", "contract.4.2", "up.1", "expand.0.0", "head"])
def test_initial_weights_have_the_papers_spread(layer: str) -> None:
    torch.manual_seed(0)
    module = UNet(1, 8, 32, 4).get_submodule(layer)
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    if isinstance(module, nn.ConvTranspose2d):
        incoming = module.in_channels
    else:
        incoming = math.prod(weight.shape[1:])
    expected = math.sqrt(2 / incoming)
    # The standard error of a standard deviation of n draws is sigma / sqrt(2 n).
    assert abs(weight.std().item() - expected) < 5 * expected / math.sqrt(2 * weight.numel())
    assert isinstance(module.bias, torch.Tensor) and not module.bias.any()


def test_features_keep_their_variance_through_an_up_convolution() -> None:
    """What N = in_channels is for: each output pixel sees one input pixel."""
    torch.manual_seed(0)
    up = UNet(1, 2, 64, 2).up[1]
    x = torch.relu(torch.randn(4, 256, 16, 16))
    assert 0.8 < up(x).square().mean().item() / (2 * x.square().mean().item()) < 1.25


def test_dropout_is_at_the_end_of_the_contracting_path_only() -> None:
    model = UNet(1, 2, 4, 3, dropout=0.5)
    seen: list[int] = []
    model.dropout.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[1]))
    model(torch.zeros(1, 1, 92, 92))
    assert seen == [4 * 2**2, 4 * 2**3]


@pytest.mark.parametrize(("depth", "channels", "classes", "width"), [(1, 3, 5, 2), (3, 2, 2, 3)])
def test_sizes_are_free(depth: int, channels: int, classes: int, width: int) -> None:
    model = UNet(channels, classes, width, depth)
    side = 2**depth * 2 + 4 + 2 * model.margin
    side -= (4 + 2 * model.margin) % 2**depth if depth < 2 else 0
    out = model(torch.zeros(2, channels, side, side)).shape
    assert out == (2, classes, side - 2 * model.margin, side - 2 * model.margin)


def test_a_size_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        UNet(width=0)
