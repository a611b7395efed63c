"""Holds: why events are held by checks, or were discarded, read for the API."""

from collections.abc import Mapping, Sequence

import asyncpg

from pubsubflow.model.schedule.checks import describe_hold
from pubsubflow.store.database import Connection
from pubsubflow.store.named_queries import SQL

DISCARDED = "discarded by "


async def read_holds(connection: Connection, rows: Sequence[asyncpg.Record]) -> Mapping[int, str]:
    """Return why events that are not in the log are not: number → one line.

    Args:
        connection: Postgres.
        rows: Of held and discarded events: `id`, `discarded_by`, `note`.
    """
    if not rows:
        return {}
    found: dict[int, str] = {}
    for row in await connection.fetch(SQL["read_holds"], [row["id"] for row in rows]):
        why = describe_hold(row["dag_id"], row["outcome"], row["description"])
        found[row["event"]] = f"{found[row['event']]}; {why}" if row["event"] in found else why
    for row in rows:
        if row["discarded_by"] is not None:
            note = f": {row['note']}" if row["note"] else ""
            found[row["id"]] = f"{DISCARDED}{row['discarded_by']}{note}"
        # Its last check has passed a moment ago.
        found.setdefault(row["id"], "held: it is about to be released")
    return found
