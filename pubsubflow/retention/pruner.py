"""One pass of retention: begins slices, and archives and removes what is old.

Whatever dies in between, the next pass goes on: each step commits by itself, and begins with what
an earlier one left behind. One daemon at a time is at it, by an advisory lock.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeVar

import anyio
import structlog
from msgspec import Struct, field

from pubsubflow.model.spec import RetentionSpec
from pubsubflow.object_store import FileStore, LogStore, ObjectStoreUnavailable
from pubsubflow.retention.archive import Archive
from pubsubflow.retention.result_sweep import sweep_results
from pubsubflow.retention.settings import RetentionSettings
from pubsubflow.store import retention as store
from pubsubflow.store import slices
from pubsubflow.store.database import Connection, Database
from pubsubflow.store.objects import log_files
from pubsubflow.store.objects.log_files import LogFile
from pubsubflow.store.retention import FOR_EVER_SECONDS, MOST_KEPT, KeptFor
from pubsubflow.store.slices import SEQUENCES, Removal, Slice
from pubsubflow.store.specs import SpecReader
from pubsubflow.store.versions.deletion import remove_deleted_dags

log = structlog.get_logger()

_EVENT_TABLES = ("event_outcome", "event")
_LOG_FILES = "log_object"
_RUN_TABLES = ("log", _LOG_FILES, "attempt", "journal_entry", "task", "run_event")
# What is shorter-lived than the runs, and the tables it stands in.
_PARTS = (("logs", ("log", _LOG_FILES)), ("attempts", ("attempt",)))
_SLICES_A_RETENTION = 8
_MOST_SLICES = 64
_DELETED_AT_ONCE = 500
_BUNDLES_EVERY_SECONDS = 6 * 3600.0
_PARTITIONS_EVERY_SECONDS = _RESULTS_EVERY_SECONDS = 3600.0


class Pass(Struct):
    """One pass, and what it has found so far.

    Attributes:
        connection: Of the whole pass; outside of a transaction between its steps.
        dry_run: Whether to look only.
        own: DAG → its retention, None for the usual one.
        removals: What was removed, or would be.
        held: Slices that are due and stay as they are.
    """

    connection: Connection
    dry_run: bool
    own: dict[int, RetentionSpec | None]
    removals: list[Removal] = field(default_factory=list)
    held: int = 0


class Pruner:
    """Removes what retention does not keep.

    Args:
        database: Postgres.
        settings: How long what is kept.
        archive: Where rows of events and runs go before they are removed, if anywhere.
        log_store: Where output of ended attempts is, if not in Postgres.
        result_store: Where large results are, if anywhere.
    """

    def __init__(
        self,
        database: Database,
        settings: RetentionSettings,
        archive: Archive | None = None,
        log_store: LogStore | None = None,
        result_store: FileStore | None = None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._archive = archive
        self._log_store = log_store
        self._result_store = result_store
        self._specs = SpecReader()
        # (table, slice) → what was kept of it last: it is copied again only if less is kept.
        self._kept: dict[tuple[str, int], int] = {}
        self._bundles_at = self._partitions_at = self._results_at = float("-inf")

    async def read_clock(self) -> float:
        """Return the time of the database, in seconds since 1970.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            return await store.read_clock(connection)

    async def prune(self, *, dry_run: bool = False) -> Pass | None:
        """Remove what is due; return what that was, or None if another daemon is at it.

        Args:
            dry_run: Whether to count only what would be removed.

        Raises:
            StoreUnavailable: Postgres is away.
            ArchiveUnavailable: The archive cannot be written; what it lacks is still there.
        """
        async with self._database.session() as connection:
            if not dry_run and not await store.try_lock(connection):
                return None
            try:
                own = await store.list_own_retentions(connection, self._specs)
                done = Pass(connection, dry_run, own)
                if not dry_run:
                    await self._remove_deleted(done)
                    await self._begin_slices(connection)
                await self._prune_events(done)
                await self._prune_runs(done)
                await self._prune_rows(done)
                return done
            finally:
                if not dry_run and not connection.is_closed():
                    await store.unlock(connection)

    async def remove_deleted(self) -> None:
        """Remove the runs of deleted DAGs, unless another daemon is at it.

        Raises:
            StoreUnavailable: Postgres is away.
        """
        async with self._database.connection() as connection:
            if not await store.try_lock(connection):
                return
            try:
                await self._remove_deleted(Pass(connection, dry_run=False, own={}))
            finally:
                if not connection.is_closed():
                    await store.unlock(connection)

    async def _remove_deleted(self, done: Pass) -> None:
        delete_runs = partial(self._delete_runs, done, with_rows=True)
        await remove_deleted_dags(done.connection, delete_runs, _DELETED_AT_ONCE)

    async def _begin_slices(self, connection: Connection) -> None:
        for series in SEQUENCES:
            await slices.drop_leftovers(connection, series)
            await slices.begin_slice(connection, series, partial(self._is_full, series))

    def _is_full(self, series: str, newest: Slice, ids: int) -> bool:
        """Whether a slice is to end: it covers an eighth of what is kept."""
        settings = self._settings
        if not ids or newest.age_seconds is None:
            return False
        count = settings.events_count if series == "event" else 0
        if count and ids >= max(count // _SLICES_A_RETENTION, 1):
            return True
        named = ("events",) if series == "event" else ("runs", "logs", "attempts")
        known = [seconds for name in named if (seconds := settings.seconds(name)) is not None]
        if not known:
            return False
        # Few partitions, even if what is shortest-lived goes later for it.
        length = max(min(known) / _SLICES_A_RETENTION, max(known) / _MOST_SLICES)
        return newest.age_seconds >= length

    async def _prune_events(self, done: Pass) -> None:
        settings, connection = self._settings, done.connection
        seconds = settings.seconds("events")
        found = await slices.list_slices(connection, "event")
        newer = 0
        due = []
        for each in reversed(found):
            full = settings.events_count and newer >= settings.events_count
            newer += each.ids or 0
            if each.ended_seconds is not None and (
                full or (seconds is not None and each.ended_seconds >= seconds)
            ):
                due.append(each)
        for each in reversed(due):
            list_kept = partial(store.list_kept_events, connection, each)
            if await self._trim(done, each, _EVENT_TABLES, list_kept) and not done.dry_run:
                await slices.forget_slice(connection, each)

    async def _prune_runs(self, done: Pass) -> None:
        await self._prune_dags(done)
        runs = self._kept_for(done, "runs")
        for each in await slices.list_slices(done.connection, "run"):
            if each.ended_seconds is None or each.ended_seconds < slices.SLICE_LEFT_ALONE_SECONDS:
                continue
            if each.ended_seconds >= runs.seconds and await self._prune_slice(done, each, runs):
                continue
            await self._prune_parts(done, each)

    def _kept_for(self, done: Pass, name: str) -> KeptFor:
        """Return how long something of runs is kept; never longer than these."""
        seconds = [self._settings.seconds(each) or FOR_EVER_SECONDS for each in (name, "runs")]
        own: dict[int, float] = {}
        for dag, spec in done.own.items():
            if spec is not None:
                default = seconds[1] if spec.runs_seconds is None else spec.runs_seconds
                wanted = getattr(spec, f"{name}_seconds", None)
                own[dag] = min(seconds[0] if wanted is None else wanted, default)
        return KeptFor(min(seconds), own)

    async def _prune_dags(self, done: Pass) -> None:
        """Remove runs of DAGs that keep fewer of them, or for a shorter time, row by row."""
        usual = self._settings.seconds("runs") or FOR_EVER_SECONDS
        for dag, spec in done.own.items():
            own = None if spec is None else spec.runs_seconds
            count = None if spec is None else spec.runs_count
            seconds = usual if own is None else own
            count = self._settings.runs_count if count is None else count
            if seconds >= usual and not count:
                continue
            while runs := await store.list_due_runs_of_dag(done.connection, dag, seconds, count):
                removed = await self._delete_runs(done, runs, with_rows=True)
                if done.dry_run or not removed:
                    break

    async def _prune_slice(self, done: Pass, found: Slice, kept_for: KeptFor) -> bool:
        """Remove the due runs of a slice with all that belongs to them; return whether all went."""
        connection = done.connection
        kept = await store.list_kept_runs(connection, found, kept_for)
        # Row by row where too much is kept to be copied: it takes longer, and frees less.
        by_row = len(kept) > MOST_KEPT
        if not by_row:
            await self._archive_slice(done, found, _RUN_TABLES, kept)
        async for runs in store.pages_of_due_runs(connection, found, kept_for):
            await self._delete_runs(done, runs, with_rows=by_row)
        if by_row:
            return False
        # From here on no run is there but those that are kept, or began again.
        list_kept = partial(store.list_runs, connection, found)
        if done.dry_run:
            list_kept = partial(store.list_kept_runs, connection, found, kept_for)
        if await self._trim(done, found, _RUN_TABLES, list_kept, archive=False):
            if not done.dry_run:
                await slices.forget_slice(connection, found)
            return True
        return False

    async def _prune_parts(self, done: Pass, found: Slice) -> None:
        """Remove what is kept for a shorter time than the runs of a slice."""
        connection = done.connection
        for name, tables in _PARTS:
            kept_for = self._kept_for(done, name)
            if (found.ended_seconds or 0) >= kept_for.seconds:
                list_kept = partial(store.list_kept_runs, connection, found, kept_for)
                await self._trim(done, found, tables, list_kept)
        results = self._kept_for(done, "results")
        if found.results_removed or (found.ended_seconds or 0) < results.seconds or done.dry_run:
            return
        async for runs in store.pages_of_due_runs(connection, found, results):
            done.removals.append(await store.remove_results(connection, runs))
        if not await store.list_kept_runs(connection, found, results):
            await store.mark_results_removed(connection, found)

    async def _prune_rows(self, done: Pass) -> None:
        """Remove keys, backfills, partitions, dead letters and versions."""
        settings, connection = self._settings, done.connection
        seconds = settings.seconds("keys")
        if seconds is not None:
            done.removals.append(await store.remove_keys(connection, seconds, dry_run=done.dry_run))
        seconds = settings.seconds("runs")
        if seconds is not None:
            removal = store.remove_backfills(connection, seconds, dry_run=done.dry_run)
            done.removals.append(await removal)
        seconds = settings.seconds("checks")
        if seconds is not None:
            done.removals += await store.remove_check_results(
                connection, seconds, dry_run=done.dry_run
            )
        seconds = settings.seconds("partitions")
        # It reads the whole table, so not each time.
        if seconds is not None and anyio.current_time() >= self._partitions_at:
            self._partitions_at = anyio.current_time() + _PARTITIONS_EVERY_SECONDS
            removal = store.remove_condition_states(connection, seconds, dry_run=done.dry_run)
            done.removals.append(await removal)
        await self._sweep_results(done)
        if not done.dry_run and anyio.current_time() >= self._bundles_at:
            self._bundles_at = anyio.current_time() + _BUNDLES_EVERY_SECONDS
            kept = settings.seconds("versions") or FOR_EVER_SECONDS
            done.removals += await store.remove_bundles(connection, kept)
        for name, remove in (
            ("dead_letters", store.remove_letters),
            ("versions", store.remove_versions),
        ):
            seconds = settings.seconds(name) or FOR_EVER_SECONDS
            count = getattr(settings, f"{name}_count")
            done.removals.append(await remove(connection, seconds, count, dry_run=done.dry_run))

    async def _sweep_results(self, done: Pass) -> None:
        # It lists the whole store, so not each time.
        if self._result_store is None or anyio.current_time() < self._results_at:
            return
        self._results_at = anyio.current_time() + _RESULTS_EVERY_SECONDS
        try:
            removal = sweep_results(done.connection, self._result_store, dry_run=done.dry_run)
            done.removals.append(await removal)
        except ObjectStoreUnavailable as error:
            log.warning("retention.results_kept", reason=str(error))

    async def _trim(
        self,
        done: Pass,
        found: Slice,
        tables: Sequence[str],
        list_kept: Callable[[], Awaitable[Collection[int]]],
        *,
        archive: bool = True,
    ) -> bool:
        """Remove a slice's rows from tables, except for what is kept; return whether nothing is."""
        kept = await list_kept()
        if len(kept) > MOST_KEPT:
            done.held += 1
            log.warning("retention.slice_held", series=found.series, number=found.number)
            return False
        if done.dry_run:
            sizes = await slices.read_partitions(done.connection, found, tables, exact=True)
            done.removals += [Removal(name, *size) for name, size in sizes.items()]
            if _LOG_FILES in sizes:
                pages = log_files.pages_of_files(done.connection, found.first, found.end, kept)
                done.removals += [_files_removal(page) async for page in pages]
            return not kept
        key = (tables[0], found.number)
        if kept and self._kept.get(key) == len(kept):
            return False
        archived = kept
        if archive:
            await self._archive_slice(done, found, tables, archived)
        if _LOG_FILES in tables and not await self._delete_files(
            done, log_files.pages_of_files(done.connection, found.first, found.end, kept)
        ):
            return False

        async def list_all() -> Collection[int]:
            # What was kept when the archive was written is not in it.
            return {*archived, *await list_kept()}

        removals = await slices.trim_slice(done.connection, found, tables, list_all)
        if removals is None:
            return False
        done.removals += removals
        self._kept[key] = len(kept)
        return not kept and not await slices.read_partitions(done.connection, found, tables)

    async def _archive_slice(
        self, done: Pass, found: Slice, tables: Iterable[str], kept: Collection[int]
    ) -> None:
        if self._archive is None or done.dry_run:
            return
        for table in await slices.read_partitions(done.connection, found, list(tables)):
            columns = await store.read_columns(done.connection, table)
            pages = store.rows_to_archive(done.connection, table, found, kept)
            rows = await self._archive.write(table, found.first, pages, columns)
            log.info("retention.rows_archived", table=table, slice=found.number, rows=rows)

    async def _delete_runs(self, done: Pass, runs: Sequence[int], *, with_rows: bool) -> int:
        if done.dry_run:
            done.removals.append(Removal("run", len(runs), 0))
            return len(runs)
        if self._archive is not None:
            rows = await store.read_runs_to_archive(done.connection, runs)
            columns = await store.read_columns(done.connection, "run")
            await self._archive.write("run", runs[0], _one_page(rows), columns)
        files = await log_files.list_files_of_runs(done.connection, runs) if with_rows else []
        if files and not await self._delete_files(done, _one_page(files)):
            return 0
        removed = await store.delete_runs(done.connection, runs, with_rows=with_rows)
        done.removals.append(Removal("run", removed, 0))
        return removed

    async def _delete_files(self, done: Pass, pages: AsyncIterator[list[LogFile]]) -> bool:
        """Delete files of the log store, before what lists them; return whether they are gone."""
        async for page in pages:
            if self._log_store is None:
                log.warning("retention.files_left", files=len(page), first=page[0].name)
                continue
            try:
                await self._log_store.delete([each.name for each in page])
            except ObjectStoreUnavailable as error:
                log.warning("retention.files_kept", reason=str(error))
                return False
            done.removals.append(_files_removal(page))
        return True


def _files_removal(files: Sequence[LogFile]) -> Removal:
    return Removal("log store, files", len(files), sum(each.bytes for each in files))


T = TypeVar("T")


async def _one_page(rows: list[T]) -> AsyncIterator[list[T]]:
    yield rows
