"""Which workers have a device, and what a task asks of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from bigunet.errors import InputError

__all__ = ["ADVERTISED", "FOUND", "Crew", "Member", "has_cuda"]

ADVERTISED = "GPU"
"""The resource by which the user's workers say that they have one."""
FOUND = "bigunet-cuda"
"""The resource of workers that have one and do not say so."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A worker process."""

    address: str
    slots: int
    """Tasks that it runs at once."""
    memory: int = 0
    """Bytes; 0 is no limit."""
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Crew:
    """The workers that may take a task."""

    members: tuple[Member, ...]
    resource: str | None = None
    """That each of them has."""

    @classmethod
    def of(cls, members: Collection[Member], resource: str | None) -> Crew:
        """Choose those that have a resource."""
        if resource is None:
            return cls(tuple(members))
        return cls(tuple(m for m in members if m.resources.get(resource, 0) > 0), resource)

    @property
    def slots(self) -> int:
        """Tasks at work at once."""
        return sum(member.slots for member in self.members)

    def request(self) -> dict[str, float] | None:
        """Return what a task takes of the resource: so little that it fills all slots."""
        if self.resource is None or not self.members:
            return None
        share = min(member.resources[self.resource] / member.slots for member in self.members)
        # A power of two adds up without rounding.
        return {self.resource: min(1.0, 2.0 ** math.floor(math.log2(share)))}


def has_cuda() -> bool:
    """Tell whether torch can use CUDA in this process."""
    from bigunet.models.devices import choose_device

    try:
        choose_device("cuda")
    except InputError:
        return False
    return True
