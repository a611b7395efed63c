"""Callbacks in the store: claimed, renewed and ended by the daemon that calls them."""

from datetime import datetime

import asyncpg
from msgspec import Struct

from pubsubflow.model.callbacks import CallbackFacts, CallbackState, FailedTask
from pubsubflow.store.codecs import decode_error_view
from pubsubflow.store.database import Database, printable
from pubsubflow.store.named_queries import SQL

_MOST_FAILED = 100


class ClaimedCallback(Struct, frozen=True):
    """A call that this daemon has claimed.

    Attributes:
        tries: Its fence: another claim counts on.
        name: What is called, as people see it.
        source: The bundle and version of its run.
        bundle, file: Of a dataset's: where it is declared.
        run: The number of its run.
        facts: What it gets.
    """

    id: int
    tries: int
    name: str
    source: str
    bundle: str | None
    file: str | None
    run: int | None
    facts: CallbackFacts


class CallbackStore:
    """Queries about calls.

    Args:
        database: Postgres.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next_seconds(self) -> float | None:
        """Return in how many seconds the next call is due; None if there is none."""
        async with self._database.connection() as connection:
            found: float | None = await connection.fetchval(SQL["read_next_callback_seconds"])
        return found

    async def claim(self, limit: int, seconds: float) -> list[ClaimedCallback]:
        """Claim due calls for some seconds.

        Args:
            limit: How many at most.
            seconds: After them another daemon may claim what was not renewed.
        """
        async with self._database.transaction() as connection:
            rows = await connection.fetch(SQL["claim_callbacks"], limit, seconds)
            claimed = []
            for row in rows:
                failed: tuple[FailedTask, ...] = ()
                if row["run"] is not None and row["node"] is None:
                    found = await connection.fetch(
                        SQL["list_failed_tasks"], row["run"], _MOST_FAILED
                    )
                    failed = tuple(map(_failed, found))
                claimed.append(_claimed(row, failed))
        return claimed

    async def renew(self, callback: ClaimedCallback, seconds: float) -> bool:
        """Keep a claimed call; return whether it is still this daemon's."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(
                SQL["renew_callback"], callback.id, callback.tries, seconds
            )
        return found is not None

    async def end(
        self,
        callback: ClaimedCallback,
        state: CallbackState,
        error: str | None,
        output: str,
        again_at: datetime | None,
    ) -> bool:
        """Record how a try ended, and return whether it counted."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(
                SQL["end_callback"],
                *(callback.id, callback.tries, str(state)),
                *(None if error is None else printable(error), printable(output), again_at),
            )
        return found is not None

    async def prune(self, days: int, limit: int = 10_000) -> None:
        """Delete calls that ended so many days ago."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["delete_old_callbacks"], days, limit)


def _failed(row: asyncpg.Record) -> FailedTask:
    error = decode_error_view(row["error"])
    text = "" if error is None else f"{error.type}: {error.message}"
    return FailedTask(row["node"], "", row["map_index"], row["attempt"], text)


def _claimed(row: asyncpg.Record, failed: tuple[FailedTask, ...]) -> ClaimedCallback:
    facts = CallbackFacts(
        kind=row["kind"],
        position=row["position"],
        number=row["number"],
        dag_id=row["dag_id"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        run_kind=row["run_kind"] or "",
        params=row["params"],
        logical_time=row["logical_time"],
        partition=row["partition"],
        cause=row["cause"] or "",
        created_at=row["run_created_at"],
        node=row["node"],
        task_id=row["task_id"],
        map_index=row["map_index"],
        attempt=row["attempt"],
        state=row["outcome"],
        error=row["reason"],
        failed=failed,
        dataset=row["dataset"],
        since=row["since"],
        alert=row["alert"],
        text=row["text"] or "",
        tries=row["tries"],
        call=row["id"],
    )
    return ClaimedCallback(
        row["id"],
        row["tries"],
        row["name"],
        row["source"],
        row["bundle"],
        row["file"],
        row["run"],
        facts,
    )
