"""Where a training run keeps its model, its state, its log and its picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bigunet.errors import InputError, ModelError, OutputError, OutputExistsError
from bigunet.models.container import write_content

__all__ = ["STATE_FORMAT", "RunFiles"]

STATE_FORMAT = "bigunet-training 2"


@dataclass(frozen=True)
class RunFiles:
    """The model of a run and what lies beside it; each is written aside and renamed."""

    model: Path

    @property
    def state(self) -> Path:
        """What a run needs to go on."""
        return self.model.with_suffix(".state.pt")

    @property
    def log(self) -> Path:
        """A table of epochs."""
        return self.model.with_suffix(".csv")

    @property
    def picture(self) -> Path:
        """Validation images, predictions and truth."""
        return self.model.with_suffix(".png")

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse a place that cannot be written to, or that is taken."""
        folder = self.model.parent
        if self.model.suffix != ".pt":
            raise InputError(f"{self.model} is no name of a model file: it has to end with .pt")
        if not folder.is_dir():
            raise OutputError(f"the folder {folder} does not exist; make it first")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"the folder {folder} cannot be written to; choose another one")
        for path in (self.model, self.state, self.log, self.picture):
            if path.is_dir():
                raise OutputError(f"cannot write {path}: it is a folder; choose another name")
            if path.exists() and not (resume or overwrite):
                raise OutputExistsError(
                    f"{path} exists; go on with --resume, replace it with --overwrite, "
                    f"or choose another name than {self.model.name}"
                )

    def begin(self) -> None:
        """Forget the state of an earlier run, so that nobody goes on with that one."""
        self.state.unlink(missing_ok=True)

    def write_state(self, state: dict[str, Any]) -> None:
        """Keep what the run needs to go on."""
        write_content(state, self.state)

    def read_state(self, device: str) -> dict[str, Any]:
        """Return what a run left; nothing in the file is run."""
        try:
            state = torch.load(self.state, weights_only=True, map_location=device)
        except FileNotFoundError:
            raise ModelError(f"{self.state} is not there, so nothing can be resumed") from None
        except Exception as error:
            raise ModelError(f"{self.state} cannot be read; begin anew with --overwrite") from error
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise ModelError(
                f"{self.state} is no state of a training run of this version; "
                "begin anew with --overwrite"
            )
        return state

    def write_log(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Write a line an epoch."""
        rows = [",".join(epochs[0]), *(",".join(map(str, e.values())) for e in epochs)]
        aside = self.log.with_suffix(".partial")
        aside.write_text("\n".join(rows) + "\n")
        aside.replace(self.log)
