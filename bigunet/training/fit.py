"""Train a network: from annotated images to a model, in one call.

Beside ``unet.pt``, the best network so far, a run keeps ``unet.state.pt`` (weights,
optimiser and history after the last epoch), ``unet.csv`` (a line an epoch) and
``unet.png`` (validation images, predictions and truth). All are written aside and
renamed, so killing a run at any moment loses at most one epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bigunet.errors import InputError, ModelError
from bigunet.models.checkpoint import load_model
from bigunet.models.devices import choose_device
from bigunet.models.unet import UNet
from bigunet.training.dataset import Dataset, open_dataset
from bigunet.training.event_log import EventLog, check_tensorboard
from bigunet.training.projection import projected_seconds
from bigunet.training.run import Epoch, Run
from bigunet.training.run_files import RunFiles
from bigunet.training.settings import Training

__all__ = ["Epoch", "Trained", "train"]

_EMPTY = 0.25


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run has left."""

    path: Path
    """The best network."""
    best: Epoch
    """The epoch that it is of."""
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
    tensorboard: str | Path | None = None,
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
    tensorboard : path, optional
        Folder for TensorBoard's logs; a run logs into a folder in it of the model's name.
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
        There is something at `output`, and neither `resume` nor `overwrite` was said.
    DependencyError
        A package is needed for what was asked.
    RunError
        The loss was no number, or a file could not be written; the last good network stays.
    """
    files = RunFiles(Path(output))
    files.check(resume=resume, overwrite=overwrite)
    _check_val(options.get("val"), files)
    if tensorboard is not None:
        check_tensorboard()
    dataset = open_dataset(data, **options)
    model = None if init is None else load_model(init)
    settings = _settled(settings or Training(), model, dataset)
    run = Run(dataset, settings, files, model, choose_device(device)[0])
    if resume:
        run.restore()
    say = progress or _nobody
    for line in (*dataset.notes, _headline(run), _projection(run)):
        say(line)
    folder = None if tensorboard is None else Path(tensorboard, files.model.stem)
    with EventLog(folder, first=len(run.history) + 1) as events:
        if not resume:
            files.begin()
        _follow(run, events, say)
    best = run.history[run.best]
    return Trained(path=files.model, best=best, epochs=tuple(run.history), notes=dataset.notes)


def _follow(run: Run, events: EventLog, say: Callable[[str], None]) -> None:
    """Train to the end, and say a line an epoch."""
    began = time.monotonic()
    for done, epoch in enumerate(run.epochs(events), 1):
        left = (run.settings.epochs - epoch.epoch) * (time.monotonic() - began) / done
        say(
            f"epoch {epoch.epoch}/{run.settings.epochs}: loss {epoch.loss:.4f}, "
            f"{epoch.scores}, {epoch.seconds:.0f} s, about {_duration(left)} left"
        )


def _headline(run: Run) -> str:
    """Return what is going to be done, in one line."""
    s, d, model = run.settings, run.dataset, run.model
    arithmetic = "mixed precision" if run.learner.mixed else "float32"
    return (
        f"{len(d.train)} images to train with, {len(d.val)} held back; {d.kind}; "
        f"U-Net of width {model.width}, depth {model.depth} on {run.learner.device}; "
        f"recipe {s.recipe} in {arithmetic}; {s.epochs} epochs of {s.steps} tiles of {s.output} px"
    )


def _projection(run: Run) -> str:
    """Return how much is left to do, and how long it will take here."""
    if run.is_over():
        return f"nothing is left to do after {len(run.history)} epochs"
    steps = (run.settings.epochs - len(run.history)) * run.settings.steps
    return f"{steps:,} steps, about {_duration(projected_seconds(run))} unless it stops early"


def _duration(seconds: float) -> str:
    """Return a time in words that fit it.

    Examples
    --------
    >>> [_duration(s) for s in (7.4, 300, 7500)]
    ['7 s', '5 min', '2 h 05 min']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _check_val(val: Any, files: RunFiles) -> None:
    """Refuse to replace the user's own table by the log."""
    if val is not None and Path(val).resolve() == files.log.resolve():
        raise InputError(
            f"{val} says which images are held back, and the log would replace it; "
            f"choose another name than {files.model.name}"
        )


def _settled(settings: Training, model: UNet | None, dataset: Dataset) -> Training:
    """Take the sizes of the model to begin with, and vary what the data let vary."""
    varied = settings.augmentation
    if varied.empty is None:
        varied = replace(varied, empty=_EMPTY if dataset.kind == "instances" else 0)
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


def _nobody(_: str) -> None:
    pass
