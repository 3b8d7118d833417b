"""Settings of every test: hypothesis profiles, and one place that names the real data."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dask.config
import pytest
from hypothesis import HealthCheck, settings

# No deadline: the first call of a network or of a compiled codec is slow by nature.
settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=50,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI", "").lower() in {"1", "true"} else "dev")

# Where the suite itself was started in the background, Ctrl-C is ignored, and every process that
# a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real images, or skip where it is missing."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the folder of real images is not here")
    return folder.resolve()


@pytest.fixture(autouse=True, scope="session")
def _torch_by_default() -> Iterator[None]:
    """Let tests that name no runtime have torch: OpenVINO compiles each of their many networks.

    The command line is tested as it is, and what is said of runtimes is tested with all of them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bigunet.models.runtimes._by_rule", lambda *_: "eager")
        yield


@pytest.fixture(autouse=True, scope="session")
def _float32_by_default() -> Iterator[None]:
    """Let tests that name no precision have the one that the law is about, on a GPU too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_bf16_supported", lambda **_: False)
        yield


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where choices of runtime and tile are stored, apart from this user's own."""
    monkeypatch.setattr(dask.config, "PATH", str(tmp_path / "dask"))
    with dask.config.set({"bigunet": {}}):
        yield tmp_path / "dask" / "bigunet.yaml"
