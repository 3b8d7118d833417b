"""What Dask's settings say of encryption is heeded, and what they lack is said in one line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.delayed import delayed

from bigunet.cluster import open_executor
from bigunet.errors import InputError

pytest.importorskip("distributed")

ROLES = ("scheduler", "worker", "client")
NEEDED = (
    "needs the certificates of Dask's settings distributed.comm.tls.ca-file, "
    "distributed.comm.tls.client.cert and distributed.comm.tls.client.key; see docs/clusters.md"
)


def settings(certificate: Path, key: Path) -> dict[str, Any]:
    """Return settings of Dask for all who take part."""
    tls = "distributed.comm.tls"
    return {
        "distributed.comm.require-encryption": True,
        f"{tls}.ca-file": str(certificate),
        **{f"{tls}.{role}.cert": str(certificate) for role in ROLES},
        **{f"{tls}.{role}.key": str(key) for role in ROLES},
    }


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a certificate that was just made."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    certificate, key = tmp_path / "cluster.pem", tmp_path / "cluster.key"
    made = f"{openssl} req -x509 -newkey rsa:2048 -nodes -subj /CN=bigunet"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made.split(), *files], check=True, capture_output=True)
    return settings(certificate, key)


def refused(scheduler: str) -> str:
    with pytest.raises(InputError) as error, open_executor(scheduler, 1):
        pass
    return str(error.value)


def test_an_address_of_tls_needs_certificates() -> None:
    assert refused("tls://127.0.0.1:1") == f"'tls://127.0.0.1:1' {NEEDED}"


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    with dask.config.set(settings(tmp_path / "no.pem", tmp_path / "no.key")):
        for where, role in (("tls://127.0.0.1:1", "client"), ("processes", "scheduler")):
            said = refused(where)
            assert said.startswith(f"'{where}' needs certificates, and those of Dask's settings ")
            assert f"tls.{role}.cert" in said and "cannot be used (FileNotFoundError: " in said


def test_where_encryption_is_required_nothing_goes_without(made: dict[str, Any]) -> None:
    with dask.config.set({"distributed.comm.require-encryption": True}):
        said = refused("tcp://127.0.0.1:1")
        assert said.startswith("'tcp://127.0.0.1:1' is not encrypted, and Dask's setting ")
        assert refused("processes") == f"'processes' {NEEDED.replace('client', 'scheduler')}"
    with dask.config.set(made), open_executor("processes", 1) as executor:
        address = executor.watch.where  # type: ignore[attr-defined]
        assert address.startswith("tls://127.0.0.1:")
        assert executor.compute(delayed(7)) == 7
