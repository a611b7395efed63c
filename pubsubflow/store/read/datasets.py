"""Datasets and their events, read for the API."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct
from msgspec.structs import asdict, replace

from pubsubflow.errors import NotFound
from pubsubflow.model.api.datasets import (
    ConsumerView,
    DatasetAlertView,
    DatasetCheckView,
    DatasetDetail,
    ProducerView,
)
from pubsubflow.model.api.explain import EventWithOutcomes
from pubsubflow.model.api.resources import DatasetView, EventView, Page
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.messages import NOT_MAPPED
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.checks.holds import read_holds
from pubsubflow.store.read.event_outcomes import read_event_outcomes
from pubsubflow.store.specs import SpecReader

_END_OF_LOG = 2**63 - 1
_LOOKED_AT = 50
_LAST_EVENTS = 5


class FoundEvent(Struct, frozen=True):
    """An event with its internal ids.

    Attributes:
        run: Id of the run that emitted it.
        trail: The DAGs whose runs led to it, from the origin on.
    """

    run: int | None
    ancestry: tuple[int, ...]
    view: EventView


class EventFilter(Struct, frozen=True):
    """Which events are wanted.

    Attributes:
        dataset: Only those of this URI.
        partition: Only those of this partition.
        since, until: Bounds of the time at which they became durable; `until` is exclusive.
    """

    dataset: str | None = None
    partition: str | None = None
    since: datetime | None = None
    until: datetime | None = None


ALL_EVENTS = EventFilter()


class ReadDatasets:
    """Queries about datasets and their events."""

    def __init__(self, database: Database, specs: SpecReader) -> None:
        self._database = database
        self._specs = specs

    async def page(
        self,
        *,
        limit: int,
        after: str | None = None,
        text: str = "",
        held: bool = False,
        stale: bool = False,
        among: Sequence[str] | None = None,
    ) -> Page[DatasetView]:
        """Return datasets by URI.

        Args:
            limit: Number of datasets at most.
            after: The last URI of the page before.
            text: Only those with this in their URI, in any case.
            held: Only those of which checks hold events.
            stale: Only those that are stale.
            among: Only those that match one of these patterns; None for any.
        """
        patterns = None if among is None else [pattern_expression(each) for each in among]
        async with self._database.search() as connection:
            page = await connection.fetch(
                SQL["page_datasets"], after or "", limit, text.lower(), held, stale, patterns
            )
            rows = await connection.fetch(SQL["read_datasets"], [row["id"] for row in page])
        items = [_dataset(row) for row in rows]
        return Page(items, items[-1].dataset if len(items) == limit else None)

    async def detail(self, uri: str) -> DatasetDetail:
        """Return a dataset with its producers, consumers, open alerts and last events.

        Raises:
            NotFound: The dataset does not exist.
        """
        async with self._database.connection() as connection:
            number = await _find(connection, "dataset", "find_dataset", uri)
            rows = await connection.fetch(SQL["read_datasets"], [number])
            wanted = EventFilter(dataset=uri)
            found = await self._events(connection, wanted, limit=_LOOKED_AT, after=None)
            naming = await connection.fetch(SQL["list_versions_that_name"], uri)
            specs = await self._specs.load(connection, [row["id"] for row in naming])
            consumers = await connection.fetch(SQL["list_consumers"], number)
            alerts = await connection.fetch(SQL["list_open_alerts_of_dataset"], uri)
            checks = await connection.fetch(SQL["list_checks_of_dataset"], number)
        events = [each.view for each in found.values()]
        producers = _producers(uri, specs.values(), events)
        declaring = {each.dag_id for each in producers if each.declared}
        return DatasetDetail(
            **asdict(replace(_dataset(rows[0]), producer_count=len(declaring))),
            producers=producers,
            sources=list(dict.fromkeys(each.source for each in events if each.dag_id is None)),
            subscribers=[_consumer(row) for row in consumers],
            checks=[DatasetCheckView(**row) for row in checks],
            alerts=[DatasetAlertView(**row) for row in alerts],
            last_events=events[:_LAST_EVENTS],
        )

    async def events(
        self, wanted: EventFilter = ALL_EVENTS, *, limit: int, after: int | None = None
    ) -> Page[EventView]:
        """Return events, the newest first.

        Args:
            wanted: Which of them.
            limit: Number of events at most.
            after: The `next` of the page before: a position in the log.

        Raises:
            NotFound: The dataset does not exist.
        """
        async with self._database.search() as connection:
            found = await self._events(connection, wanted, limit=limit, after=after)
        return Page([event.view for event in found.values()], _next(found, limit))

    async def events_with_outcomes(
        self, wanted: EventFilter = ALL_EVENTS, *, limit: int, after: int | None = None
    ) -> Page[EventWithOutcomes]:
        """Return events with their outcomes for every DAG; as `events` otherwise.

        Raises:
            NotFound: The dataset does not exist.
        """
        async with self._database.search() as connection:
            found = await self._events(connection, wanted, limit=limit, after=after)
            items = await _with_outcomes(connection, found)
        return Page(items, _next(found, limit))

    async def event_with_outcomes(self, event_id: UUID) -> EventWithOutcomes:
        """Return an event with its outcomes for every DAG.

        Raises:
            NotFound: The event does not exist.
        """
        async with self._database.search() as connection:
            number = await find_event_number(connection, event_id)
            found = await read_events(connection, self._specs, [number])
            return (await _with_outcomes(connection, found))[0]

    async def subscribed_dags(self, uri: str) -> list[str]:
        """Return the names of the DAGs that subscribe to a dataset."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_subscribed_dags"], uri)
        return [row["dag_id"] for row in rows]

    async def _events(
        self, connection: Connection, wanted: EventFilter, *, limit: int, after: int | None
    ) -> dict[int, FoundEvent]:
        since, until = wanted.since, wanted.until
        first, behind = 0, _END_OF_LOG
        if since is not None or until is not None:
            (bounds,) = await connection.fetch(SQL["find_event_bounds"], since, until)
            if since is not None:
                first = _END_OF_LOG if bounds["first"] is None else bounds["first"]
            if until is not None:
                behind = bounds["behind"] or 0
        before = _END_OF_LOG if after is None else after
        given = (before, limit, first, behind, since, until, wanted.partition)
        if wanted.dataset is None:
            rows = await connection.fetch(SQL["page_events"], *given)
        else:
            number = await _find(connection, "dataset", "find_dataset", wanted.dataset)
            rows = await connection.fetch(SQL["page_dataset_events"], *given, number)
        return await read_events(connection, self._specs, [row["id"] for row in rows])


async def read_events(
    connection: Connection, specs: SpecReader, ids: list[int]
) -> dict[int, FoundEvent]:
    """Return events by their ids, newest first."""
    rows = await connection.fetch(SQL["read_events"], ids)
    versions = await specs.load(connection, (row["version"] for row in rows))
    held = await read_holds(connection, [row for row in rows if row["held"]])
    return {
        row["id"]: FoundEvent(
            row["run"], tuple(row["ancestry"]), _event(row, versions, held.get(row["id"]))
        )
        for row in rows
    }


def _next(found: Mapping[int, FoundEvent], limit: int) -> str | None:
    """Return the cursor of the next page; None at the end."""
    return str(list(found)[-1]) if len(found) == limit else None


async def _with_outcomes(
    connection: Connection, found: Mapping[int, FoundEvent]
) -> list[EventWithOutcomes]:
    held = {number: event.view.held for number, event in found.items() if event.view.held}
    outcomes = await read_event_outcomes(connection, list(found), held)
    return [
        EventWithOutcomes(**asdict(event.view), outcomes=outcomes[number])
        for number, event in found.items()
    ]


async def find_event_number(connection: Connection, event_id: UUID) -> int:
    """Return the number of an event in the log, or of one that checks hold.

    Raises:
        NotFound: The event does not exist, or was pruned.
    """
    try:
        return await _find(connection, "event", "find_event", event_id)
    except NotFound:
        until: datetime | None = await connection.fetchval(SQL["read_events_pruned_until"])
        if until is None:
            raise
        moment = until.isoformat(timespec="seconds")
        kind = f"event (those recorded before {moment} were pruned)"
        raise NotFound(kind, str(event_id)) from None


async def _find(connection: Connection, kind: str, query: str, name: str | UUID) -> int:
    number: int | None = await connection.fetchval(SQL[query], name)
    if number is None:
        raise NotFound(kind, str(name))
    return number


def _dataset(row: asyncpg.Record) -> DatasetView:
    return DatasetView(
        dataset=row["uri"],
        name=row["name"],
        group=row["group_name"],
        extra=row["extra"],
        created_at=row["created_at"],
        consumers=row["names"],
        last_event_id=None if row["event_id"] is None else str(row["event_id"]),
        last_event_at=row["time"],
        fresh_seconds=row["seconds"],
        stale_alert=row["alert"],
        check_count=row["checks"],
        held=row["held"],
    )


def _producers(
    uri: str, specs: Iterable[DagSpec], events: Sequence[EventView]
) -> list[ProducerView]:
    """Return the tasks that name a dataset as an outlet, and those that have emitted events."""
    declared = {
        (spec.dag_id, task.task_id) for spec in specs for task in spec.tasks if uri in task.outlets
    }
    last: dict[tuple[str, str], datetime] = {}
    for each in events:  # the newest first
        if each.dag_id is not None and each.task_id is not None:
            last.setdefault((each.dag_id, each.task_id), each.recorded_at)
    return [
        ProducerView(
            dag_id=key[0], task_id=key[1], declared=key in declared, last_event_at=last.get(key)
        )
        for key in sorted({*declared, *last})
    ]


def _consumer(row: asyncpg.Record) -> ConsumerView:
    return ConsumerView(
        dag_id=row["dag_id"],
        paused=row["paused"],
        pending=row["pending"],
        pending_since=row["since"],
    )


def _event(
    row: asyncpg.Record, versions: Mapping[int, DagSpec], held: str | None = None
) -> EventView:
    spec = versions.get(row["version"])
    return EventView(
        event_id=str(row["event_id"]),
        dataset=row["uri"],
        extra=row["extra"],
        partition=row["partition"],
        time=row["time"],
        recorded_at=row["recorded_at"],
        source=row["source"],
        run_id=None if row["run_id"] is None else str(row["run_id"]),
        dag_id=row["dag_id"],
        task_id=None if spec is None or row["node"] is None else spec.tasks[row["node"]].task_id,
        map_index=None if row["map_index"] == NOT_MAPPED else row["map_index"],
        held=held,
    )
