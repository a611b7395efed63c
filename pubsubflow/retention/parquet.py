"""Parquet files of archived rows: each column in the type of Parquet that is nearest to its own."""

from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any

import msgspec

from pubsubflow.store.retention import Column

_GROUP_ROWS = 50_000
_GROUP_CHARACTERS = 16 << 20

_DECODED: dict[str, Any] = {
    "bigint": int,
    "integer": int,
    "smallint": int,
    "boolean": bool,
    "double precision": float,
    "text": str,
    "uuid": str,
    "bytea": str,
    "timestamp with time zone": datetime,
    "integer[]": list[int],
    "text[]": list[str],
}
"""Types of Postgres, and how they are read from JSON; others stay JSON, as strings."""


class ParquetFile:
    """Writes rows into one Parquet file.

    Timestamps are microseconds in UTC, JSON and unknown types are strings of JSON, UUIDs are
    strings.

    Args:
        file: Open for bytes; stays open.
        columns: The columns of the rows.
    """

    def __init__(self, file: Any, columns: Sequence[Column]) -> None:
        # Hundreds of modules, for those alone who archive in this format.
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        self._arrow = arrow
        self._columns = columns
        self._schema = arrow.schema(
            [(column.name, _arrow_type(arrow, column.type)) for column in columns]
        )
        self._values = [_value_of(column.type) for column in columns]
        fields = [(column.name, *_field_of(column.type)) for column in columns]
        row = msgspec.defstruct("ArchivedRow", fields, kw_only=True)
        self._decode = msgspec.json.Decoder(row).decode
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting: list[str] = []
        self._characters = 0

    def write(self, page: Sequence[str]) -> None:
        """Write rows, each a JSON object."""
        self._waiting += page
        self._characters += sum(map(len, page))
        if len(self._waiting) >= _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
            self._write_group()

    def finish(self) -> None:
        """Write what is still in memory, and the footer."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        rows = [self._decode(each) for each in self._waiting]
        self._waiting, self._characters = [], 0
        if not rows:
            return
        arrays = [
            self._arrow.array([value(getattr(row, field.name)) for row in rows], field.type)
            for field, value in zip(self._schema, self._values, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))


def _arrow_type(arrow: Any, kind: str) -> Any:
    known = {
        "bigint": arrow.int64(),
        "integer": arrow.int32(),
        "smallint": arrow.int16(),
        "boolean": arrow.bool_(),
        "double precision": arrow.float64(),
        "bytea": arrow.binary(),
        "timestamp with time zone": arrow.timestamp("us", tz="UTC"),
        "integer[]": arrow.list_(arrow.int32()),
        "text[]": arrow.list_(arrow.string()),
    }
    return known.get(kind, arrow.string())


def _field_of(kind: str) -> tuple[Any, Any]:
    """Return the type and the default of a field that is read from JSON."""
    if kind in _DECODED:
        return _DECODED[kind] | None, None
    return msgspec.Raw, msgspec.Raw(b"null")


def _value_of(kind: str) -> Callable[[Any], Any]:
    if kind == "bytea":
        return _bytes
    return _same if kind in _DECODED else _json_text


def _same(value: Any) -> Any:
    return value


def _bytes(value: str | None) -> bytes | None:
    # As Postgres writes them: \x, then hexadecimal digits.
    return None if value is None else bytes.fromhex(value[2:])


def _json_text(value: msgspec.Raw) -> str | None:
    text = bytes(value).decode()
    return None if text == "null" else text
