from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from bigunet.errors import InputError, OutputError
from bigunet.measurement import table as tables
from bigunet.measurement.properties import Column
from bigunet.measurement.table import check_format, open_table

COLUMNS = (
    Column(name="id", kind="unsigned"),
    Column(name="class_name", kind="text"),
    Column(name="t", kind="integer"),
    Column(name="area", kind="number"),
)
ROWS = [(2**64 - 1, "tumour, left", 0, 1.5), (3, None, 1, None), (4, "", -1, 0.1)]


def test_parquet_gives_back_every_value_and_type(tmp_path: Path) -> None:
    with open_table(tmp_path / "a.parquet", COLUMNS, {"bigunet": "{}"}) as table:
        table.write(ROWS[:1])
        table.write(ROWS[1:])
    found = parquet.read_table(tmp_path / "a.parquet")
    assert found.schema.types == [pa.uint64(), pa.string(), pa.int64(), pa.float64()]
    assert found.schema.metadata == {b"bigunet": b"{}"}
    assert [tuple(row.values()) for row in found.to_pylist()] == ROWS


def test_csv_gives_back_every_value(tmp_path: Path) -> None:
    with open_table(tmp_path / "a.CSV", COLUMNS, {}) as table:
        table.write(ROWS)
    with (tmp_path / "a.CSV").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "class_name", "t", "area"]
    assert rows == [["" if v is None else str(v) for v in row] for row in ROWS]


def test_files_do_not_depend_on_how_rows_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS", 7)
    rows = [(i, str(i), i, i / 3) for i in range(50)]
    for name, step in (("a", 50), ("b", 1), ("c", 9)):
        with open_table(tmp_path / f"{name}.parquet", COLUMNS, {}) as table:
            for k in range(0, 50, step):
                table.write(rows[k : k + step])
    one, *others = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert [other == one for other in others] == [True, True]
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 8


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_what_fails_leaves_nothing(tmp_path: Path, name: str) -> None:
    table = open_table(tmp_path / name, COLUMNS, {})
    table.__enter__().write(ROWS)
    assert list(tmp_path.iterdir())
    assert not table.__exit__(KeyError, KeyError(), None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError), open_table(tmp_path / "none" / name, COLUMNS, {}):
        pass


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    with open_table(tmp_path / "a.parquet", COLUMNS, {}):
        pass
    assert parquet.read_table(tmp_path / "a.parquet").shape == (0, 4)


def test_other_formats_are_refused() -> None:
    with pytest.raises(InputError, match=r"a\.xlsx: tables are written as \.parquet or \.csv"):
        check_format(Path("a.xlsx"))
