"""What a user can ask of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from bigunet.errors import InputError
from bigunet.geometry import legal_output, margin
from bigunet.training.augment import Augmentation

__all__ = ["Recipe", "Training"]

Recipe = Literal["fast", "paper"]

_RATES = {"fast": 1e-3, "paper": 1e-3}


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of a run; all that its result depends on beside the data.

    Raises
    ------
    InputError
        A value that cannot be meant.
    """

    width: int = 16
    """Features at the finest level; the paper's network has 64."""
    depth: int = 3
    """Poolings; the paper's network has 4."""
    recipe: Recipe = "fast"
    """``paper``: SGD with momentum 0.99; ``fast``: AdamW, its rate falling as a cosine."""
    epochs: int = 50
    steps: int = 100
    """Tiles in an epoch, one a batch."""
    tile: int = 256
    """Side of a tile's output in pixels, rounded up to a legal one; the paper's is 388."""
    learning_rate: float | None = None
    """By default what the recipe says."""
    gap: int = 2
    """Background pixels between touching objects in the target; 0 leaves them joined."""
    w0: float = 10.0
    """Weight of the separation border; 0 for none."""
    sigma: float = 5.0
    """Width of the separation border in pixels."""
    patience: int = 20
    """Epochs in a row with a worse validation score than before, after which to stop."""
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.recipe not in get_args(Recipe):
            raise InputError(f"recipe '{self.recipe}' is unknown; choose fast or paper")
        for name in ("width", "depth", "epochs", "steps", "tile", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if self.gap not in (0, 2):
            raise InputError(f"gap is {self.gap}; it is 2 pixels, or 0 for none")
        if not self.rate > 0 or not math.isfinite(self.rate):
            raise InputError(f"learning rate is {self.rate}; it has to be a positive number")

    @property
    def rate(self) -> float:
        """Learning rate to begin with."""
        return _RATES[self.recipe] if self.learning_rate is None else self.learning_rate

    @property
    def output(self) -> int:
        """Side of a tile's output in pixels, legal for the depth."""
        return legal_output(self.tile, self.depth)

    @property
    def margin(self) -> int:
        """Pixels that the network eats on each side."""
        return margin(self.depth)
