"""Dead letters, read for the API."""

from collections.abc import Sequence

import asyncpg
import msgspec

from pubsubflow.errors import NotFound
from pubsubflow.model.api.explain import (
    DeadLetterDetail,
    DeadLetterGroup,
    DeadLetterSummary,
    DeadLetterView,
)
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
        self,
        *,
        limit: int,
        after: int | None = None,
        settled: bool = False,
        kind: str | None = None,
        dag_id: str | None = None,
        reason: str | None = None,
    ) -> Page[DeadLetterView]:
        """Return dead letters, newest first.

        Args:
            limit: Number of dead letters at most.
            after: The last id of the page before.
            settled: Whether to include those that were resent or discarded.
            kind: Only those of this kind.
            dag_id: Only those of this DAG.
            reason: Only those with this reason, whole or as `summary` has it.
        """
        async with self._database.search() as connection:
            before = _NEWEST if after is None else after
            rows = await connection.fetch(
                SQL["list_dead_letters"], before, limit, settled, kind, dag_id, reason
            )
        items = [DeadLetterView(**dict(row), revision=_revision(row)) for row in rows]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def find_open(
        self,
        *,
        limit: int,
        ids: Sequence[int] | None = None,
        kind: str | None = None,
        dag_id: str | None = None,
        reason: str | None = None,
    ) -> list[int]:
        """Return the ids of open dead letters, oldest first; for the arguments see `page`."""
        known = None if ids is None else [each for each in ids if 0 < each <= _LARGEST_ID]
        async with self._database.search() as connection:
            rows = await connection.fetch(
                SQL["find_open_dead_letters"], limit, known, kind, dag_id, reason
            )
        return [row["id"] for row in rows]

    async def summary(self, *, limit: int) -> DeadLetterSummary:
        """Return what the open dead letters are about, at most `limit` groups of them."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["summarise_dead_letters"], limit)
        return DeadLetterSummary(groups=[DeadLetterGroup(**dict(row)) for row in rows])

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
        revision=_revision(row),
        editable=row["kind"] != MESSAGE,
    )


def _revision(row: asyncpg.Record) -> str:
    return dead_letter_revision(row["resent_at"], row["discarded_at"])


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
