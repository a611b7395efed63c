"""DAG files and their versions: what the loader found, and what is in force."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from pubsubflow.model.conditions import Input, inputs
from pubsubflow.model.structure import DagSpec, LoadedFile
from pubsubflow.model.timetable import next_tick
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.queries import SQL

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_spec = msgspec.msgpack.Decoder(DagSpec).decode
MOMENT = timedelta(microseconds=1)


class Catalog:
    """Writes what the loader finds.

    A new version is in force from its commit on: running runs keep theirs. A file that cannot be
    imported leaves the last good versions of its DAGs in force.

    Args:
        database: Postgres.
        ticks_changed: Called after a commit that may have set the next tick of a DAG.
    """

    def __init__(
        self, database: Database, *, ticks_changed: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._ticks_changed = ticks_changed

    async def known(self) -> dict[str, str]:
        """Return file → hash of the source for the files that were read without an error."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_good_files"])
        return {row["file"]: row["source"] for row in rows}

    async def save(self, files: Sequence[LoadedFile]) -> None:
        """Record files as they are now, and put the versions of their DAGs in force."""
        await self._database.in_transaction(partial(_save, files))
        if any(spec.timetable is not None for file in files for spec in file.dags):
            self._ticks_changed()

    async def remove(self, files: Sequence[str]) -> None:
        """Record that files are gone: their DAGs start no run any more."""
        await self._database.in_transaction(partial(_remove, list(files)))


async def _save(files: Sequence[LoadedFile], connection: Connection) -> None:
    await connection.execute(SQL["lock_catalog"])
    await _save_files(connection, files)
    good = [file for file in files if file.error is None]
    specs = [spec for file in good for spec in file.dags]
    await _save_datasets(connection, good, specs)
    await _put_in_force(connection, specs)
    await connection.execute(
        SQL["retire_missing_dags"],
        [file.file for file in good],
        [spec.dag_id for spec in specs],
    )


async def _remove(files: list[str], connection: Connection) -> None:
    await connection.execute(SQL["lock_catalog"])
    await connection.execute(SQL["remove_files"], files)
    await connection.execute(SQL["retire_missing_dags"], files, [])


async def _save_files(connection: Connection, files: Sequence[LoadedFile]) -> None:
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


async def _save_datasets(
    connection: Connection, files: Iterable[LoadedFile], specs: Iterable[DagSpec]
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
    uris.update(place.uri for spec in specs for place in _places(spec))
    if uris:
        await connection.fetch(SQL["name_datasets"], sorted(uris))


def _places(spec: DagSpec) -> list[Input]:
    return list(inputs(spec.condition)) if spec.condition is not None else []


async def _put_in_force(connection: Connection, specs: Sequence[DagSpec]) -> None:
    """Make the specs the versions in force, as far as they differ from those that are."""
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
    if changed:
        await _open_gates(connection, {row["dag"]: row["version"] for row in changed}, by_number)


async def _open_gates(
    connection: Connection, versions: dict[int, int], specs: dict[int, DagSpec]
) -> None:
    """Lock the gates of changed DAGs, carry over what is pending, subscribe, set the clock."""
    dags = sorted(versions)
    rows = await connection.fetch(SQL["lock_changed_gates"], dags)
    old = {row["dag"]: _decode_spec(row["spec"]) for row in rows}
    for row in rows:
        if any(row["pending"]):
            await _carry_over(connection, row["dag"], old[row["dag"]], specs[row["dag"]])
    await connection.execute(SQL["open_gates"], dags, [versions[dag] for dag in dags])
    await connection.execute(SQL["drop_subscriptions"], dags)
    places = [(dag, place.uri) for dag in dags for place in _places(specs[dag])]
    await connection.execute(
        SQL["subscribe"], [dag for dag, _ in places], [uri for _, uri in places]
    )
    await _set_ticks(connection, {dag: specs[dag] for dag in dags}, old)


async def _carry_over(connection: Connection, dag: int, old: DagSpec, new: DagSpec) -> None:
    """Move pending events to the places where their dataset stands in the new version."""
    free: dict[str, list[int]] = {}
    for place in _places(old):
        free.setdefault(place.uri, []).append(place.place)
    moves = [(free[place.uri].pop(0), place.place) for place in _places(new) if free.get(place.uri)]
    await connection.execute(
        SQL["move_pending"], dag, [old for old, _ in moves], [new for _, new in moves]
    )
    await connection.execute(SQL["count_pending"], dag, len(_places(new)))


async def _set_ticks(
    connection: Connection, specs: dict[int, DagSpec], old: dict[int, DagSpec]
) -> None:
    """Set the next tick of each DAG with a timetable.

    A tick stays when the timetable does, also one that is due already. With catch-up a DAG that
    never ticked begins at its start; otherwise time counts from now.
    """
    rows = await connection.fetch(SQL["drop_ticks"], sorted(specs))
    due_before = {row["dag"]: row["due_at"] for row in rows}
    now = datetime.now(UTC)
    due = []
    for dag, spec in sorted(specs.items()):
        if spec.timetable is None:
            continue
        since = now
        if spec.catchup and spec.start is not None:
            since = due_before.get(dag, spec.start) - MOMENT
        elif dag in due_before and old[dag].timetable == spec.timetable:
            since = min(due_before[dag] - MOMENT, now)
        tick = next_tick(spec.timetable, since, spec.start, spec.end)
        if tick is not None:
            due.append((dag, tick))
    await connection.execute(SQL["set_ticks"], [dag for dag, _ in due], [tick for _, tick in due])
