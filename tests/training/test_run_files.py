"""Where a run may write, and what of it is read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from bigunet.errors import BigunetError, InputError, ModelError, OutputError, OutputExistsError
from bigunet.training.run_files import RunFiles


def refusal(model: Path, kind: type[BigunetError], *, overwrite: bool = False) -> str:
    with pytest.raises(kind) as caught:
        RunFiles(model).check(resume=False, overwrite=overwrite)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("taken", ["m.pt", "m.state.pt", "m.csv", "m.png"])
def test_nothing_is_replaced_unasked(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    assert f"{tmp_path / taken} exists" in refusal(tmp_path / "m.pt", OutputExistsError)
    RunFiles(tmp_path / "m.pt").check(resume=False, overwrite=True)
    RunFiles(tmp_path / "m.pt").check(resume=True, overwrite=False)
    assert (tmp_path / taken).read_text() == "mine"


def test_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "m.pt").mkdir()
    assert "is a folder" in refusal(tmp_path / "m.pt", OutputError, overwrite=True)
    assert "does not exist" in refusal(tmp_path / "none" / "m.pt", OutputError)
    for name in ("m", "m.csv", "m.png"):
        assert "end with .pt" in refusal(tmp_path / name, InputError)


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert "cannot be written to" in refusal(tmp_path / "m.pt", OutputError)


class Payload:
    """Unpickles to a call that creates a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> object:
        return open, (str(self.proof), "w")


def test_a_state_runs_nothing(tmp_path: Path) -> None:
    files, proof = RunFiles(tmp_path / "m.pt"), tmp_path / "proof"
    for content in (pickle.dumps(Payload(proof)), b"", b"no state"):
        files.state.write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            files.read_state("cpu")
    torch.save({"weights": {}}, files.state)
    with pytest.raises(ModelError, match="no state of a training run"):
        files.read_state("cpu")
    assert not proof.exists()
