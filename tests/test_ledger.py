"""What a ledger says is what was recorded, whatever happens to its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.ledger import Done, Ledger, Record, digest, read_ledger

TEXTS = st.text(max_size=20)
DONE = st.integers(0, 30).map(lambda n: Done(number=n, input=f"in{n}", output=f"out{n}"))
FAILED = st.tuples(TEXTS, TEXTS)
EVENTS = st.lists(DONE | FAILED | st.integers(31, 40), max_size=20)
HEAD = Record(family="f", blocks=41, settings={"tile": [512, 512], "limits": None})


def record_all(ledger: Ledger, events: list) -> None:
    for event in events:
        if isinstance(event, Done):
            ledger.done(event)
        elif isinstance(event, tuple):
            ledger.failed(*event)
        else:
            ledger.skipped(event)


def expected(events: list) -> tuple[dict, dict, set]:
    done: dict = {}
    failed: dict = {}
    for event in events:
        if isinstance(event, Done):
            done[event.number] = event
        elif isinstance(event, tuple):
            failed[event[0]] = event[1]
    return done, failed, {event for event in events if isinstance(event, int)}


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What survives a power cut cannot be seen here, and a busy disk takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger") / "one.run"


@given(EVENTS)
def test_what_is_recorded_is_read(path: Path, events: list) -> None:
    with Ledger(path, HEAD) as ledger:
        record_all(ledger, events)
        # Before it is closed, too: another process may look at any time.
        found = read_ledger(path)
    assert found is not None
    assert (found.family, found.blocks, found.settings) == ("f", 41, HEAD.settings)
    assert (found.done, found.failed, found.skipped) == expected(events)


@given(EVENTS, st.data())
def test_what_is_cut_off_loses_its_last_line_only(path: Path, events: list, data: st.DataObject):
    with Ledger(path, HEAD) as ledger:
        record_all(ledger, events)
    whole = path.read_bytes()
    head = whole.index(b"\n")
    length = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:length])
    found = read_ledger(path)
    if length < head:
        assert found is None
        return
    assert found is not None
    # A line is whole without the end of line behind it, too.
    lines = [end for end in range(head, len(whole)) if whole[end : end + 1] == b"\n"]
    kept = sum(end <= length for end in lines) - 1
    assert (found.done, found.failed, found.skipped) == expected(events[:kept])


@given(st.lists(DONE, min_size=1, max_size=5), st.data())
def test_a_flipped_byte_is_never_believed(path: Path, events: list, data: st.DataObject) -> None:
    with Ledger(path, HEAD) as ledger:
        record_all(ledger, events)
    damaged = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    found = read_ledger(path)
    if found is not None:
        assert found.settings == HEAD.settings
        assert set(found.done.values()) <= set(events)


@given(EVENTS, EVENTS)
def test_a_ledger_goes_on_with_what_another_says(path: Path, first: list, second: list) -> None:
    with Ledger(path, HEAD) as ledger:
        record_all(ledger, first)
    known = read_ledger(path)
    assert known is not None
    with Ledger(path.with_name("two.run"), known) as ledger:
        record_all(ledger, second)
    found = read_ledger(path.with_name("two.run"))
    assert found is not None
    again = [*known.done.values(), *known.failed.items(), *known.skipped, *second]
    assert (found.done, found.failed, found.skipped) == expected(again)


def test_what_is_no_ledger_says_nothing(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none") is None
    (tmp_path / "empty.run").touch()
    assert read_ledger(tmp_path / "empty.run") is None
    (tmp_path / "text.run").write_text("no ledger\n")
    assert read_ledger(tmp_path / "text.run") is None


def test_digests_tell_types_shapes_and_values_apart() -> None:
    arrays = [
        np.zeros(6, np.uint8),
        np.zeros(6, np.int8),
        np.zeros((2, 3), np.uint8),
        np.zeros((3, 2), np.uint8),
        np.arange(6, dtype=np.uint8),
    ]
    assert len({digest(array) for array in arrays}) == len(arrays)
    crossed = np.arange(6, dtype=np.uint8).reshape(3, 2).T
    assert digest(crossed) == digest(np.ascontiguousarray(crossed))
    assert digest(arrays[0], arrays[4]) != digest(arrays[4], arrays[0])
