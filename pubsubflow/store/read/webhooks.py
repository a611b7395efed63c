"""Webhooks in force, read for the API."""

import msgspec
from msgspec import Struct

from pubsubflow.model.webhooks import WebhookSpec
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

_decode = msgspec.msgpack.Decoder(WebhookSpec).decode


class StoredWebhook(Struct, frozen=True):
    """A webhook and the file that declares it."""

    file: str
    spec: WebhookSpec


class ReadWebhooks:
    """Queries about webhooks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[StoredWebhook]:
        """Return all webhooks by name.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_webhooks"])
        return [StoredWebhook(row["file"], _decode(row["spec"])) for row in rows]
