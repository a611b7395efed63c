"""The catalog: DAG files and the versions of their DAGs, written by the loader."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import asyncpg

from pubsubflow.model.changes import (
    Change,
    DagChange,
    DagChanged,
    ImportChanged,
    encode_records,
)
from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.model.source.stored_imports import StoredImport
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec, LoadedFile
from pubsubflow.store.bundles import write_bundle
from pubsubflow.store.database import Connection, Database, printable
from pubsubflow.store.declarations import (
    delete_watches,
    delete_webhooks,
    pin_freshness,
    retire_freshness,
    save_freshness,
    save_watches,
    save_webhooks,
)
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.versions.in_force import (
    dataset_inputs,
    declare_rate_limits,
    put_states_in_force,
    resume_pins,
)


class Catalog:
    """The writer of the catalog.

    A new version is in force from its commit on; running runs keep theirs. A file that cannot be
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

    async def imported_files(self) -> dict[str, str]:
        """Return file → hash of what its import read, for all files that are stored."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_imported_files"])
        return {row["file"]: row["source"] for row in rows}

    async def stored_imports(self) -> dict[str, StoredImport]:
        """Return file → import, of those files that were last written with a record."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["list_stored_imports"])
        return {
            row["file"]: StoredImport(row["record"], tuple(row["dag_ids"]), tuple(row["bundles"]))
            for row in rows
        }

    async def save(
        self, files: Sequence[LoadedFile], records: Mapping[str, bytes] | None = None
    ) -> None:
        """Write files, and put the versions of their DAGs in force.

        Args:
            files: What their imports have made.
            records: File → record of its import, of those that have one.
        """
        save = partial(_save, files=files, records=records or {}, now=self._now())
        await self._database.in_transaction(save)
        if any(_sets_timers(spec) for file in files for spec in file.dags):
            self._timers_changed()
        self._dags_changed()

    async def save_bundle(
        self,
        bundle: str,
        manifest: Manifest,
        read: Callable[[BundleFile], bytes],
        before: tuple[str, Manifest] | None = None,
    ) -> None:
        """Write a bundle and those of its files that are not stored yet; see `write_bundle`."""
        await write_bundle(self._database, bundle, manifest, read, before)

    async def advance(self, bundle: str, files: Sequence[str]) -> None:
        """Pin the new runs of the DAGs of files to another bundle; their versions stay."""
        advance = partial(_advance, bundle=bundle, files=files)
        await self._database.in_transaction(advance)

    async def remove(self, files: Sequence[str]) -> None:
        """Delete files and mark their DAGs as missing: they start no runs, their events wait."""
        await self._database.in_transaction(partial(_remove, files=files, now=self._now()))
        self._dags_changed()

    async def retire(self, seconds: float) -> float | None:
        """Retire the DAGs that are missing for that long, and what gone files declare as fresh.

        Returns:
            When the next one is due, in seconds from now; None when none is missing.
        """
        async with self._database.transaction() as connection:
            await connection.execute(SQL["lock_catalog"])
            pauses = [await retire_freshness(connection, seconds)]
            rows = await connection.fetch(SQL["find_overdue_dags"], seconds)
        dags = [row["id"] for row in rows if not row["left"]]
        if dags:
            retire = partial(_retire, dags=dags, now=self._now())
            await self._database.in_transaction(retire)
            self._dags_changed()
        pauses += [row["left"] for row in rows if row["left"]]
        return min((each for each in pauses if each is not None), default=None)


async def _save(
    connection: Connection,
    *,
    files: Sequence[LoadedFile],
    records: Mapping[str, bytes],
    now: datetime,
) -> None:
    # Locks: the catalog, then dataset rows by URI, then dag_state rows by DAG, as managers do.
    await connection.execute(SQL["lock_catalog"])
    changes = await _save_files(connection, files, now)
    if records:
        await connection.execute(SQL["save_import_records"], list(records), list(records.values()))
    imported = [file for file in files if file.error is None]
    specs = [spec for file in imported for spec in file.dags]
    await _save_datasets(connection, imported, specs)
    await save_webhooks(connection, imported)
    await save_watches(connection, imported)
    await save_freshness(connection, imported)
    # All at once, in order: every further lock is of one of these.
    await connection.fetch(
        SQL["lock_dags_of_files"],
        [file.file for file in imported],
        [spec.dag_id for spec in specs],
    )
    bundles = {spec.dag_id: file.bundle for file in imported for spec in file.dags}
    changes += await _put_in_force(connection, specs, bundles, now)
    await declare_rate_limits(connection, specs)
    # Last, as a DAG that has moved to another file belongs to that one by now.
    changes += await _mark_missing(connection, [file.file for file in imported], list(bundles), now)
    await _record_changes(connection, changes)


def _sets_timers(spec: DagSpec) -> bool:
    return spec.schedule is not None or any(task.rate_limit for task in spec.tasks)


async def _advance(connection: Connection, *, bundle: str, files: Sequence[str]) -> None:
    await connection.execute(SQL["lock_catalog"])
    rows = await connection.fetch(SQL["lock_dags_of_files"], list(files), [])
    dags = [row["dag"] for row in rows]
    await connection.fetch(SQL["pin_dags"], dags, [bundle] * len(dags))
    await connection.execute(SQL["advance_newest_versions"], dags, bundle)
    await pin_freshness(connection, bundle, files)


async def _remove(connection: Connection, *, files: Sequence[str], now: datetime) -> None:
    await connection.execute(SQL["lock_catalog"])
    await connection.execute(SQL["delete_files"], list(files))
    await connection.fetch(SQL["lock_dags_of_files"], list(files), [])
    await delete_webhooks(connection, files)
    await delete_watches(connection, files)
    await _record_changes(connection, await _mark_missing(connection, files, [], now))


async def _record_changes(connection: Connection, changes: Sequence[Change]) -> None:
    """Append to the change log, unless nothing changed."""
    if changes:
        await connection.execute(SQL["record_changes"], encode_records(changes))


async def _mark_missing(
    connection: Connection, files: Sequence[str], dag_ids: Sequence[str], now: datetime
) -> list[Change]:
    """Mark the DAGs that files no longer define as missing, and return the changes."""
    rows = await connection.fetch(SQL["mark_missing_dags"], list(files), list(dag_ids))
    return _changed(rows, DagChange.MISSING, now)


async def _retire(connection: Connection, *, dags: Sequence[int], now: datetime) -> None:
    await connection.execute(SQL["lock_catalog"])
    await connection.fetch(SQL["lock_dags"], list(dags))
    rows = await connection.fetch(SQL["retire_dags"], list(dags))
    await _record_changes(connection, _changed(rows, DagChange.RETIRED, now))


def _changed(rows: Iterable[asyncpg.Record], change: DagChange, now: datetime) -> list[Change]:
    return [
        DagChanged(dag_id=dag_id, change=change, time=now)
        for dag_id in sorted(row["dag_id"] for row in rows)
    ]


async def _save_files(
    connection: Connection, files: Sequence[LoadedFile], now: datetime
) -> list[Change]:
    """Write files; return the imports that fail now, or work again."""
    rows = await connection.fetch(SQL["read_file_errors"], [file.file for file in files])
    before = {row["file"]: row["error"] for row in rows}
    await connection.execute(
        SQL["save_files"],
        [file.file for file in files],
        [file.source for file in files],
        [None if file.error is None else printable(file.error) for file in files],
        [None if file.traceback is None else printable(file.traceback) for file in files],
        [file.seconds for file in files],
    )
    return [
        ImportChanged(file=file.file, error=file.error, time=now)
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
    uris.update(each.uri for spec in specs for each in dataset_inputs(spec) if not each.pattern)
    if uris:
        await connection.fetch(SQL["register_datasets"], sorted(uris))


async def _put_in_force(
    connection: Connection, specs: Sequence[DagSpec], bundles: Mapping[str, str], now: datetime
) -> list[Change]:
    """Put the specs that changed in force, in the bundles of their DAGs; return the changes."""
    ordered = sorted(specs, key=lambda spec: spec.dag_id)
    encoded = [STORED_SPEC.encode(spec) for spec in ordered]
    hashes = [hashlib.sha256(each).hexdigest() for each in encoded]
    rows = await connection.fetch(
        SQL["save_dags"], [spec.dag_id for spec in ordered], [spec.file for spec in ordered]
    )
    ids = {row["dag_id"]: row["id"] for row in rows}
    changed = await connection.fetch(
        SQL["save_versions"], [ids[spec.dag_id] for spec in ordered], hashes, encoded
    )
    by_id = {ids[spec.dag_id]: spec for spec in ordered}
    new_versions = [
        DagChanged(
            dag_id=by_id[row["dag"]].dag_id,
            change=DagChange.VERSION,
            version=row["number"],
            time=now,
        )
        for row in changed
    ]
    changes: list[Change] = [*sorted(new_versions, key=lambda each: each.dag_id)]
    if changed:
        versions = {row["dag"]: row["version"] for row in changed}
        changes += await put_states_in_force(connection, versions, by_id, now)
    dags = sorted(by_id)
    pinned = [bundles[by_id[dag].dag_id] for dag in dags]
    returned = await connection.fetch(SQL["pin_dags"], dags, pinned)
    pins = await connection.fetch(SQL["list_pins"], dags)
    if pins:
        sources = [bundles[spec.dag_id] for spec in ordered]
        of_dags = [ids[spec.dag_id] for spec in ordered]
        await connection.execute(SQL["note_newest_versions"], of_dags, hashes, sources)
        changes += await resume_pins(connection, pins, now)
    await connection.execute(SQL["resume_returned_dags"], [row["id"] for row in returned])
    return changes + _changed(returned, DagChange.RETURNED, now)
