"""How much arithmetic a forward pass is."""

from __future__ import annotations

from typing import Any

__all__ = ["forward_flops"]


def forward_flops(model: Any, size: tuple[int, int], batch: int = 1) -> int:
    """Return the floating-point operations of all convolutions, two for each product that is added.

    Parameters
    ----------
    model : UNet
    size : (y, x)
        Of the input in pixels.
    batch : int
        Images in the pass.
    """
    (y, x), before, total = size, model.in_channels, 0
    for level in range(model.depth + 1):
        if level:
            y, x = y // 2, x // 2
        after = model.width * 2**level
        y, x, flops = _two_convolutions(y, x, before, after)
        total, before = total + flops, after
    for level in reversed(range(model.depth)):
        after = model.width * 2**level
        # 2 × 2 products of each input pixel, which becomes as many output pixels.
        total += 2 * 4 * before * after * y * x
        y, x, flops = _two_convolutions(2 * y, 2 * x, 2 * after, after)
        total, before = total + flops, after
    return batch * (total + 2 * before * model.classes * y * x)


def _two_convolutions(y: int, x: int, before: int, after: int) -> tuple[int, int, int]:
    """Return the size after two unpadded 3 × 3 convolutions, and their operations."""
    first = 2 * 9 * before * after * (y - 2) * (x - 2)
    second = 2 * 9 * after * after * (y - 4) * (x - 4)
    return y - 4, x - 4, first + second
