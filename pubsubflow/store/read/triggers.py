"""Triggers: waits of tasks and watched datasets, read for the API."""

import re
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from pubsubflow.model.api.resources import Page
from pubsubflow.model.api.triggers import TriggerView
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.redaction import MASK, redact_event
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.specs import SpecReader

_NEWEST = 2**63 - 1
_LEASED = {"trigger", "watch"}
_CREDENTIALS = re.compile("bearer|basic|header|option|auth|dsn|env|argv|sign", re.IGNORECASE)


class ReadTriggers:
    """Queries about triggers."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(
        self, *, limit: int, kind: str | None = None, after: int | None = None
    ) -> Page[TriggerView]:
        """Return waits and watches, newest first.

        Args:
            limit: Number of triggers at most.
            kind: Only those of this kind.
            after: The last number of the page before.
        """
        async with self._database.search() as connection:
            rows = await connection.fetch(
                SQL["page_triggers"], _NEWEST if after is None else after, limit, kind
            )
            sums = await connection.fetchrow(SQL["count_triggerers"])
            specs = await self._specs.load(connection, (row["version"] for row in rows))
        # Without live triggerers a trigger is unclaimed, not over capacity.
        full = sums is not None and sums["number"] > 0 and sums["room"] == 0
        items = [_view(row, specs, full=full) for row in rows]
        return Page(items, str(items[-1].number) if len(items) == limit else None)


def _view(row: asyncpg.Record, specs: dict[int, DagSpec], *, full: bool) -> TriggerView:
    run_id, version, index = row["run_id"], row["version"], row["map_index"]
    return TriggerView(
        number=row["number"],
        kind=row["kind"],
        name=row["name"],
        state=_state(row, full=full),
        since=row["created_at"],
        due_at=row["due_at"],
        owner=row["owner"],
        run_id=None if run_id is None else str(run_id),
        dag_id=row["dag_id"],
        task_id=None if version is None else specs[version].tasks[row["node"]].task_id,
        map_index=None if index == NOT_MAPPED else index,
        dataset=row["dataset"],
        files=row["files"],
        fields=_fields(row),
        error=row["error"],
        error_since=row["error_since"],
    )


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    """Return the fields of a trigger, with secrets masked; none for what has no fields."""
    if row["kind"] not in _LEASED:
        return {}
    try:
        found = msgspec.msgpack.decode(row["data"])
    except msgspec.DecodeError:
        return {}
    if not isinstance(found, dict):
        return {}
    plain = msgspec.to_builtins(found, str_keys=True, builtin_types=(datetime,), enc_hook=str)
    named = {name: value for name, value in plain.items() if value is not None}
    return {name: _shown(name, value) for name, value in redact_event(None, "", named).items()}


def _shown(name: str, value: Any) -> Any:
    """Return a field's value, without what a source may take for credentials."""
    if _CREDENTIALS.search(name) and value:
        return MASK
    if isinstance(value, str) and "://" in value:
        return value.partition("?")[0]
    return value


def _state(row: asyncpg.Record, *, full: bool) -> str:
    if row["cancelled"]:
        return "cancelled"
    if row["kind"] not in _LEASED or row["owner"] is not None:
        return "waiting"
    return "over capacity" if full else "unclaimed"
