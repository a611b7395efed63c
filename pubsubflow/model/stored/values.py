"""Stored values that daemons of several versions read, change and write back.

An older daemon keeps the fields that only a newer one knows: it puts them aside when it reads a
value, and writes them back in their places. A value that it cannot read at all it leaves alone.
"""

from itertools import zip_longest
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Struct, ValidationError
from msgspec.inspect import ListType, StructType, Type, VarTupleType, type_info

from pubsubflow.errors import NewerFormat

_MISSING = object()
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class StoredValue(Struct, array_like=True, forbid_unknown_fields=True, dict=True):
    """Base of the values that are written back; Structs inside them forbid unknown fields, too.

    Attributes:
        newer: The value as it was read, in plain lists, if it has fields of a newer version.
    """

    newer: ClassVar[Any] = None


V = TypeVar("V")
S = TypeVar("S", bound=StoredValue)


class StoredDecoder(Generic[V]):
    """Decodes values that are never written back, such as specs: what is unknown is ignored.

    Args:
        kind: Their type.
        what: What they are, for people.
    """

    def __init__(self, kind: type[V], what: str) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._what = what

    def decode(self, data: bytes) -> V:
        """Decode a value.

        Raises:
            NewerFormat: It has a form of a newer version.
        """
        try:
            return self._decode(data)
        except ValidationError as error:
            raise NewerFormat(f"{self._what} ({error})") from error


class StoredCodec(Generic[S]):
    """Decodes and encodes values that are written back.

    The hot path calls `decode_known` and `encode_known`, and the others only for what has fields
    of a newer version.

    Args:
        kind: Their type.
        what: What they are, for people.

    Attributes:
        decode_known: Decodes a value of this version; raises ValidationError for another.
        encode_known: Encodes a value of which `newer` is None.
    """

    def __init__(self, kind: type[S], what: str) -> None:
        self.decode_known = msgspec.msgpack.Decoder(kind).decode
        self.encode_known = _pack
        self._type = type_info(kind)
        self._what = what

    def decode(self, data: bytes) -> S:
        """Decode a value.

        Raises:
            NewerFormat: It has a form of a newer version.
        """
        try:
            return self.decode_known(data)
        except ValidationError:
            return self.decode_newer(data)

    def encode(self, value: S) -> bytes:
        """Encode a value, with the fields of a newer version that it was read with."""
        if value.newer is None:
            return _pack(value)
        return _pack(_merged(_unpack(_pack(value)), value.newer, self._type))

    def decode_newer(self, data: bytes) -> S:
        """Decode a value that `decode_known` refuses.

        Raises:
            NewerFormat: It has a form of a newer version.
        """
        read = _unpack(data)
        try:
            value = self.decode_known(_pack(_known(read, self._type)))
        except ValidationError as error:
            raise NewerFormat(f"{self._what} ({error})") from error
        value.__dict__["newer"] = read
        return value


def keep_unknown(encoded: bytes, before: bytes, kind: type) -> bytes:
    """Return an encoded value with the fields of a newer version that it had before.

    Args:
        encoded: The value as it is now.
        before: The encoded value that it was made from.
        kind: Its type.
    """
    old = _unpack(before)
    known = type_info(kind)
    if _known(old, known) == old:
        return encoded
    return _pack(_merged(_unpack(encoded), old, known))


def _known(read: Any, kind: Type) -> Any:
    """Return the part of a value in plain lists that a type knows."""
    if not isinstance(read, list):
        return read
    if isinstance(kind, StructType):
        return [_known(each, field.type) for each, field in zip(read, kind.fields, strict=False)]
    if isinstance(kind, ListType | VarTupleType):
        return [_known(each, kind.item_type) for each in read]
    return read


def _merged(new: Any, old: Any, kind: Type) -> Any:
    """Return a value with what only the old one has behind the fields that a type knows."""
    if not (isinstance(new, list) and isinstance(old, list)):
        return new
    if isinstance(kind, StructType):
        known = len(kind.fields)
        fields = zip(new, old[:known], kind.fields, strict=False)
        merged = [_merged(value, before, field.type) for value, before, field in fields]
        return merged + new[len(old) :] + old[known:]
    if isinstance(kind, ListType | VarTupleType):
        # Their positions are those of nodes, inputs or waits, which stay.
        pairs = zip_longest(new, old[: len(new)], fillvalue=_MISSING)
        return [a if b is _MISSING else _merged(a, b, kind.item_type) for a, b in pairs]
    return new
