"""What is left of a run whose processes are killed, again and again.

A scheduler, two workers under nannies and ``bigunet segment`` are processes on
loopback, which a seeded schedule kills in mid-run; see `benchmarks.kill_rounds` for the
laws that are held after every round.

Run ``python -m benchmarks.bench_faults --runs 20 --kills 10``.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.counted_blocks import PAUSE
from benchmarks.kill_rounds import BLOCK, IN_FLIGHT, KILLS, SAVES, SIDE, Case, run_round
from benchmarks.loopback import Loopback
from benchmarks.measure import save_results


def bench(runs: int, kills: int, side: int, folder: Path) -> dict[str, Any]:
    """Return the figures of all rounds; each kind of label is made undisturbed first."""
    undisturbed = {save: _undisturbed(folder / f"undisturbed-{save}", save, side) for save in SAVES}
    rounds, broken = list[dict[str, Any]](), list[int]()
    for seed in range(runs):
        save = SAVES[seed % len(SAVES)]
        case = Case.write(folder / f"case-{seed}", save, side)
        kinds = random.Random(seed).sample(KILLS * (1 + kills // len(KILLS)), kills)
        try:
            with Loopback(folder / f"round-{seed}") as cluster:
                told = run_round(cluster, case, kinds, seed, undisturbed[save][0])
        except AssertionError as error:
            print(f"round {seed}: {error}", flush=True)
            broken.append(seed)
            continue
        rounds.append(told.as_dict())
        print(json.dumps(rounds[-1]), *told.said, sep="\n  ", flush=True)
    return {
        "side": side,
        "block": BLOCK,
        "pause": PAUSE,
        "in_flight": IN_FLIGHT,
        "total": _total(rounds),
        "broken": broken,
        "undisturbed": {save: told for save, (_, told) in undisturbed.items()},
        "rounds": rounds,
    }


def _undisturbed(folder: Path, save: str, side: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files and the figures of a round in which nothing is killed."""
    case = Case.write(folder, save, side)
    with Loopback(folder / "cluster") as cluster:
        told = run_round(cluster, case, (), 0)
    print("undisturbed", json.dumps(told.as_dict()), *told.said, sep="\n  ", flush=True)
    return case.files(), told.as_dict()


def _total(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up what all rounds have."""
    counts = {
        name: sum((Counter(one[name]) for one in rounds), Counter()) for name in ("kills", "ends")
    }
    sums = {n: sum(one[n] for one in rounds) for n in ("blocks", "computed", "redone", "most")}
    return {"killed": counts["kills"].total(), **{n: dict(c) for n, c in counts.items()}, **sums}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10, help="in each run")
    parser.add_argument("--side", type=int, default=SIDE, help="of the slide, in pixels")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    given = parser.parse_args()
    # So that clusters end with this process, whoever ends it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        found = bench(given.runs, given.kills, given.side, Path(folder))
    print(json.dumps(found["total"]))
    if given.save:
        print(save_results(given.save, found))
    if found["broken"]:
        sys.exit(f"the laws did not hold in rounds {found['broken']}")


if __name__ == "__main__":
    main()
