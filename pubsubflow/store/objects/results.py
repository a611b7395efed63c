"""Results of tasks as JSON, those in the result store among them."""

from typing import Any

import msgspec

from pubsubflow.errors import NotFound
from pubsubflow.model.wire.stored_results import decode_stored
from pubsubflow.object_store import FileStore, ObjectStoreUnavailable


class ReadResults:
    """Reads results.

    Args:
        store: The result store, if there is one.
    """

    def __init__(self, store: FileStore | None) -> None:
        self._store = store

    async def read(self, data: bytes) -> bytes:
        """Return an encoded result, from the result store if it is a reference.

        Raises:
            ObjectStoreUnavailable: The store is away, or there is none.
            NotFound: The store does not have it, or it stays with its executor alone.
        """
        stored = decode_stored(data)
        if stored is None:
            return data
        if not stored.copied:
            raise NotFound(
                "copy of the result",
                stored.kept_name,
                "it stays there for the tasks of its run; set [results] store for copies",
            )
        if self._store is None:
            raise ObjectStoreUnavailable(
                "the result is in a result store, and this daemon has none: set [results] store"
            )
        return await self._store.read(stored.name)

    async def show(self, data: bytes, *, max_bytes: int) -> Any:
        """Return a result as JSON values; None if it is larger, or out of reach, or not JSON."""
        stored = decode_stored(data)
        if stored is not None and stored.size > max_bytes:
            return None
        try:
            return as_json(await self.read(data))
        except (ObjectStoreUnavailable, NotFound):
            return None


def encode_json(result: bytes) -> bytes:
    """Return an encoded result as JSON; `null` for none.

    Raises:
        TypeError: JSON cannot represent it; likewise ValueError, OverflowError.
    """
    return msgspec.json.encode(msgspec.msgpack.decode(result) if result else None)


def as_json(result: bytes | None) -> Any:
    """Return a result as JSON values; None if JSON cannot represent it."""
    if not result:
        return None
    try:
        return msgspec.json.decode(encode_json(result))
    except (msgspec.DecodeError, TypeError, ValueError, OverflowError):
        return None
