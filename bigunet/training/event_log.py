"""The log of a run for TensorBoard: curves and the picture of validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from bigunet.errors import DependencyError, OutputError

__all__ = ["EventLog", "check_tensorboard"]


def check_tensorboard() -> None:
    """Raise DependencyError, with the way out, where TensorBoard is not installed."""
    _writer()


class EventLog:
    """Events of a run, a step an epoch.

    A run that goes on writes a file of its own, which tells TensorBoard to drop what
    was logged of epochs that are trained again; so does one that begins anew.

    Parameters
    ----------
    folder : path or None
        None logs nothing.
    first : int
        The epoch to be logged first.

    Raises
    ------
    DependencyError
        TensorBoard is not installed.
    OutputError
        A place that cannot be written to.
    """

    def __init__(self, folder: Path | None, *, first: int) -> None:
        self._events: Any = None
        if folder is None:
            return
        writer = _writer()
        try:
            self._events = writer(str(folder), purge_step=first)
        except OSError as error:
            raise OutputError(f"cannot write events to {folder}: {error.strerror}") from error

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._events is not None:
            self._events.close()

    def scalars(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log numbers by name; what is no number is left out."""
        if self._events is None:
            return
        for name, value in values.items():
            if math.isfinite(value):
                self._events.add_scalar(name, value, epoch)
        self._events.flush()

    def picture(self, epoch: int, name: str, path: Path) -> None:
        """Log a picture that lies in a file."""
        if self._events is None:
            return
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        self._events.add_image(name, pixels, epoch, dataformats="HWC")
        self._events.flush()


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DependencyError(
            'a log for TensorBoard needs the package tensorboard: pip install "bigunet[train]"'
        ) from error
    return SummaryWriter
