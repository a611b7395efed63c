"""Webhooks: which are in force, and the files that declare them."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from pubsubflow.model.spec import LoadedFile
from pubsubflow.model.webhooks import HookSpec
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(HookSpec).decode


class StoredHook(Struct, frozen=True):
    """A webhook and the file that declares it."""

    file: str
    spec: HookSpec


async def save_hooks(connection: Connection, files: Sequence[LoadedFile]) -> None:
    """Record the webhooks of files; those that a file declares no more are gone."""
    hooks = sorted((hook.name, file.file, hook) for file in files for hook in file.hooks)
    names = [name for name, _, _ in hooks]
    await connection.execute(SQL["drop_hooks"], [file.file for file in files], names)
    if hooks:
        owners = [file for _, file, _ in hooks]
        specs = [_encode(hook) for _, _, hook in hooks]
        await connection.execute(SQL["save_hooks"], names, owners, specs)


async def drop_hooks(connection: Connection, files: Sequence[str]) -> None:
    """Forget the webhooks of files that are gone."""
    await connection.execute(SQL["drop_hooks"], list(files), [])


class ReadHooks:
    """Queries about webhooks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[StoredHook]:
        """Return all webhooks by name.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_hooks"])
        return [StoredHook(row["file"], _decode(row["spec"])) for row in rows]
