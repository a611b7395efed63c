"""Stored results: what stands in the place of a result that is elsewhere, as it is large.

A reference is an extension type of MessagePack, which no result of a task can hold. It says which
attempt made the result, and not where: each process that reads it makes the name by itself.
"""

from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

_CODE = 80
_MARK = bytes((_CODE,)) + b"psfresult"
_MARKED_BYTES = 16
_FIXARRAY = 0x90
_ARRAYS = (0xDC, 0xDD)
_DELIVERIES = 1 << 50
MAX_PARTS = 4096


class StoredInput(NamedTuple):
    """An encoded result that came with a task and refers to the result store."""

    data: bytes


class StoredResult(Struct, frozen=True, array_like=True):
    """A reference to a result in the result store, or with the executor of its task.

    Attributes:
        size: Bytes of the encoded result.
        keeper: The name of what keeps it for the tasks of its run, `dask:pubsubflow`; empty where
            nothing does.
        copied: Whether it is in the result store.
    """

    run: int
    node: int
    map_index: int
    attempt: int
    delivery: int
    size: int
    keeper: str = ""
    copied: bool = True

    @property
    def kept_name(self) -> str:
        """Its name with its keeper."""
        fence = self.run, self.node, self.map_index, self.attempt, self.delivery
        return ":".join((self.keeper, *map(str, fence)))

    @property
    def name(self) -> str:
        """Its file, below the store's URL."""
        folder = f"{self.run >> 32}/{self.run}"
        return f"{folder}/{self.node}.{self.map_index}.{self.attempt}.{self.delivery}.msgpack"


def run_of_kept(name: str) -> int:
    """Return the run's number of a `StoredResult.kept_name`."""
    return int(name.split(":")[-5])


def stored_part(fence: tuple[int, int, int, int, int], part: int, size: int) -> StoredResult:
    """Return the reference to a part of what an attempt has left.

    Args:
        fence: Run, node, map index, attempt and delivery.
        part: 0 for the result; from 1 on, the values that it has pushed.
        size: Bytes of the encoded value.
    """
    run, node, map_index, attempt, delivery = fence
    # No attempt has such a delivery; all versions make the name of the file from it.
    return StoredResult(run, node, map_index, attempt, delivery + part * _DELIVERIES, size)


def encode_stored(stored: StoredResult) -> bytes:
    """Return the reference as an encoded result."""
    return _encode(msgspec.msgpack.Ext(_CODE, _MARK[1:] + _encode(stored)))


def is_stored(data: bytes) -> bool:
    """Return whether an encoded result is a reference."""
    return _MARK in data[:_MARKED_BYTES] and isinstance(_decode(data), msgspec.msgpack.Ext)


def may_hold_stored(data: bytes) -> bool:
    """Return whether an encoded result is a reference, or may be a list with some."""
    return _MARK in data


def decode_stored(data: bytes) -> StoredResult | None:
    """Return the reference that an encoded result is; None if it is another value."""
    if not is_stored(data):
        return None
    found: Any = _decode(data)
    return decode_reference(bytes(found.data)[len(_MARK) - 1 :])


def is_list(data: bytes) -> bool:
    """Return whether an encoded result is a list."""
    return bool(data) and (data[0] & 0xF0 == _FIXARRAY or data[0] in _ARRAYS)


def decode_items(data: bytes) -> list[Raw]:
    """Return the encoded elements of an encoded list."""
    return _decode_list(data)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_list = msgspec.msgpack.Decoder(list[Raw]).decode
decode_reference = msgspec.msgpack.Decoder(StoredResult).decode
