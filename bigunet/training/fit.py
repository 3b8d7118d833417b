"""Train a network: the loop, what it leaves on disk, and how it goes on.

Beside ``unet.pt``, the best network so far, a run keeps ``unet.state.pt`` (weights,
optimiser and history after the last epoch), ``unet.csv`` (a line an epoch) and
``unet.png`` (validation images, predictions and truth). All are written aside and
renamed, so killing a run at any moment loses at most one epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bigunet.errors import InputError, ModelError, RunError
from bigunet.images.intensity import IntensityRule, default_rule
from bigunet.models.checkpoint import load_model, save_model
from bigunet.models.runtime import choose_device
from bigunet.models.unet import UNet
from bigunet.training.dataset import Dataset, open_dataset
from bigunet.training.loss import energy
from bigunet.training.run_files import STATE_FORMAT, RunFiles
from bigunet.training.settings import Training
from bigunet.training.steps import PreparedExamples, Steps, set_weights
from bigunet.training.validation import Score, draw_validation, validate

__all__ = ["Epoch", "Trained", "train"]

_PICTURE_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What is known after an epoch."""

    epoch: int
    """From 1."""
    loss: float
    """Mean energy of the steps."""
    f1: float
    """Of validation objects at an IoU of 0.5; NaN where nothing was held back."""
    iou: float
    """Mean IoU of the classes on validation images."""
    rate: float
    """Learning rate of the last step."""
    seconds: float
    """Of training; validation apart."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run has left."""

    path: Path
    """The best network."""
    best: Epoch
    epochs: tuple[Epoch, ...]
    notes: tuple[str, ...]
    """Lines for the user about the data."""


def train(
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    settings: Training | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Trained:
    """Train a U-Net on annotated images, as the paper does.

    Parameters
    ----------
    data : path or sequence of paths
        See `bigunet.training.dataset.open_dataset`.
    output : path
        Model file to write.
    settings : Training, optional
    init : path or name, optional
        A model to begin with; its sizes win over those of the settings.
    resume : bool
        Go on where a run with the same settings and output stopped; on the CPU
        bit for bit as if it had not.
    overwrite : bool
        Replace an existing model.
    device : {"auto", "cpu", "cuda", "mps"}
    progress : callable, optional
        Called with lines for the user.
    **options
        Those of `open_dataset`: ``masks=``, ``classes=``, ``val=`` and so on.

    Returns
    -------
    Trained

    Raises
    ------
    InputError
        Data or settings that cannot be used.
    OutputExistsError
        There is a model at `output`, and neither `resume` nor `overwrite` was said.
    RunError
        The loss was no number; the last good network stays.
    """
    files = RunFiles(Path(output))
    files.check(resume=resume, overwrite=overwrite)
    dataset = open_dataset(data, **options)
    model = None if init is None else load_model(init)
    settings = _settled(settings or Training(), model, dataset)
    run = _Run(dataset, settings, files, model, choose_device(device)[0])
    if resume:
        run.restore()
    say = progress or _nobody
    for line in (*dataset.notes, run.headline()):
        say(line)
    for epoch in run.epochs():
        say(_epoch_line(epoch, settings))
    if not run.history:
        raise InputError(f"{output} is trained to its last epoch already; ask for more epochs")
    best = run.history[run.best]
    return Trained(path=files.model, best=best, epochs=tuple(run.history), notes=dataset.notes)


class _Run:
    """A run in its course: network, optimiser, and what was measured."""

    def __init__(
        self,
        dataset: Dataset,
        settings: Training,
        files: RunFiles,
        model: UNet | None,
        device: str,
    ) -> None:
        self.dataset, self.settings, self.files, self.device = dataset, settings, files, device
        self.rule = _rule(dataset, model)
        torch.manual_seed(settings.seed)
        self.model = model or UNet(
            dataset.in_channels, len(dataset.class_names), settings.width, settings.depth
        )
        # The card is set when the model is saved: steps hand over pixels that are normalised.
        self.model.card = replace(self.model.card, intensity=None)
        self.model.to(device)
        self.optimiser = _optimiser(self.model, settings)
        weights = set_weights(dataset.train, self.model.classes, settings)
        self.steps = Steps(PreparedExamples(dataset.train, self.rule), weights, settings)
        self.val = PreparedExamples(dataset.val, self.rule)
        self.history: list[Epoch] = []
        self.best = 0

    def headline(self) -> str:
        """Return what is going to be done, in one line."""
        s, d = self.settings, self.dataset
        return (
            f"{len(d.train)} images to train with, {len(d.val)} held back; {d.kind}; "
            f"U-Net of width {self.model.width}, depth {self.model.depth} on {self.device}; "
            f"recipe {s.recipe}; {s.epochs} epochs of {s.steps} tiles of {s.output} px"
        )

    def epochs(self) -> Iterator[Epoch]:
        """Train epoch by epoch, until the last one or until nothing gets better."""
        for number in range(len(self.history), self.settings.epochs):
            began = time.monotonic()
            loss, rate = self._train(number)
            seconds = time.monotonic() - began
            score = self._score()
            done = Epoch(
                epoch=number + 1, loss=loss, f1=score.f1, iou=score.iou, rate=rate, seconds=seconds
            )
            self.history.append(done)
            self._keep()
            yield done
            if number - self.best >= self.settings.patience:
                return

    def _train(self, epoch: int) -> tuple[float, float]:
        torch.manual_seed(self.settings.seed * 1_000_003 + epoch)  # dropout
        self.model.train()
        total, rate = 0.0, 0.0
        for number, step in enumerate(self.steps.epoch(epoch)):
            rate = _rate(self.settings, epoch * self.settings.steps + number)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            total += self._step(*(torch.from_numpy(part)[None].to(self.device) for part in step))
            if not math.isfinite(total):
                raise RunError(
                    f"the loss is {total} in epoch {epoch + 1}, step {number + 1}; "
                    f"{self._last_good()} lower the learning rate (now {rate:g}) and resume"
                )
        return total / self.settings.steps, rate

    def _step(self, image: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> float:
        mixed = self.settings.recipe == "fast"
        kind = self.device.split(":")[0]
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=mixed and kind != "mps"):
            scores = self.model(image.contiguous(memory_format=torch.channels_last))
        loss = energy(scores, target, weights)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.optimiser.step()
        return float(loss.detach())

    def _score(self) -> Score:
        if not self.dataset.val:
            return Score(f1=math.nan, iou=math.nan)
        return validate(self.model, self.val)

    def _keep(self) -> None:
        """Write the state, and the network if it is the best so far."""
        last = len(self.history) - 1
        better = last == 0 or self._figure(last) >= self._figure(self.best)
        if better or not self.dataset.val:
            self.best = last
            save_model(
                self.model,
                self.files.model,
                name=self.files.model.stem,
                class_names=self.dataset.class_names,
                intensity=self.rule,
                pixel_size=self.dataset.pixel_size,
                gap=self.settings.gap if self.dataset.kind == "instances" else 0,
            )
        self.files.write_state(self._state())
        self.files.write_log([asdict(epoch) for epoch in self.history])
        if self.dataset.val and last % _PICTURE_EVERY == 0:
            draw_validation(self.model, self.val, self.files.picture)

    def _figure(self, index: int) -> float:
        score = self.history[index]
        value = Score(f1=score.f1, iou=score.iou).of(self.dataset.kind)
        return -math.inf if math.isnan(value) else value

    def _last_good(self) -> str:
        if not self.history:
            return "no epoch was finished;"
        return f"{self.files.model} holds the best of {len(self.history)} epochs;"

    def _state(self) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            "settings": repr(replace(self.settings, epochs=1, patience=1)),
            "weights": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
        }

    def restore(self) -> None:
        """Go back to where the last run stopped.

        Raises
        ------
        ModelError
            There is no state, or it is of other settings.
        """
        state = self.files.read_state(self.device)
        if state["settings"] != self._state()["settings"]:
            raise ModelError(
                f"{self.files.state} was made with other settings; resume with the same ones, "
                f"or begin anew with --overwrite"
            )
        self.model.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best = state["best"]


def _settled(settings: Training, model: UNet | None, dataset: Dataset) -> Training:
    """Take the sizes of the model to begin with, and vary colour where there is some."""
    varied = settings.augmentation
    if dataset.is_rgb and not (varied.hue or varied.stain):
        varied = replace(varied, hue=0.1, stain=0.1)
    settings = replace(settings, augmentation=varied)
    if model is None:
        return settings
    if (model.in_channels, model.classes) != (dataset.in_channels, len(dataset.class_names)):
        raise ModelError(
            f"the model to begin with has {model.in_channels} channels and {model.classes} classes, "
            f"the data {dataset.in_channels} and {len(dataset.class_names)}"
        )
    return replace(settings, width=model.width, depth=model.depth)


def _rule(dataset: Dataset, model: UNet | None) -> IntensityRule:
    if model is not None and model.card.intensity is not None:
        return model.card.intensity
    return default_rule(dataset.dtype, dataset.in_channels)


def _optimiser(model: UNet, settings: Training) -> torch.optim.Optimizer:
    if settings.recipe == "paper":
        return torch.optim.SGD(model.parameters(), lr=settings.rate, momentum=0.99)
    return torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=1e-4)


def _rate(settings: Training, step: int) -> float:
    """Return the learning rate of a step: constant, or falling to 0 as half a cosine."""
    if settings.recipe == "paper":
        return settings.rate
    share = step / (settings.epochs * settings.steps)
    return settings.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _epoch_line(epoch: Epoch, settings: Training) -> str:
    left = (settings.epochs - epoch.epoch) * epoch.seconds
    return (
        f"epoch {epoch.epoch}/{settings.epochs}: loss {epoch.loss:.4f}, F1@0.5 {epoch.f1:.3f}, "
        f"IoU {epoch.iou:.3f}, {epoch.seconds:.0f} s, about {left / 60:.0f} min left"
    )


def _nobody(_: str) -> None:
    pass
