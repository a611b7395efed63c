"""Checks, their results and held events, read for the API."""

from uuid import UUID

import asyncpg
from msgspec.structs import asdict

from pubsubflow.errors import NotFound
from pubsubflow.model.api.checks import CheckResultView, CheckView, HeldEventView, HoldView
from pubsubflow.model.api.resources import Page
from pubsubflow.model.schedule.checks import CHECK_PREFIX, CheckPolicy, check_name
from pubsubflow.model.schedule.conditions import inputs
from pubsubflow.model.spec import DagSpec
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.dags import find_dag
from pubsubflow.store.read.datasets import read_events
from pubsubflow.store.specs import SpecReader

_NEWEST = 2**63 - 1


class ReadChecks:
    """Queries about checks."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(self, *, limit: int, after: str | None = None) -> Page[CheckView]:
        """Return checks by name.

        Args:
            limit: Number of checks at most.
            after: The last name of the page before.
        """
        last = CHECK_PREFIX + (after or "")
        items = await self._read(last, limit, None)
        return Page(items, items[-1].name if len(items) == limit else None)

    async def get(self, name: str) -> CheckView:
        """Return a check.

        Raises:
            NotFound: It does not exist.
        """
        found = await self._read("", 1, CHECK_PREFIX + name)
        if not found:
            raise NotFound("check", name)
        return found[0]

    async def _read(self, after: str, limit: int, dag_id: str | None) -> list[CheckView]:
        async with self._database.search() as connection:
            rows = await connection.fetch(SQL["page_checks"], after, limit, dag_id)
            specs = await self._specs.load(connection, (row["version"] for row in rows))
        return [_check(row, specs[row["version"]]) for row in rows]

    async def results(
        self,
        *,
        limit: int,
        after: int | None = None,
        check: str | None = None,
        dataset: str | None = None,
        event: UUID | None = None,
        outcome: str | None = None,
    ) -> Page[CheckResultView]:
        """Return results of checks, newest first.

        Args:
            limit: Number of results at most.
            after: The last id of the page before.
            check: Only those of this check.
            dataset: Only those about events of this URI.
            event: Only those about this event.
            outcome: Only those with this outcome.

        Raises:
            NotFound: The check or the dataset does not exist.
        """
        async with self._database.search() as connection:
            rows = await connection.fetch(
                SQL["page_check_results"],
                _NEWEST if after is None else after,
                limit,
                *await _chosen(connection, check, dataset),
                event,
                outcome,
            )
        items = [_result(row) for row in rows]
        return Page(items, str(items[-1].id) if len(items) == limit else None)

    async def held(
        self,
        *,
        limit: int,
        after: int | None = None,
        check: str | None = None,
        dataset: str | None = None,
    ) -> Page[HeldEventView]:
        """Return events that checks hold, newest first; for the arguments see `results`.

        Raises:
            NotFound: The check or the dataset does not exist.
        """
        async with self._database.search() as connection:
            chosen = await _chosen(connection, check, dataset)
            dag, number = chosen
            before = _NEWEST if after is None else after
            rows = await connection.fetch(SQL["page_held_events"], before, limit, number, dag)
            ids = [row["id"] for row in rows]
            found = await read_events(connection, self._specs, ids)
            holds: dict[int, list[HoldView]] = {number: [] for number in ids}
            for row in await connection.fetch(SQL["read_holds"], ids):
                holds[row["event"]].append(_hold(row))
        items = [
            HeldEventView(**asdict(event.view), checks=holds[number])
            for number, event in found.items()
        ]
        return Page(items, str(ids[-1]) if len(ids) == limit else None)

    async def next_held(
        self, limit: int, *, check: str | None, dataset: str | None, ended: bool
    ) -> list[UUID]:
        """Return the first events that checks hold, oldest first.

        Args:
            limit: How many at most.
            check: Only those that this check holds.
            dataset: Only those of this URI.
            ended: Only those that a check has failed, not those that wait for one alone.

        Raises:
            NotFound: The check or the dataset does not exist.
        """
        async with self._database.search() as connection:
            dag, number = await _chosen(connection, check, dataset)
            rows = await connection.fetch(SQL["find_next_held"], limit, number, dag, ended)
        return [row["event_id"] for row in rows]


async def _chosen(
    connection: Connection, check: str | None, dataset: str | None
) -> tuple[int | None, int | None]:
    """Return the numbers of a check's DAG and of a dataset."""
    try:
        dag = None if check is None else await find_dag(connection, CHECK_PREFIX + check)
    except NotFound:
        raise NotFound("check", check or "") from None
    if dataset is None:
        return dag, None
    number: int | None = await connection.fetchval(SQL["find_dataset"], dataset)
    if number is None:
        raise NotFound("dataset", dataset)
    return dag, number


def _check(row: asyncpg.Record, spec: DagSpec) -> CheckView:
    schedule = spec.schedule
    policy = None if schedule is None else schedule.policy
    policy = policy if isinstance(policy, CheckPolicy) else CheckPolicy(blocking=False)
    checked = next(inputs(schedule.condition), None) if schedule is not None else None
    return CheckView(
        name=check_name(row["dag_id"]),
        dag_id=row["dag_id"],
        dataset="" if checked is None else checked.uri,
        pattern=checked is not None and checked.pattern,
        blocking=policy.blocking,
        severity=policy.severity,
        description=spec.description,
        owner=spec.owner,
        file=row["file"],
        line=spec.line,
        paused=row["paused"],
        missing=row["missing"],
        held=row["held"],
        last_outcome=row["outcome"],
        last_severity=row["severity"],
        last_event_id=None if row["event_id"] is None else str(row["event_id"]),
        last_at=row["ended_at"],
    )


def _result(row: asyncpg.Record) -> CheckResultView:
    return CheckResultView(
        id=row["id"],
        check=check_name(row["dag_id"]),
        event_id=str(row["event_id"]),
        dataset=row["uri"],
        outcome=row["outcome"],
        severity=row["severity"],
        blocking=row["blocking"],
        holding=row["holding"],
        released=row["released"],
        released_by=row["released_by"],
        note=row["note"],
        description=row["description"],
        metadata=row["metadata"],
        tries=row["tries"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


def _hold(row: asyncpg.Record) -> HoldView:
    return HoldView(
        check=check_name(row["dag_id"]),
        outcome=row["outcome"],
        severity=row["severity"],
        description=row["description"],
        tries=row["tries"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
    )
