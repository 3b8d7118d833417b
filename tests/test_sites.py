"""What a plan takes from workers that differ: what all of them can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from bigunet.cluster import Executor
from bigunet.sites import find_site


class Workers:
    """Workers with GPUs that answer as they were told to."""

    processes, workers, threads, memory = 2, 4, 1, 10**9

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers

    def devices(self) -> frozenset[str]:
        return frozenset({"cpu", "cuda"})

    def ask(self, function: Callable[..., Any], *_: Any, device: str) -> list[Any]:
        assert device == "cuda" or function.__name__ == "computes_bfloat16"
        return self.answers[function.__name__]


@pytest.mark.parametrize("native", [(True, True), (True, False), (False, False)])
def test_gpus_that_differ_do_what_all_of_them_can(native: tuple[bool, bool]) -> None:
    workers = Workers(device_bytes=[8 * 10**9, 4 * 10**9], computes_bfloat16=list(native))
    site = find_site("tcp://somewhere:1", None, "auto", cast(Executor, workers))
    assert (site.device, site.device_memory, site.bfloat16) == ("cuda", 4 * 10**9, all(native))
    on_cpu = find_site("tcp://somewhere:1", None, "cpu", cast(Executor, workers))
    assert (on_cpu.device, on_cpu.device_memory, on_cpu.bfloat16) == ("cpu", None, all(native))
