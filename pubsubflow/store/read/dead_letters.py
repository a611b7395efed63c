"""What could not be done, as people ask about it."""

import asyncpg
import msgspec

from pubsubflow.errors import NotFound
from pubsubflow.model.api.explain import DeadLetterDetail, DeadLetterView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.revisions import letter_revision
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

_NEWEST = 2**63 - 1
_LARGEST = 2**63 - 1
MESSAGE = "message"


class ReadLetters:
    """Queries about dead letters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, *, limit: int, after: int | None = None, resent: bool = False
    ) -> Page[DeadLetterView]:
        """Return what could not be done, the newest first.

        Args:
            limit: Number of dead letters at most.
            after: The last id of the page before.
            resent: Also those that were sent again.
        """
        async with self._database.connection() as connection:
            before = _NEWEST if after is None else after
            rows = await connection.fetch(SQL["list_dead_letters"], before, limit, resent)
        items = [
            DeadLetterView(**dict(row), revision=letter_revision(row["resent_at"])) for row in rows
        ]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def get(self, number: int) -> DeadLetterDetail:
        """Return a dead letter with its payload.

        Raises:
            NotFound: There is none by that number.
        """
        row = None
        if 0 < number <= _LARGEST:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(SQL["read_dead_letter"], number)
        if row is None:
            raise NotFound("dead letter", str(number))
        return _detail(row)

    async def refused_again(self, number: int) -> DeadLetterView | None:
        """Return the newest dead letter after one that is about the same DAG, if there is one."""
        async with self._database.connection() as connection:
            newer = await connection.fetchval(SQL["find_newer_letter"], number)
        return None if newer is None else await self.get(newer)


def _detail(row: asyncpg.Record) -> DeadLetterDetail:
    facts = dict(row)
    return DeadLetterDetail(
        **{**facts, "payload": _readable(row["payload"])},
        revision=letter_revision(row["resent_at"]),
        editable=row["kind"] != MESSAGE,
    )


def _readable(payload: bytes) -> object:
    """Return JSON as it is, a message decoded, and else what can be read of it as text."""
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            return msgspec.json.decode(msgspec.json.encode(decode(payload)))
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError):
            continue
    return payload.decode(errors="replace")
