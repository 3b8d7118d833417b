"""A network that learns: one step at a time, by the recipe of the settings."""

from __future__ import annotations

import math
from typing import Any

import torch

from bigunet.models.devices import computes_bfloat16
from bigunet.models.unet import UNet
from bigunet.training.loss import energy
from bigunet.training.settings import Training
from bigunet.training.steps import Step

__all__ = ["Learner"]

_RISING_STEPS = 200
_LARGEST_GRADIENT = 1.0


class Learner:
    """A network and its optimiser.

    Parameters
    ----------
    model : UNet
        Learns in place, and is moved to the device.
    settings : Training
    device : str

    Attributes
    ----------
    mixed : bool
        Whether networks compute in bfloat16: ``fast`` does, where there are units for it.
    """

    def __init__(self, model: UNet, settings: Training, device: str) -> None:
        # The layers follow the weights: an image of one channel lies both ways, and says nothing.
        # torch's annotations do not know this form of `Module.to`.
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model, self.settings, self.device = model, settings, device
        self.mixed = settings.recipe == "fast" and computes_bfloat16(device)
        self.optimiser = _optimiser(self.model, settings)

    def learn(self, step: Step, number: int) -> float:
        """Take a step, `number` from the run's first one at 0; return its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(number)
        loss = self._differentiate(step)
        if self.settings.recipe == "fast":
            # One crowded tile in a hundred has a gradient 50 times the usual one.
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        self.optimiser.step()
        return loss

    def rehearse(self, step: Step) -> None:
        """Compute what a step computes, and forget it."""
        self.model.train()
        self._differentiate(step)
        self.optimiser.zero_grad(set_to_none=True)

    def rate(self, number: int) -> float:
        """Return the learning rate of a step: constant, or a short rise and then half a cosine."""
        s = self.settings
        if s.recipe == "paper":
            return s.rate
        total = s.epochs * s.steps
        rise = min(1.0, (number + 1) / min(_RISING_STEPS, total))
        return s.rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, number / total)))

    def is_finite(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters())

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on."""
        return {"weights": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _differentiate(self, step: Step) -> float:
        image, target, weights = (torch.from_numpy(part)[None].to(self.device) for part in step)
        kind = self.device.split(":")[0]
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.mixed):
            scores = self.model(image)
        loss = energy(scores, target, weights)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return float(loss.detach())


def _optimiser(model: UNet, settings: Training) -> torch.optim.Optimizer:
    if settings.recipe == "paper":
        return torch.optim.SGD(model.parameters(), lr=settings.rate, momentum=0.99)
    return torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=1e-4)
