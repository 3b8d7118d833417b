"""TLS between processes of Dask, as its settings say."""

from __future__ import annotations

import ssl

import dask
from distributed import Security

from bigunet.cluster.tasks import cause_text
from bigunet.errors import InputError

__all__ = ["check_address", "check_certificates", "is_required"]

_TLS = "tls://"
_REQUIRED = "distributed.comm.require-encryption"


def is_required() -> bool:
    """Tell whether Dask's settings forbid connections that anybody can read."""
    return bool(dask.config.get(_REQUIRED))


def check_address(address: str) -> None:
    """Refuse an address that Dask's settings are not fit for.

    Raises
    ------
    InputError
        It is of TLS, and there is no certificate; or it is not, and has to be.
    """
    if address.startswith(_TLS):
        check_certificates(address, "client")
    elif is_required():
        raise InputError(
            f"'{address}' is not encrypted, and Dask's setting {_REQUIRED} demands it; give the "
            f"address of a scheduler with TLS, {_TLS}…, or change the setting"
        )


def check_certificates(what: str, *roles: str) -> None:
    """Refuse to begin without the certificates that TLS needs.

    Raises
    ------
    InputError
        Some are not named, or cannot be used.
    """
    for role in roles:
        prefix = "distributed.comm.tls"
        needed = f"Dask's settings {prefix}.ca-file, {prefix}.{role}.cert and {prefix}.{role}.key"
        try:
            context = Security().get_connection_args(role)["ssl_context"]
        except (OSError, ValueError) as error:
            raise InputError(
                f"'{what}' needs certificates, and those of {needed} cannot be used "
                f"({cause_text(error)}); see docs/clusters.md"
            ) from error
        if not isinstance(context, ssl.SSLContext):
            raise InputError(f"'{what}' needs the certificates of {needed}; see docs/clusters.md")
