"""Fixtures of the tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.made_cells import write_cells


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of small annotated images; it is not to be changed."""
    return write_cells(tmp_path_factory.mktemp("cells") / "data")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bits are promised for a number of threads; one is the quickest for small networks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
