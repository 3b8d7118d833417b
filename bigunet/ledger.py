"""The record of what is done: which blocks of a run are on disk, made how, and of what.

A ledger is one file of lines beside an unfinished result. The first says how the blocks
are made; every other one records a block, after its data are on disk::

    8f0c11d2 {"family": "5e…", "blocks": 64, "settings": {"tile": [512, 512], …}}
    1b22a9e4 {"done": 17, "input": "9c…", "output": "04…"}
    77d0e1b3 {"failed": "block rows 0:512, columns 512:1024", "cause": "cannot read …"}
    02c5fa80 {"skipped": 19}

Each begins with its checksum, so a line that was cut short or damaged says nothing. A
later line about the same block replaces an earlier one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Done", "Ledger", "Record", "digest", "read_ledger"]

Array: TypeAlias = npt.NDArray[Any]

_SECONDS_UNSYNCED = 1.0


@dataclass(frozen=True, kw_only=True)
class Done:
    """A block that is on disk."""

    number: int
    """Its place among all blocks of all planes."""
    input: str
    """Digest of the pixels that it was made of."""
    output: str
    """Digest of what was written."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a ledger says."""

    family: str
    """The same for all results of a run, and for all that went on with it."""
    blocks: int
    """Of all planes."""
    settings: Mapping[str, Any]
    """How blocks are made: all that their bytes depend on beside the pixels."""
    done: Mapping[int, Done] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    """Cause of each failure, by the place as messages name it."""
    skipped: frozenset[int] = frozenset()
    """Blocks that needed no network."""
    updated: float = 0.0
    """Time of the last line, in seconds since the epoch."""


class Ledger:
    """Records blocks as they are done; to be closed.

    Parameters
    ----------
    path : path
        Made anew, in one step, with what is known already.
    record : Record
    """

    def __init__(self, path: Path, record: Record) -> None:
        aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        aside.write_bytes(b"".join(map(_line, _entries(record))))
        _sync(aside)
        aside.replace(path)
        self._file: IO[bytes] = path.open("ab")
        self._synced = time.monotonic()

    def done(self, block: Done) -> None:
        """Record a block whose data are on disk."""
        self._append(_done_entry(block))

    def failed(self, where: str, cause: str) -> None:
        """Record why a block, or what is made of the blocks, is missing."""
        self._append({"failed": where, "cause": cause})

    def skipped(self, number: int) -> None:
        """Record a block that needs no network."""
        self._append({"skipped": number})

    def close(self) -> None:
        """Bring to disk what is not there yet."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        # In one write, so that whatever kills this process leaves whole lines.
        self._file.write(_line(entry))
        self._file.flush()
        # A power cut loses the lines of a second, never one whose block is not on disk.
        if time.monotonic() - self._synced > _SECONDS_UNSYNCED:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def read_ledger(path: Path) -> Record | None:
    """Return what a ledger says; None where there is none, or not even its first line.

    Lines that are damaged or unknown say nothing.
    """
    try:
        lines = path.read_bytes().split(b"\n")
        updated = path.stat().st_mtime
    except OSError:
        return None
    entries = [entry for entry in map(_entry, lines) if entry is not None]
    if not lines or _entry(lines[0]) is None or "settings" not in entries[0]:
        return None
    head, done, failed, skipped = entries[0], {}, {}, set()
    for entry in entries[1:]:
        if "done" in entry:
            number = entry["done"]
            done[number] = Done(number=number, input=entry["input"], output=entry["output"])
        elif "failed" in entry:
            failed[entry["failed"]] = entry["cause"]
        elif "skipped" in entry:
            skipped.add(entry["skipped"])
    return Record(
        family=head["family"],
        blocks=head["blocks"],
        settings=head["settings"],
        done=done,
        failed=failed,
        skipped=frozenset(skipped),
        updated=updated,
    )


def digest(*arrays: Array) -> str:
    """Return the digest of arrays, types and shapes included.

    Examples
    --------
    >>> digest(np.zeros(3)) == digest(np.zeros(3)) != digest(np.zeros((3, 1)))
    True
    """
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _entries(record: Record) -> Iterator[Mapping[str, Any]]:
    yield {
        "family": record.family,
        "blocks": record.blocks,
        "settings": dict(record.settings),
    }
    yield from map(_done_entry, _in_order(record.done))
    for where, cause in record.failed.items():
        yield {"failed": where, "cause": cause}
    for number in sorted(record.skipped):
        yield {"skipped": number}


def _in_order(done: Mapping[int, Done]) -> Iterable[Done]:
    return (done[number] for number in sorted(done))


def _done_entry(block: Done) -> Mapping[str, Any]:
    return {"done": block.number, "input": block.input, "output": block.output}


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _entry(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
