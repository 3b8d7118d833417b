"""A cluster that is lost is noticed in bounded time."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from distributed import Client

from bigunet.cluster.devices import Crew, Member
from bigunet.errors import RunError

__all__ = ["Watch", "members_of", "scheduler_of"]

REPLY_SECONDS = 30
"""That a scheduler may take to answer while work goes on, on a busy machine, too."""
LOOK_SECONDS = 5
"""Between two looks at the workers."""
LOST_SECONDS = 60
"""That all workers may be gone; killed ones are started again meanwhile."""


class Watch:
    """Looks at the workers of a cluster now and then, while the caller waits."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.where = scheduler_of(client).address
        self.lost = False
        """Whether the scheduler is gone, so that nobody asks it any more."""
        self.refused: dict[str, str] = {}
        """Workers that joined late and cannot take part, each with the cause."""
        self.members = members_of(client)
        self._looked = self._seen = time.monotonic()

    def look(self, resource: str | None = None, *, now: bool = False) -> Crew:
        """Return the workers that have a resource, as they were a moment ago.

        Raises
        ------
        RunError
            The scheduler is gone, or all these workers have been for too long.
        """
        if self.client.status != "running":
            raise self.gone()
        if now or time.monotonic() - self._looked > LOOK_SECONDS:
            try:
                self._take_stock(members_of(self.client))
            except (OSError, TimeoutError) as error:
                raise self.gone() from error
            self._looked = time.monotonic()
        crew = Crew.of(self.members, resource)
        if crew.members:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > LOST_SECONDS:
            having = f" that have the resource {resource}" if resource else ""
            raise RunError(
                f"all workers of the Dask cluster at {self.where}{having} have been gone for "
                f"{LOST_SECONDS} s"
            )
        return crew

    def refuse(self, address: str, cause: str) -> None:
        """Leave a worker out from now on."""
        self.refused.setdefault(address, cause)
        self._take_stock(self.members)

    def among(self, members: Collection[Member]) -> dict[str, Any]:
        """Return what keeps tasks to these workers, where others are refused; nothing else does."""
        if not self.refused:
            return {}
        # Not to the letter: they may all die, and others take their place.
        return {"workers": [one.address for one in members], "allow_other_workers": bool(members)}

    def _take_stock(self, members: tuple[Member, ...]) -> None:
        self.members = tuple(one for one in members if one.address not in self.refused)

    def begin(self) -> None:
        """Count the time without workers from now on."""
        self._seen = time.monotonic()

    def gone(self) -> RunError:
        """Return what to raise when the scheduler is gone."""
        self.lost = True
        return RunError(f"lost the Dask scheduler at {self.where}")


def scheduler_of(client: Client) -> Any:
    """Return what calls the scheduler's functions; a client that is open has one."""
    return client.scheduler


def members_of(client: Client) -> tuple[Member, ...]:
    """Ask the scheduler for its workers."""
    answer = client.sync(
        scheduler_of(client).identity, n_workers=-1, callback_timeout=REPLY_SECONDS
    )
    return tuple(
        Member(
            address=address,
            slots=facts["nthreads"],
            memory=facts["memory_limit"] or 0,
            resources=facts["resources"],
        )
        for address, facts in answer["workers"].items()
    )
