"""A manager with a worker that does its tasks at once, and retention moved by hand."""

from datetime import timedelta

import pytest

from pubsubflow.model.wire.commands import StartRun
from pubsubflow.retention import Pruner, RetentionSettings
from support.harness import ManagerHarness, chain_of, running_managers

AGED = (
    "UPDATE slice SET started_at = started_at - $1::interval",
    "UPDATE run SET ended_at = ended_at - $1::interval",
    "UPDATE idempotency_key SET created_at = created_at - $1::interval",
    "UPDATE condition_state SET changed_at = changed_at - $1::interval",
    "UPDATE dead_letter SET resent_at = resent_at - $1::interval",
    "UPDATE dag_version SET created_at = created_at - $1::interval",
)


class Kept:
    """What retention keeps, as days go by.

    Args:
        harness: Managers and a worker.
    """

    def __init__(self, harness: ManagerHarness) -> None:
        self.harness = harness

    def pruner(self, archive=None, **settings) -> Pruner:
        return Pruner(self.harness.database, RetentionSettings(**settings), archive)

    async def pass_days(self, days: float, archive=None, **settings):
        """Let days pass, and prune; a pass before lets the slices end in which all happened."""
        pruner = self.pruner(archive, **settings)
        await self.age(6)
        await pruner.prune()
        await self.age(days)
        return await pruner.prune()

    async def age(self, days: float) -> None:
        """Make all that is there older."""
        for statement in AGED:
            await self.harness.rows(statement, timedelta(days=days))
        for manager in self.harness.managers:
            manager._processor._run_ids._oldest_at -= days * 86_400

    async def counts(self, *tables: str) -> list[int]:
        return [await self.harness.value(f"SELECT count(*) FROM {table}") for table in tables]

    async def partitions(self) -> set[str]:
        rows = await self.harness.rows(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '_s[0-9]+$'"
        )
        return {row["relname"] for row in rows}

    async def slices(self, series: str) -> list[int]:
        query = "SELECT number FROM slice WHERE series = $1 ORDER BY number"
        return [number for (number,) in await self.harness.rows(query, series)]

    async def run(self, dag_id: str) -> str:
        """Start a run and wait for the end of all that follows."""
        run_id = await self.harness.call(StartRun(dag_id))
        await self.harness.quiet()
        return str(run_id)


@pytest.fixture
async def kept(database, bus, nats):
    async with running_managers(database, bus, nats) as harness:
        harness.automatic = chain_of
        yield Kept(harness)
