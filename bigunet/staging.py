"""What waits on disk between the stages of a run that makes objects.

Blocks are staged as runs, and the ids of their labels as one table for all of them,
of which a block reads its own slice. All of it lies in the hidden folder of the run
and goes with it::

    labels/.bigunet-nuclei/
      labels-0-3-7.npz      runs of block (3, 7) of plane 0
      labels-ids.npy        ids of all local labels, block after block
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.errors import RunError
from bigunet.geometry import Block, Span, Tiling
from bigunet.images.output import Output, check_owned
from bigunet.instances.archive import record_arrays, record_from_arrays
from bigunet.instances.block import BlockRecord, Runs
from bigunet.instances.merge import Merged, id_dtype
from bigunet.instances.rules import Rules
from bigunet.ledger import digest
from bigunet.masking.mask import Mask

__all__ = ["Stage", "Staging"]

Array: TypeAlias = npt.NDArray[Any]
Stage: TypeAlias = Literal["classes", "labels", "refined"]
"""What is staged of a block: its classes, its local labels, the same after the rules."""

_ALL_CLASSES = np.arange(256, dtype=np.uint8)
_RECORD = "record-"
# numpy parses headers with ast, which two threads at once break in CPython 3.11: "SystemError: AST
# constructor recursion depth mismatch", seen once in some thousands of reads.
_PARSING = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Staging:
    """The staged blocks of a run; small, so it travels with every task."""

    output: Output
    """Objects; says where, and whether this run still owns the place."""
    tiling: Tiling
    region: tuple[Span, Span]
    """What is segmented of each plane: objects know of nothing beyond."""
    planes: int
    rules: Rules
    """What makes objects of the staged blocks."""
    needed: npt.NDArray[np.bool_] | None = None
    """(blocks,), which of them are staged; the others are background. None for all."""
    mask: Mask | None = None
    """Outside of it everything is background."""

    @property
    def whole(self) -> tuple[int, int, int]:
        """Planes, rows and columns of what is segmented."""
        return self.planes, self.region[0].size, self.region[1].size

    def origin(self, at: int, y: Span, x: Span) -> tuple[int, int, int]:
        """Return the place of a window of a plane in the whole."""
        return at, y.start - self.region[0].start, x.start - self.region[1].start

    def write(
        self, stage: Stage, at: int, block: Block, runs: Runs, record: BlockRecord | None = None
    ) -> str:
        """Stage the runs of a block of plane ``at``, and what the merge has to know of it.

        Returns
        -------
        str
            Digest of what is on disk now.

        Raises
        ------
        RunError
            They cannot be written, or another run took the place over.
        """
        arrays: dict[str, Any] = {
            "shape": np.array(runs.shape),
            "label": runs.label,
            "length": runs.length,
        }
        if record is not None:
            arrays |= {_RECORD + name: array for name, array in record_arrays(record).items()}
        self._write(self._runs_file(stage, at, block), lambda file: np.savez(file, **arrays))
        return _digest(arrays)

    def read(self, stage: Stage, at: int, block: Block) -> Runs:
        """Return the runs of a block.

        Raises
        ------
        RunError
            They cannot be read.
        """
        if self.needed is not None and not self.needed[self.number(at, block)]:
            shape, rows = (1, block.y.size, block.x.size), np.zeros(block.y.size, np.int32)
            return Runs(shape=shape, label=rows, length=rows + block.x.size)
        path = self._runs_file(stage, at, block)
        with _staged(path) as staged:
            shape = tuple(staged["shape"].tolist())
            return Runs(shape=shape, label=staged["label"], length=staged["length"])

    def read_record(self, stage: Stage, at: int, block: Block) -> tuple[BlockRecord | None, str]:
        """Return what the merge has to know of a staged block, and the digest of it all.

        Raises
        ------
        RunError
            It cannot be read.
        """
        with _staged(self._runs_file(stage, at, block)) as arrays:
            own = {
                name.removeprefix(_RECORD): array
                for name, array in arrays.items()
                if name.startswith(_RECORD)
            }
            return record_from_arrays(own) if own else None, _digest(arrays)

    def write_ids(self, stage: Stage, merged: Merged) -> None:
        """Stage the id of every local label, for `read_ids`."""
        ids = merged.ids.astype(id_dtype(merged.count))
        self._write(self._ids_file(stage), lambda file: np.save(file, ids))

    def read_ids(self, stage: Stage, first: int, count: int) -> Array:
        """Return what the labels of one block become, ``table[label]``; background stays 0.

        Parameters
        ----------
        first, count : int
            The block's part of the table.
        """
        path = self._ids_file(stage)
        try:
            # Mapped, so that no more is read than this.
            with _PARSING:
                ids = np.load(path, mmap_mode="r", allow_pickle=False)[first : first + count]
        except (OSError, ValueError, EOFError) as error:
            raise RunError(f"cannot read {path}: {_reason(error)}") from error
        return np.concatenate([np.zeros(1, ids.dtype), ids])

    def classes(self, at: int, block: Block) -> tuple[Array, tuple[Span, Span]]:
        """Return the classes of a block and its halo, less where the region ends.

        Returns
        -------
        classes : (1, y, x) uint8 array
        window : (Span, Span)
            Rows and columns.
        """
        halo = self.rules.halo
        y, x = (
            Span(span.start - halo, span.stop + halo).cut(whole)
            for span, whole in zip((block.y, block.x), self.region, strict=True)
        )
        return self._window("classes", at, y, x, lambda _: _ALL_CLASSES), (y, x)

    def ids(self, at: int, block: Block, offsets: npt.NDArray[np.int64]) -> Array:
        """Return the merged ids of a block and its ring, 0 beyond the region.

        Parameters
        ----------
        offsets : (blocks + 1,) int64 array
            Where each block's part of the table of ids begins; see `number`.

        Returns
        -------
        (1, y + 2 ring, x + 2 ring) array
        """

        def table(other: Block) -> Array:
            first, stop = offsets[self.number(at, other) :][:2]
            return self.read_ids("labels", int(first), int(stop - first))

        ring = self.rules.ring
        y, x = (Span(span.start - ring, span.stop + ring) for span in (block.y, block.x))
        return self._window("labels", at, y, x, table)

    def inside(self, at: int, block: Block) -> npt.NDArray[np.bool_] | None:
        """Return which pixels of a block and its ring are inside the mask, None if there is none.

        Returns
        -------
        (1, y + 2 ring, x + 2 ring) bool array
            Beyond the border of the plane as at the border: nothing is decided there.
        """
        if self.mask is None:
            return None
        ring = self.rules.ring
        wide = [Span(span.start - ring, span.stop + ring) for span in (block.y, block.x)]
        y, x = (span.cut(Span(0, n)) for span, n in zip(wide, self.tiling.shape, strict=True))
        pads = [(n.start - m.start, m.stop - n.stop) for m, n in zip(wide, (y, x), strict=True)]
        return np.pad(self.mask.read(at, y.slice, x.slice), pads, mode="edge")[None]

    def number(self, at: int, block: Block) -> int:
        """Return the place of a block among all blocks of all planes, in order of `Plan.work`."""
        rows, columns = self.tiling.grid(self.region)
        row, column = block.index[0] - rows.start, block.index[1] - columns.start
        return (at * len(rows) + row) * len(columns) + column

    def _window(
        self, stage: Stage, at: int, y: Span, x: Span, table: Callable[[Block], Array]
    ) -> Array:
        """Put a window together from the blocks that it meets; 0 beyond the region."""
        parts = []
        for other in self.tiling.blocks((y.cut(self.region[0]), x.cut(self.region[1]))):
            whole = self._block(other)
            inside = (other.y.shift(-whole.y.start).slice, other.x.shift(-whole.x.start).slice)
            runs = self.read(stage, at, whole).window(slice(0, 1), *inside)
            parts.append((other, runs.expand(table(whole))))
        dtype = np.result_type(*(part.dtype for _, part in parts))
        window = np.zeros((1, y.size, x.size), dtype=dtype)
        for other, part in parts:
            rows, columns = other.y.shift(-y.start), other.x.shift(-x.start)
            window[:, rows.slice, columns.slice] = part
        return window

    def _block(self, part: Block) -> Block:
        """Return the block that a part is of, as it was segmented."""
        block = self.tiling.block_at(part.index)
        return Block(block.index, block.y.cut(self.region[0]), block.x.cut(self.region[1]))

    @property
    def _folder(self) -> Path:
        return self.output.mark.parent

    def _runs_file(self, stage: Stage, at: int, block: Block) -> Path:
        return self._folder / f"{stage}-{at}-{block.index[0]}-{block.index[1]}.npz"

    def _ids_file(self, stage: Stage) -> Path:
        return self._folder / f"{stage}-ids.npy"

    def _write(self, path: Path, save: Callable[[IO[bytes]], None]) -> None:
        """Write aside and rename, so that nothing half-written has this name."""
        check_owned(self.output)
        # A task may run twice at once, where a cluster has lost sight of a worker.
        aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        try:
            with aside.open("wb") as file:
                save(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            raise RunError(f"cannot write {path}: {_reason(error)}") from error


@contextmanager
def _staged(path: Path) -> Iterator[Mapping[str, Array]]:
    """Open the arrays of a staged block."""
    try:
        with path.open("rb") as file, _PARSING, np.load(file, allow_pickle=False) as staged:
            arrays = dict(staged)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"cannot read {path}: {_reason(error)}") from error
    try:
        yield arrays
    except (ValueError, KeyError) as error:
        raise RunError(f"cannot read {path}: {_reason(error)}") from error


def _digest(arrays: Mapping[str, Array]) -> str:
    return digest(*(arrays[name] for name in sorted(arrays)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or "it is cut short"
