"""Elements of results: of a list its items, of a dict its pairs of key and value."""

from typing import Any

import msgspec
from msgspec import Raw

_pack = msgspec.msgpack.Encoder().encode
_list = msgspec.msgpack.Decoder(list[Raw]).decode
_dict = msgspec.msgpack.Decoder(dict[Any, Raw]).decode
_SMALL_MAP, _MAPS = 0x80, (0xDE, 0xDF)


def elements_of(data: bytes) -> list[Raw]:
    """Return the encoded elements of an encoded list or dict."""
    if data and (data[0] & 0xF0 == _SMALL_MAP or data[0] in _MAPS):
        return [Raw(_pack(pair)) for pair in _dict(data).items()]
    return _list(data)
