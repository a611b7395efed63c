"""Alerts in the store: read, acknowledged and announced."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
from msgspec import Struct

from pubsubflow.errors import NotFound
from pubsubflow.model.alerts import alert_uri
from pubsubflow.model.api.alerts import AlertDetail, AlertView
from pubsubflow.model.api.resources import CallbackView, Page
from pubsubflow.store.database import Database, printable
from pubsubflow.store.named_queries import SQL

_NEWEST = 2**63 - 1
_MOST_CALLBACKS = 200


class Announcement(Struct, frozen=True):
    """An opening or an end of an alert that is to become an event.

    Attributes:
        number: The alert.
        step: 1 for its opening, 2 for its end.
        quiet: It follows from an alert itself, and becomes no event.
        at: The moment of it.
        extra: What the event says.
    """

    number: int
    step: int
    quiet: bool
    uri: str
    at: datetime
    extra: dict[str, Any]

    @property
    def key(self) -> str:
        """The idempotency key of its event."""
        return f"alert:{self.number}:{self.step}"


class AlertStore:
    """Queries about alerts.

    Args:
        database: Postgres.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        limit: int,
        after: int | None = None,
        state: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
    ) -> Page[AlertView]:
        """Return alerts, the newest first.

        Args:
            limit: How many at most.
            after: The last one of the page before.
            state: `open`, `acknowledged` or `ended`.
            kind: Only those of this kind.
            subject: Only those about this DAG or dataset.
        """
        before = _NEWEST if after is None else after
        async with self._database.search() as connection:
            rows = await connection.fetch(SQL["list_alerts"], before, limit, state, kind, subject)
        items = [AlertView(**_fields(row)) for row in rows]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def get(self, number: int) -> AlertDetail:
        """Return an alert.

        Raises:
            NotFound: It does not exist.
        """
        async with self._database.connection() as connection:
            row = await connection.fetchrow(SQL["read_alert"], number)
            calls = await connection.fetch(SQL["list_callbacks_of_alert"], number, _MOST_CALLBACKS)
        if row is None:
            raise NotFound("alert", str(number))
        return AlertDetail(**_fields(row), callbacks=[CallbackView(**dict(each)) for each in calls])

    async def acknowledge(self, number: int, by: str) -> AlertDetail:
        """Note who has seen an open alert; the first one counts. Return the alert.

        Raises:
            NotFound: It does not exist.
        """
        async with self._database.connection() as connection:
            await connection.execute(SQL["acknowledge_alert"], number, printable(by))
        return await self.get(number)

    async def unannounced(self, limit: int = 200) -> list[Announcement]:
        """Return openings and ends that are not announced yet, in order."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_unannounced_alerts"], limit)
        return [each for row in rows for each in _announcements(row)]

    async def mark_announced(self, done: Sequence[Announcement]) -> None:
        """Note what is announced."""
        steps = {each.number: each.step for each in sorted(done, key=lambda each: each.step)}
        async with self._database.connection() as connection:
            await connection.execute(
                SQL["mark_alerts_announced"], list(steps), list(steps.values())
            )

    async def end_left(self) -> int:
        """End alerts whose runs have ended without ending them; return how many."""
        async with self._database.connection() as connection:
            return len(await connection.fetch(SQL["end_left_alerts"]))

    async def prune(self, days: int, limit: int = 10_000) -> None:
        """Delete alerts that ended so many days ago."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["delete_old_alerts"], days, limit)


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    found = dict(row)
    found["run_id"] = None if found["run_id"] is None else str(found["run_id"])
    found["event_dataset"] = alert_uri(found["kind"], found["subject"])
    if found["ended_at"] is not None:
        found["state"] = "ended"
    else:
        found["state"] = "open" if found["acknowledged_at"] is None else "acknowledged"
    return found


def _announcements(row: asyncpg.Record) -> list[Announcement]:
    extra = {
        "alert": row["id"],
        "kind": row["kind"],
        "text": row["text"],
        "dag_id": row["dag_id"],
        "run_id": None if row["run_id"] is None else str(row["run_id"]),
        "dataset": row["dataset"],
        "since": None if row["since"] is None else row["since"].isoformat(),
        "opened_at": row["opened_at"].isoformat(),
    }
    uri = alert_uri(row["kind"], row["subject"])
    found = []
    if row["announced"] < 1:
        opening = extra | {"state": "open"}
        found.append(Announcement(row["id"], 1, row["quiet"], uri, row["opened_at"], opening))
    if row["ended_at"] is not None:
        end = extra | {"state": "ended", "ending": row["ending"]}
        found.append(Announcement(row["id"], 2, row["quiet"], uri, row["ended_at"], end))
    return found
