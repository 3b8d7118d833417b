"""Where a training run keeps its model, its state, its log and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bigunet.errors import ModelError, OutputError, OutputExistsError

__all__ = ["STATE_FORMAT", "RunFiles"]

STATE_FORMAT = "bigunet-training"


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
        if not self.model.parent.is_dir():
            raise OutputError(f"the folder {self.model.parent} does not exist; make it first")
        if self.model.exists() and not (resume or overwrite):
            raise OutputExistsError(
                f"{self.model} exists; go on with --resume, replace it with --overwrite"
            )

    def write_state(self, state: dict[str, Any]) -> None:
        """Keep what the run needs to go on."""
        aside = self.state.with_suffix(".partial")
        torch.save(state, aside)
        aside.replace(self.state)

    def read_state(self, device: str) -> dict[str, Any]:
        """Return what a run left; nothing in the file is run."""
        try:
            state = torch.load(self.state, weights_only=True, map_location=device)
        except FileNotFoundError:
            raise ModelError(f"{self.state} is not there, so nothing can be resumed") from None
        except Exception as error:
            raise ModelError(f"{self.state} cannot be read; begin anew with --overwrite") from error
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise ModelError(f"{self.state} is no state of a training run")
        return state

    def write_log(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Write a line an epoch."""
        rows = [",".join(epochs[0]), *(",".join(map(str, e.values())) for e in epochs)]
        aside = self.log.with_suffix(".partial")
        aside.write_text("\n".join(rows) + "\n")
        aside.replace(self.log)
