"""The errors a user can cause, under one root; each is also the builtin it means.

A message is one line that says what, the values, and the way out. The command
prints it as it is and exits with ``exit_code``.
"""

from __future__ import annotations

__all__ = [
    "BigunetError",
    "DependencyError",
    "DeviceMemoryError",
    "InputError",
    "MemoryLimitError",
    "ModelError",
    "NotFoundError",
    "OutputError",
    "OutputExistsError",
    "RunError",
    "TakenOverError",
]


class BigunetError(Exception):
    """Root of all errors of bigunet; refused before anything was written."""

    exit_code = 2
    permanent = True
    """Whether another attempt would end in the same way."""
    stops_run = False
    """Whether all other blocks would end in the same way."""

    def __str__(self) -> str:
        # OSError and ImportError have their own ideas of how a message looks.
        return str(self.args[0]) if self.args else ""


class InputError(BigunetError, ValueError):
    """An image or an option that cannot be used as given."""


class NotFoundError(BigunetError, FileNotFoundError):
    """A path that does not exist."""


class ModelError(BigunetError, ValueError):
    """A model file that cannot be read, or does not fit the image."""


class OutputExistsError(BigunetError, FileExistsError):
    """A result that is there already and may not be replaced unasked."""


class OutputError(BigunetError, OSError):
    """A place that cannot be written to."""

    permanent = False


class MemoryLimitError(BigunetError, MemoryError):
    """A plan whose projected memory is larger than what is allowed."""


class DependencyError(BigunetError, ImportError):
    """A package that is needed for what was asked is not installed."""


class RunError(BigunetError, RuntimeError):
    """Work that began and could not be finished; nothing was listed."""

    exit_code = 1
    permanent = False


class TakenOverError(RunError):
    """A place that this run wrote to is not its own any more."""

    permanent = True
    stops_run = True


class DeviceMemoryError(RunError, MemoryError):
    """One tile that the memory of a device has no room for."""

    permanent = True
    stops_run = True
