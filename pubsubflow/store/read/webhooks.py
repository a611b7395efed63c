"""Webhooks in force, read for the API."""

from msgspec import Struct

from pubsubflow.errors import NewerFormat
from pubsubflow.model.stored.values import StoredDecoder
from pubsubflow.model.webhooks import WebhookSpec
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

_STORED = StoredDecoder(WebhookSpec, "a webhook")


class StoredWebhook(Struct, frozen=True):
    """A webhook and the file that declares it."""

    file: str
    spec: WebhookSpec


class StoredWebhooks(Struct, frozen=True):
    """All webhooks.

    Attributes:
        readable: Those that this version can read, by name.
        newer: The names of the others → what cannot be read, for people.
    """

    readable: list[StoredWebhook]
    newer: dict[str, str]


class ReadWebhooks:
    """Queries about webhooks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> StoredWebhooks:
        """Return all webhooks.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_webhooks"])
        found = StoredWebhooks([], {})
        for row in rows:
            try:
                found.readable.append(StoredWebhook(row["file"], _STORED.decode(row["spec"])))
            except NewerFormat as error:
                found.newer[row["name"]] = error.what
        return found
