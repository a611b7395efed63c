"""Freshness in the store: datasets are looked at when they are due, and while they are stale.

A look is one transaction: what it finds, the alert that opens or ends, the calls that follow.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import asyncpg
from msgspec import Struct

from pubsubflow.model.alerts import (
    DatasetLook,
    Freshness,
    SeenEvent,
    describe_freshness,
    judge_freshness,
    look_is_over,
)
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL

_AT_ONCE = 500
_FIRST_EVENTS = 8
_FURTHER = 16
_CAME = "it has had an event"
_NOT_DUE = "its time is not over: fresh= is longer now, or the clock was set back"


class NextLook(Struct, frozen=True):
    """When datasets are to be looked at.

    Attributes:
        seconds: From now on, the next one that is not stale; None if there is none.
        stale: Whether some are stale.
    """

    seconds: float | None
    stale: bool


class LookOutcome(Struct, frozen=True):
    """What looks have come to.

    Attributes:
        looked: How many datasets were looked at.
        changed: How many alerts were opened or ended.
    """

    looked: int
    changed: int


class _Claimed(Struct, frozen=True):
    """A dataset that is locked for a look."""

    dataset: str
    number: int
    seconds: float
    look: DatasetLook
    now: datetime


class FreshnessStore:
    """Looks at datasets that are to have an event within a time.

    Args:
        database: Postgres.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next(self) -> NextLook:
        """Return when datasets are to be looked at."""
        async with self._database.connection() as connection:
            (row,) = await connection.fetch(SQL["read_next_freshness"])
        return NextLook(row["seconds"], row["stale"])

    async def look_at_due(self) -> LookOutcome:
        """Look at datasets that are due, up to 500, and open alerts about those that are stale."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(SQL["claim_due_freshness"], _AT_ONCE)
            judged = await _judge(connection, rows)
            await _save(connection, judged)
            stale = [(each, found) for each, found in judged if found.stale]
            if stale:
                texts = [describe_freshness(c.dataset, c.seconds, f.look) for c, f in stale]
                since = [found.look.last_event_at for _, found in stale]
                datasets = [each.dataset for each, _ in stale]
                await connection.execute(SQL["open_freshness_alerts"], datasets, texts, since)
        return LookOutcome(len(judged), len(stale))

    async def look_at_stale(self) -> LookOutcome:
        """Look at all datasets that are stale, and end the alerts about those that are not now."""
        looked = ended = 0
        after: str | None = ""
        while after is not None:
            async with self._database.transaction() as connection:
                rows = await connection.fetch(SQL["claim_stale_datasets"], _AT_ONCE, after)
                judged = await _judge(connection, rows)
                # As a rule nothing has changed: then nothing is written.
                await _save(connection, [each for each in judged if _differs(*each)])
                ended += await _end(connection, judged)
            looked += len(judged)
            after = judged[-1][0].dataset if judged else None
        return LookOutcome(looked, ended)

    async def mend(self) -> None:
        """Have those looked at that were put off while the clock was ahead."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["mend_freshness"])


def _differs(claimed: _Claimed, found: Freshness) -> bool:
    return not found.stale or found.look != claimed.look


async def _end(connection: Connection, judged: Sequence[tuple[_Claimed, Freshness]]) -> int:
    """End the alerts about datasets that are not stale; return how many."""
    fresh = [(each, found) for each, found in judged if not found.stale]
    if fresh:
        endings = [
            _CAME if found.look.last_event_at != each.look.last_event_at else _NOT_DUE
            for each, found in fresh
        ]
        datasets = [each.dataset for each, _ in fresh]
        await connection.execute(SQL["end_freshness_alerts"], datasets, endings)
    return len(fresh)


async def _judge(
    connection: Connection, rows: Sequence[asyncpg.Record]
) -> list[tuple[_Claimed, Freshness]]:
    claimed = [
        _Claimed(
            row["dataset"],
            row["number"],
            row["seconds"],
            DatasetLook(row["declared_at"], row["last_event_at"], row["seen"]),
            row["now"],
        )
        for row in rows
    ]
    events = await _read_newest(connection, claimed)
    return [
        (each, judge_freshness(each.seconds, each.look, events[each.number], each.now))
        for each in claimed
    ]


async def _read_newest(
    connection: Connection, claimed: Iterable[_Claimed]
) -> dict[int, list[SeenEvent]]:
    """Return the newest events of each dataset, as far back as they can make a difference."""
    left = {each.number: each for each in claimed}
    found: dict[int, list[SeenEvent]] = {}
    limit = _FIRST_EVENTS
    while left:
        seen = [each.look.seen for each in left.values()]
        rows = await connection.fetch(SQL["read_newest_events"], list(left), seen, limit)
        events: dict[int, list[SeenEvent]] = {number: [] for number in left}
        for row in rows:
            events[row["dataset"]].append(SeenEvent(row["id"], row["time"], row["recorded_at"]))
        for number, newest in events.items():
            if len(newest) < limit or look_is_over(left[number].look, newest):
                found[number] = newest
                del left[number]
        limit *= _FURTHER
    return found


async def _save(connection: Connection, judged: Sequence[tuple[_Claimed, Freshness]]) -> None:
    if judged:
        await connection.execute(
            SQL["save_freshness_looks"],
            [each.dataset for each, _ in judged],
            [found.look.declared_at for _, found in judged],
            [found.look.last_event_at for _, found in judged],
            [found.look.seen for _, found in judged],
            [None if found.stale else found.due_at for _, found in judged],
        )
