"""Tables that are written as their rows come: Parquet or CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from bigunet.errors import DependencyError, InputError
from bigunet.files import written_aside
from bigunet.measurement.properties import Column, Value

__all__ = ["Table", "check_format", "open_table"]

Row: TypeAlias = Sequence[Value]

ROWS = 2**15
"""Rows that are written at once: their number does not depend on how rows came."""


class Table(Protocol):
    """A table that rows are written to."""

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows after those before; None is no value."""
        ...


def check_format(path: Path) -> None:
    """Refuse a name whose ending is no format, and Parquet where it cannot be written.

    Raises
    ------
    InputError
        If the name ends neither in .parquet nor in .csv.
    DependencyError
        If pyarrow is needed and not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise InputError(f"{path}: tables are written as .parquet or .csv; choose such a name")
    if suffix == ".parquet":
        _pyarrow()


@contextmanager
def open_table(path: Path, columns: Sequence[Column], facts: Mapping[str, str]) -> Iterator[Table]:
    """Open a new table; it has its name once it is complete.

    Parameters
    ----------
    path : path
        Ends in .parquet or .csv.
    columns : sequence of Column
    facts : mapping of str to str
        What else there is to say; kept in Parquet's metadata.

    Raises
    ------
    OutputError, RunError
        If it cannot be written.
    """
    write = _csv if path.suffix.lower() == ".csv" else _parquet
    with written_aside(path) as aside, write(aside, columns, facts) as table:
        yield table


class _Csv:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def write(self, rows: Iterable[Row]) -> None:
        self.writer.writerows(rows)


@contextmanager
def _csv(path: Path, columns: Sequence[Column], _: Mapping[str, str]) -> Iterator[Table]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in columns])
        yield _Csv(writer)


class _Parquet:
    def __init__(self, writer: Any) -> None:
        self.writer, self.waiting = writer, list[Row]()

    def write(self, rows: Iterable[Row]) -> None:
        self.waiting.extend(rows)
        while len(self.waiting) >= ROWS:
            self._flush(ROWS)

    def close(self) -> None:
        if self.waiting:
            self._flush(len(self.waiting))

    def _flush(self, count: int) -> None:
        some, self.waiting = self.waiting[:count], self.waiting[count:]
        schema = self.writer.schema
        arrays = [
            _pyarrow().array(values, field.type)
            for values, field in zip(zip(*some, strict=True), schema, strict=True)
        ]
        self.writer.write_table(_pyarrow().Table.from_arrays(arrays, schema=schema))


@contextmanager
def _parquet(path: Path, columns: Sequence[Column], facts: Mapping[str, str]) -> Iterator[Table]:
    arrow = _pyarrow()
    from pyarrow.parquet import ParquetWriter

    types = {
        "integer": arrow.int64(),
        "unsigned": arrow.uint64(),
        "number": arrow.float64(),
        "text": arrow.string(),
    }
    fields = [arrow.field(column.name, types[column.kind]) for column in columns]
    with ParquetWriter(path, arrow.schema(fields, metadata=facts), compression="zstd") as writer:
        table = _Parquet(writer)
        yield table
        table.close()


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise DependencyError(
            "Parquet is written by the package pyarrow: install it with "
            "pip install 'bigunet[measure]', or give --output a name that ends in .csv"
        ) from error
    return pyarrow
