"""Rows of JSON become columns of Parquet in the nearest types."""

import io
from datetime import UTC, datetime

import pytest
from pyarrow.parquet import read_table

from pubsubflow.errors import ConfigError
from pubsubflow.retention import archive, parquet
from pubsubflow.store.retention import Column

COLUMNS = [
    Column("id", "bigint"),
    Column("node", "smallint"),
    Column("done", "boolean"),
    Column("seconds", "double precision"),
    Column("name", "text"),
    Column("result", "bytea"),
    Column("at", "timestamp with time zone"),
    Column("path", "integer[]"),
    Column("extra", "jsonb"),
    Column("price", "numeric"),
]
FULL = (
    '{"id": 9007199254740993, "node": 1, "done": true, "seconds": 0.5, "name": "ü",'
    ' "result": "\\\\xc1ff", "at": "2026-11-20T16:00:00.123456+01:00", "path": [1, 2],'
    ' "extra": {"rows": [1]}, "price": 1.50, "of a newer version": 1}'
)
EMPTY = '{"id": 1}'


def written(pages, columns=COLUMNS):
    file = io.BytesIO()
    rows = parquet.ParquetFile(file, columns)
    for page in pages:
        rows.write(page)
    rows.finish()
    return read_table(io.BytesIO(file.getvalue()))


def test_each_type_comes_back():
    full, empty = written([[FULL], [EMPTY]]).to_pylist()
    assert full == {
        "id": 9007199254740993,
        "node": 1,
        "done": True,
        "seconds": 0.5,
        "name": "ü",
        "result": b"\xc1\xff",
        "at": datetime(2026, 11, 20, 15, 0, 0, 123456, tzinfo=UTC),
        "path": [1, 2],
        "extra": '{"rows": [1]}',
        "price": "1.50",
    }
    assert empty == dict.fromkeys(full) | {"id": 1}


def test_many_rows_are_written_in_groups(monkeypatch):
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 10)
    pages = [[f'{{"id": {page * 7 + row}}}' for row in range(7)] for page in range(9)]
    assert written(pages, [Column("id", "bigint")]).column("id").to_pylist() == list(range(63))


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(archive, "find_spec", lambda name: None if name == "pyarrow" else object())
    with pytest.raises(ConfigError, match=r"pubsubflow\[parquet\]"):
        archive.Archive("memory://archive", "parquet")
