"""A training run in its course: epoch by epoch, and kept so that it can go on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from bigunet.errors import ModelError, RunError
from bigunet.images.intensity import IntensityRule, default_rule
from bigunet.models.checkpoint import save_model
from bigunet.models.unet import UNet
from bigunet.training.dataset import Dataset
from bigunet.training.diameters import diameter_range
from bigunet.training.event_log import EventLog
from bigunet.training.learner import Learner
from bigunet.training.run_files import STATE_FORMAT, RunFiles
from bigunet.training.settings import Training
from bigunet.training.steps import PreparedExamples, Steps, set_weights
from bigunet.training.validation import Score, draw_validation, validate

__all__ = ["Epoch", "Run"]

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
    ap: float
    """Of validation objects, mean over IoU 0.5, 0.55 … 0.95."""
    ap_error: float
    """Its standard error."""
    iou: float
    """Mean IoU of the classes on validation images."""
    rate: float
    """Learning rate of the last step."""
    seconds: float
    """Of training; validation apart."""

    @property
    def scores(self) -> str:
        """What validation measured, in words."""
        ap = f"AP@0.5:0.95 {self.ap:.3f} ± {self.ap_error:.3f}"
        return f"F1@0.5 {self.f1:.3f}, {ap}, IoU {self.iou:.3f}"


class Run:
    """What a run is made of, and what was measured so far.

    Parameters
    ----------
    dataset : Dataset
    settings : Training
    files : RunFiles
    model : UNet or None
        To begin with; None for a new one.
    device : str
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: Training,
        files: RunFiles,
        model: UNet | None,
        device: str,
    ) -> None:
        self.dataset, self.settings, self.files = dataset, settings, files
        self.rule = _rule(dataset, model)
        self.begun_with = None if model is None else model.card.name
        torch.manual_seed(settings.seed)
        self.model = model or UNet(
            dataset.in_channels, len(dataset.class_names), settings.width, settings.depth
        )
        # The card is set when the model is saved: steps hand over pixels that are normalised.
        self.model.card = replace(self.model.card, intensity=None, diameters=None, scores={})
        self.learner = Learner(self.model, settings, device)
        weights = set_weights(dataset.train, self.model.classes, settings)
        self.diameters = diameter_range(dataset.train)
        self.steps = Steps(PreparedExamples(dataset.train, self.rule), weights, settings)
        self.val = PreparedExamples(dataset.val, self.rule)
        self.history: list[Epoch] = []
        self.best = 0

    def is_over(self) -> bool:
        """Whether the last epoch was reached, or all has been worse for long."""
        done = len(self.history)
        return done >= self.settings.epochs or done - 1 - self.best >= self.settings.patience

    def epochs(self, events: EventLog) -> Iterator[Epoch]:
        """Train and keep epoch by epoch, until the run is over."""
        while not self.is_over():
            began = time.monotonic()
            number = len(self.history)
            loss = self._train(number)
            seconds = time.monotonic() - began
            score = validate(self.model, self.val) if self.dataset.val else _UNKNOWN
            done = Epoch(
                epoch=number + 1,
                loss=loss,
                f1=score.f1,
                ap=score.ap,
                ap_error=score.ap_error,
                iou=score.iou,
                rate=self.learner.rate((number + 1) * self.settings.steps - 1),
                seconds=seconds,
            )
            self.history.append(done)
            try:
                self._keep(events)
            except OSError as error:
                raise RunError(
                    f"epoch {done.epoch} was trained and could not be written: {error}; "
                    "make room, and go on with --resume"
                ) from error
            yield done

    def restore(self) -> None:
        """Go back to where the last run stopped.

        Raises
        ------
        ModelError
            There is no state, or it is of other settings or data.
        """
        state, own = self.files.read_state(self.learner.device), self._state()
        for what in ("settings", "data"):
            if state.get(what) != own[what]:
                raise ModelError(
                    f"{self.files.state} was made with other {what}; resume with the same, "
                    f"or begin anew with --overwrite"
                )
        self.learner.restore(state)
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best = state["best"]

    def _train(self, epoch: int) -> float:
        torch.manual_seed(self.settings.seed * 1_000_003 + epoch)  # dropout
        self.model.train()
        total, first = 0.0, epoch * self.settings.steps
        for number, step in enumerate(self.steps.epoch(epoch)):
            total += self.learner.learn(step, first + number)
            if not math.isfinite(total):
                raise self._diverged(f"the loss is {total}", epoch, number)
        if not self.learner.is_finite():
            raise self._diverged("weights are not finite", epoch, self.settings.steps - 1)
        return total / self.settings.steps

    def _diverged(self, what: str, epoch: int, number: int) -> RunError:
        kept = "no epoch was finished"
        if self.history:
            kept = f"{self.files.model} holds the best of {len(self.history)} epochs"
        return RunError(
            f"{what} in epoch {epoch + 1}, step {number + 1}; {kept}; "
            f"begin anew with a lower learning rate (it was {self.settings.rate:g})"
        )

    def _keep(self, events: EventLog) -> None:
        """Write the network if it is the best so far, the state, and what people look at."""
        last = len(self.history) - 1
        epoch = self.history[last]
        if not self.dataset.val or self._is_as_good_as_any():
            self.best = last
            self._save(epoch)
        # Before the state: what a run logs twice is dropped, what it never logs is missing.
        events.scalars(epoch.epoch, _curves(epoch))
        self.files.write_state(self._state())
        self.files.write_log([asdict(epoch) for epoch in self.history])
        if self.dataset.val and last % _PICTURE_EVERY == 0:
            draw_validation(self.model, self.val, self.files.picture)
            events.picture(epoch.epoch, "held back", self.files.picture)

    def _save(self, epoch: Epoch) -> None:
        of_objects = self.dataset.kind == "instances"
        score = f"{epoch.scores} after epoch {epoch.epoch}"
        save_model(
            self.model,
            self.files.model,
            name=self.files.model.stem,
            class_names=self.dataset.class_names,
            intensity=self.rule,
            pixel_size=self.dataset.pixel_size,
            gap=self.settings.gap if of_objects else 0,
            instances=of_objects,
            diameters=self.diameters,
            about={"recipe": self._recipe()},
            scores={"images held back": score} if self.dataset.val else {},
        )

    def _recipe(self) -> str:
        s = self.settings
        begun = "" if self.begun_with is None else f", begun with {self.begun_with}"
        return (
            f"{s.recipe}: {len(self.dataset.train)} images, {s.epochs} epochs of {s.steps} tiles "
            f"of {s.output} px, rate {s.rate:g}, seed {s.seed}{begun}"
        )

    def _is_as_good_as_any(self) -> bool:
        """Whether no epoch was better than the last by more than the standard error of its score.

        Of few objects chance decides which epoch scores best, so of those that cannot be told apart
        the one that has learned for longest is taken: the rule of one standard error (Breiman et
        al. 1984). Of pixels no error is known, and the best score is best.
        """
        of_objects = self.dataset.kind == "instances"
        scores = [_number(epoch.ap if of_objects else epoch.iou) for epoch in self.history]
        top = scores.index(max(scores))
        error = self.history[top].ap_error if of_objects else 0.0
        return scores[-1] >= scores[top] - max(0.0, _number(error))

    def _state(self) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            "settings": repr(replace(self.settings, epochs=1, patience=1)),
            "data": _fingerprint(self.dataset),
            **self.learner.state(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
        }


def _number(score: float) -> float:
    """Return a score that can be compared: without objects there is none."""
    return -math.inf if math.isnan(score) else score


_UNKNOWN = Score(f1=math.nan, ap=math.nan, ap_error=math.nan, iou=math.nan)


def _rule(dataset: Dataset, model: UNet | None) -> IntensityRule:
    if model is not None and model.card.intensity is not None:
        return model.card.intensity
    return default_rule(dataset.dtype, dataset.in_channels)


def _curves(epoch: Epoch) -> dict[str, float]:
    return {
        "train/loss": epoch.loss,
        "train/rate": epoch.rate,
        "val/F1": epoch.f1,
        "val/AP": epoch.ap,
        "val/IoU": epoch.iou,
    }


def _fingerprint(dataset: Dataset) -> str:
    """Return which images these are, as far as that is known without their pixels."""
    parts = (
        [(example.name, example.shape, str(example.dtype)) for example in examples]
        for examples in (dataset.train, dataset.val)
    )
    return repr((dataset.kind, dataset.class_names, *parts))
