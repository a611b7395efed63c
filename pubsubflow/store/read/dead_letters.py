"""Dead letters, read for the API."""

import asyncpg
import msgspec

from pubsubflow.errors import NotFound
from pubsubflow.model.api.explain import DeadLetterDetail, DeadLetterView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.json_values import MAX_DEPTH, is_nested_deeper
from pubsubflow.model.revisions import dead_letter_revision
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL

_NEWEST = 2**63 - 1
_LARGEST_ID = 2**63 - 1
MESSAGE = "message"


class ReadDeadLetters:
    """Queries about dead letters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, *, limit: int, after: int | None = None, resent: bool = False
    ) -> Page[DeadLetterView]:
        """Return dead letters, newest first.

        Args:
            limit: Number of dead letters at most.
            after: The last id of the page before.
            resent: Whether to include resent ones.
        """
        async with self._database.connection() as connection:
            before = _NEWEST if after is None else after
            rows = await connection.fetch(SQL["list_dead_letters"], before, limit, resent)
        items = [
            DeadLetterView(**dict(row), revision=dead_letter_revision(row["resent_at"]))
            for row in rows
        ]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def get(self, number: int) -> DeadLetterDetail:
        """Return a dead letter with its payload.

        Raises:
            NotFound: No dead letter has this id.
        """
        row = None
        # Beyond that asyncpg would refuse the argument: no such id exists.
        if 0 < number <= _LARGEST_ID:
            async with self._database.connection() as connection:
                row = await connection.fetchrow(SQL["read_dead_letter"], number)
        if row is None:
            raise NotFound("dead letter", str(number))
        return _detail(row)

    async def find_newer(self, number: int) -> DeadLetterView | None:
        """Return the newest dead letter after this one of the same DAG, if there is one."""
        async with self._database.connection() as connection:
            newer = await connection.fetchval(SQL["find_newer_dead_letter"], number)
        return None if newer is None else await self.get(newer)


def _detail(row: asyncpg.Record) -> DeadLetterDetail:
    facts = dict(row)
    return DeadLetterDetail(
        **{**facts, "payload": _readable(row["payload"])},
        revision=dead_letter_revision(row["resent_at"]),
        editable=row["kind"] != MESSAGE,
    )


def _readable(payload: bytes) -> object:
    """Return a payload as a JSON value: decoded from JSON or msgpack, or else as text."""
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            value = decode(payload)
            if not is_nested_deeper(value, MAX_DEPTH):
                return msgspec.json.decode(msgspec.json.encode(value))
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError):
            continue
    return payload.decode(errors="replace")
