"""DAG files and their versions: what the loader found, and what is in force."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import structlog

from pubsubflow.model.changes import (
    DagChange,
    DagNews,
    ImportNews,
    Item,
    RunNews,
    encode_items,
    item_of,
)
from pubsubflow.model.datasets import pattern_expression
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.conditions import Input, Schedule, inputs, ticks
from pubsubflow.model.schedule.timetable import next_tick
from pubsubflow.model.spec import DagSpec, LoadedFile
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.schedule_changes import CHANGED, carry
from pubsubflow.store.watches import drop_watches, save_watches
from pubsubflow.store.webhooks import drop_hooks, save_hooks

log = structlog.get_logger()

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_spec = msgspec.msgpack.Decoder(DagSpec).decode
MOMENT = timedelta(microseconds=1)


class Catalog:
    """Writes what the loader finds.

    A new version is in force from its commit on: running runs keep theirs. A file that cannot be
    imported leaves the last good versions of its DAGs in force.

    Args:
        database: Postgres.
        timers_changed: Called after a commit that may have set timers.
        dags_changed: Called after every commit.
        now: The time.
    """

    def __init__(
        self,
        database: Database,
        *,
        timers_changed: Callable[[], None] = lambda: None,
        dags_changed: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._timers_changed = timers_changed
        self._dags_changed = dags_changed
        self._now = now

    async def known(self) -> dict[str, str]:
        """Return file → hash of the source for the files that were read without an error."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_good_files"])
        return {row["file"]: row["source"] for row in rows}

    async def save(self, files: Sequence[LoadedFile]) -> None:
        """Record files as they are now, and put the versions of their DAGs in force."""
        await self._database.in_transaction(partial(_save, files=files, now=self._now()))
        if any(spec.schedule is not None for file in files for spec in file.dags):
            self._timers_changed()
        self._dags_changed()

    async def remove(self, files: Sequence[str]) -> None:
        """Record that files are gone: their DAGs start no run any more."""
        await self._database.in_transaction(partial(_remove, files=files, now=self._now()))
        self._dags_changed()


async def _save(connection: Connection, *, files: Sequence[LoadedFile], now: datetime) -> None:
    await connection.execute(SQL["lock_catalog"])
    news = await _save_files(connection, files, now)
    good = [file for file in files if file.error is None]
    specs = [spec for file in good for spec in file.dags]
    await _save_datasets(connection, good, specs)
    await save_hooks(connection, good)
    await save_watches(connection, good)
    news += await _put_in_force(connection, specs, now)
    dag_ids = [spec.dag_id for spec in specs]
    news += await _retire(connection, [file.file for file in good], dag_ids, now)
    await _tell(connection, news)


async def _remove(connection: Connection, *, files: Sequence[str], now: datetime) -> None:
    await connection.execute(SQL["lock_catalog"])
    await connection.execute(SQL["remove_files"], list(files))
    await drop_hooks(connection, files)
    await drop_watches(connection, files)
    await _tell(connection, await _retire(connection, files, [], now))


async def _tell(connection: Connection, news: Sequence[Item]) -> None:
    """Append to the log of news, if there are any."""
    if news:
        await connection.execute(SQL["record_news"], encode_items(news))


async def _retire(
    connection: Connection, files: Sequence[str], dag_ids: Sequence[str], now: datetime
) -> list[Item]:
    """Take the DAGs of files out of force that are not there any more; return the news."""
    rows = await connection.fetch(SQL["retire_missing_dags"], list(files), list(dag_ids))
    return [
        item_of(DagNews(dag_id=row["dag_id"], change=DagChange.RETIRED, time=now)) for row in rows
    ]


async def _save_files(
    connection: Connection, files: Sequence[LoadedFile], now: datetime
) -> list[Item]:
    """Record files and their sources; return news of imports that fail, or work again."""
    rows = await connection.fetch(SQL["read_file_errors"], [file.file for file in files])
    before = {row["file"]: row["error"] for row in rows}
    await connection.execute(
        SQL["save_sources"],
        [file.bundle.hash for file in files],
        [msgspec.msgpack.encode(file.bundle) for file in files],
    )
    await connection.execute(
        SQL["save_files"],
        [file.file for file in files],
        [file.bundle.hash for file in files],
        [file.error for file in files],
        [file.traceback for file in files],
        [file.seconds for file in files],
    )
    return [
        item_of(ImportNews(file=file.file, error=file.error, time=now))
        for file in files
        if file.error != before.get(file.file)
    ]


async def _save_datasets(
    connection: Connection, files: Sequence[LoadedFile], specs: Iterable[DagSpec]
) -> None:
    declared = {dataset.uri: dataset for file in files for dataset in file.datasets}
    if declared:
        rows = sorted(declared.values(), key=lambda dataset: dataset.uri)
        await connection.execute(
            SQL["save_datasets"],
            [dataset.uri for dataset in rows],
            [dataset.name for dataset in rows],
            [dataset.group for dataset in rows],
            [dataset.extra for dataset in rows],
        )
    uris = {uri for spec in specs for task in spec.tasks for uri in task.outlets}
    uris.update(hook.dataset for file in files for hook in file.hooks)
    uris.update(place.uri for spec in specs for place in _places(spec) if not place.pattern)
    if uris:
        await connection.fetch(SQL["name_datasets"], sorted(uris))


def _places(spec: DagSpec) -> list[Input]:
    return list(inputs(spec.schedule.condition)) if spec.schedule is not None else []


async def _put_in_force(
    connection: Connection, specs: Sequence[DagSpec], now: datetime
) -> list[Item]:
    """Make specs the versions in force, as far as they differ from those that are; tell of it."""
    ordered = sorted(specs, key=lambda spec: spec.dag_id)
    encoded = [_encode(spec) for spec in ordered]
    hashes = [hashlib.sha256(each).hexdigest() for each in encoded]
    rows = await connection.fetch(
        SQL["save_dags"], [spec.dag_id for spec in ordered], [spec.file for spec in ordered]
    )
    numbers = {row["dag_id"]: row["id"] for row in rows}
    changed = await connection.fetch(
        SQL["save_versions"], [numbers[spec.dag_id] for spec in ordered], hashes, encoded
    )
    by_number = {numbers[spec.dag_id]: spec for spec in ordered}
    news = [
        DagNews(
            dag_id=by_number[row["dag"]].dag_id,
            change=DagChange.VERSION,
            version=row["number"],
            time=now,
        )
        for row in changed
    ]
    items = [item_of(each) for each in sorted(news, key=lambda each: each.dag_id)]
    if changed:
        versions = {row["dag"]: row["version"] for row in changed}
        items += await _open_gates(connection, versions, by_number, now)
    return items


async def _open_gates(
    connection: Connection, versions: dict[int, int], specs: dict[int, DagSpec], now: datetime
) -> list[Item]:
    """Lock the gates of changed DAGs, carry over what is pending, subscribe, set the clock.

    Returns:
        News of runs that collected events and are cancelled.
    """
    news = []
    dags = sorted(versions)
    before: dict[int, Schedule] = {}
    for row in await connection.fetch(SQL["lock_changed_gates"], dags):
        old, new = _decode_spec(row["spec"]).schedule, specs[row["dag"]].schedule
        if old is not None:
            before[row["dag"]] = old
        dag_id = specs[row["dag"]].dag_id
        for run_id in await carry(connection, row["dag"], old, new, now):
            state = RunState.CANCELLED
            run = RunNews(run_id=run_id, dag_id=dag_id, state=state, error=CHANGED, time=now)
            news.append(item_of(run))
    since = [specs[dag].subscribe_from for dag in dags]
    await connection.execute(SQL["open_gates"], dags, [versions[dag] for dag in dags], since)
    await _subscribe(
        connection, [(dag, place) for dag in dags for place in _places(specs[dag])], dags
    )
    await connection.execute(SQL["catch_up_later"], dags)
    await _set_ticks(connection, {dag: specs[dag] for dag in dags}, before, now)
    return news


async def _subscribe(
    connection: Connection, places: Sequence[tuple[int, Input]], dags: Sequence[int]
) -> None:
    await connection.execute(SQL["drop_subscriptions"], dags)
    exact = [(dag, place.uri) for dag, place in places if not place.pattern]
    await connection.execute(SQL["subscribe"], [dag for dag, _ in exact], [uri for _, uri in exact])
    matching = [(dag, place.uri) for dag, place in places if place.pattern]
    if matching:
        await connection.execute(SQL["await_new_datasets"])
    await connection.execute(
        SQL["subscribe_patterns"],
        [dag for dag, _ in matching],
        [pattern for _, pattern in matching],
        [pattern_expression(pattern) for _, pattern in matching],
    )


async def _set_ticks(
    connection: Connection,
    specs: dict[int, DagSpec],
    before: dict[int, Schedule],
    now: datetime,
) -> None:
    """Set the next tick of every timetable.

    A tick stays when the timetable does, also one that is due already. With catch-up a DAG that
    never ticked begins at its start; otherwise time counts from now.
    """
    dropped = await connection.fetch(SQL["drop_ticks"], sorted(specs))
    due = {(row["dag"], row["node"]): row["due_at"] for row in dropped}
    rows = []
    for dag, spec in sorted(specs.items()):
        old = list(ticks(before[dag].condition)) if dag in before else []
        for part in ticks(spec.schedule.condition) if spec.schedule is not None else ():
            since, key = now, (dag, part.slot)
            if spec.catchup and spec.start is not None:
                since = due.get(key, spec.start) - MOMENT
            elif key in due and part in old:
                since = min(due[key] - MOMENT, now)
            moment = next_tick(part.timetable, since, spec.start, spec.end)
            if moment is not None:
                rows.append((dag, part.slot, moment))
    await connection.execute(
        SQL["set_ticks"],
        [dag for dag, _, _ in rows],
        [slot for _, slot, _ in rows],
        [moment for _, _, moment in rows],
    )
