"""Versions in force: pinned, promoted, sharing runs; and the deletion of DAGs."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from pubsubflow.errors import InvalidInput, NotFound, StaleRevision
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.model.source.version_choice import takes_canary
from pubsubflow.model.wire.commands import CancelRun, FireTimers, SetPaused, StartRun
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.read.timers import Timers
from pubsubflow.store.retention import delete_runs, remove_bundles, remove_versions
from pubsubflow.store.versions.deletion import (
    DagDeletions,
    RunsUnderWay,
    StillDefined,
    remove_deleted_dags,
)
from pubsubflow.store.versions.promotion import Promotions
from support.bundles import MadeBundle
from support.harness import post, process_batch
from support.specs import dag, loaded, task
from support.truncated_database import truncated, truncated_database  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio
RUN_VERSIONS = (
    "SELECT number, split_part(run.source, '-', 2)::bigint = v.id FROM run "
    "JOIN dag_version AS v ON v.id = run.version ORDER BY run.id"
)


class Folder:
    """A DAGs folder in memory with one file, `d.py`, and what reads and changes its versions."""

    def __init__(self, database):
        self.database = database
        self.catalog = Catalog(database)
        self.promotions = Promotions(database)
        self.deletions = DagDeletions(database)
        self.models = ReadModels(database)
        self.processor = BatchProcessor()

    async def deploy(self, *specs, text=None):
        """Import the file: its text is that of its first DAG's version."""
        text = text or specs[0].source
        bundle = MadeBundle({"d.py": text})
        await self.catalog.save_bundle(
            bundle.hash, bundle.manifest, lambda file: bundle.contents[file.hash]
        )
        await self.catalog.save([replace(loaded(*specs), bundle=bundle.hash)])

    async def do(self, *commands):
        return await process_batch(self.database, self.processor, *commands)

    async def tick(self):
        await self.do(FireTimers(tuple(await Timers(self.database).upcoming())))

    async def rows(self, query, *arguments):
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def seen(self):
        """Return what people see: version in force, version of the file, whether it is pinned."""
        found = await self.models.dags.get("d")
        return found.version, found.newest_version, found.pinned

    async def run_versions(self):
        """Return the versions of all runs; what each is pinned to must be of its version."""
        rows = await self.rows(RUN_VERSIONS)
        assert all(same for _, same in rows)
        return [number for number, _ in rows]


@pytest.fixture
def folder(database):
    return Folder(database)


def version(number, **options):
    return dag("d", *(task(f"t{each}") for each in range(number)), source=f"v{number}", **options)


async def test_a_pinned_dag_stays_behind_until_it_is_promoted(folder):
    for number in (1, 2):
        await folder.deploy(version(number, on="x"))
    await folder.promotions.rollback("d", None, by="ann")
    assert await folder.seen() == (1, 2, True)
    assert (await folder.models.dags.get("d")).pin.by == "ann"
    # Another version, another file of its folder, its own text again: none is put in force.
    await folder.deploy(version(3, on="x"))
    await folder.do(post("x"))
    await folder.catalog.advance("b" * 32, ["d.py"])
    await folder.do(post("x"))
    await folder.deploy(version(1, on="x"))
    assert await folder.seen() == (1, 1, True)
    await folder.deploy(version(3, on="x"))
    assert await folder.seen() == (1, 3, True)
    await folder.do(post("x"))
    assert await folder.run_versions() == [1, 1, 1]
    await folder.promotions.promote("d", None, None, by="ann")
    assert await folder.seen() == (3, 3, False)
    await folder.do(post("x"))
    await folder.deploy(version(4, on="x"))
    await folder.do(post("x"))
    assert await folder.run_versions() == [1, 1, 1, 3, 4]


async def test_going_back_moves_what_is_pending_as_a_new_version_does(folder):
    await folder.deploy(version(1, on="x & y"))
    await folder.deploy(version(2, on="y & z"))
    await folder.do(post("y"), post("z"), post("y"))
    await folder.promotions.rollback("d", 1, by="ann")
    await folder.do(post("x"))
    # y was pending and still counts; z has no place in the first version.
    assert await folder.run_versions() == [2, 1]
    assert await folder.rows("SELECT count(*) FROM dag_subscription") == [(2,)]
    await folder.promotions.promote("d", 2, None, by="ann")
    assert await folder.seen() == (2, 2, False)


async def test_a_dag_that_was_gone_comes_back_as_it_was_pinned(folder):
    for number in (1, 2):
        await folder.deploy(version(number, on="x"))
    await folder.promotions.rollback("d", 1, by="ann")
    await folder.catalog.remove(["d.py"])
    await folder.do(post("x"))
    await folder.deploy(version(3, on="x"))
    await folder.tick()
    assert await folder.run_versions() == [1]
    await folder.catalog.remove(["d.py"])
    assert await folder.catalog.retire(0) is None
    with pytest.raises(InvalidInput, match="no file defines"):
        await folder.promotions.promote("d", 1, None, by="ann")
    await folder.deploy(version(4, on="x"))
    assert await folder.seen() == (1, 4, True)
    await folder.do(post("x"))
    assert await folder.run_versions() == [1, 1]


async def test_what_cannot_be_in_force_is_refused_and_changes_nothing(folder):
    await folder.deploy(version(1))
    await folder.deploy(version(2))
    with pytest.raises(InvalidInput, match="share"):
        await folder.promotions.promote("d", 1, 1.5, by="ann")
    with pytest.raises(NotFound):
        await folder.promotions.promote("d", 9, None, by="ann")
    with pytest.raises(InvalidInput, match="later than version 2"):
        await folder.promotions.rollback("d", 3, by="ann")
    with pytest.raises(NotFound):
        await folder.promotions.rollback("nothing", None, by="ann")
    with pytest.raises(StaleRevision):
        await folder.promotions.rollback("d", None, by="ann", revisions=["1-0"])
    await folder.rows("DELETE FROM bundle WHERE hash IN (SELECT bundle FROM dag_version LIMIT 1)")
    with pytest.raises(InvalidInput, match=r"files of version 1 .* not stored"):
        await folder.promotions.rollback("d", 1, by="ann")
    assert await folder.seen() == (2, 2, False)


async def test_retention_keeps_what_is_pinned_what_follows_and_what_shares(folder, database):
    for number in range(1, 6):
        await folder.deploy(version(number))
    await folder.promotions.rollback("d", 2, by="ann")
    await folder.promotions.promote("d", 4, 0.5, by="ann")
    async with database.connection() as connection:
        await remove_versions(connection, 0, 0, dry_run=False)
        await remove_bundles(connection, 0)
    kept = await folder.models.versions.page("d", limit=9)
    assert [(each.number, each.stored) for each in kept.items] == [(5, True), (4, True), (2, True)]


async def test_a_share_of_runs_takes_another_version(folder):
    await folder.deploy(version(1, on="x"))
    await folder.deploy(version(2, on="x"))
    await folder.promotions.rollback("d", None, by="ann")
    await folder.promotions.promote("d", None, 0.5, by="ann")
    await folder.do(*(StartRun("d", run_key=f"k{number}") for number in range(20)))
    ((number, canary),) = await folder.rows("SELECT dag, canary FROM dag_state")
    expected = [2 if takes_canary(number, canary, f"k{key}", 0.5) else 1 for key in range(20)]
    assert await folder.run_versions() == expected
    assert set(expected) == {1, 2}
    # The runs over max_active_runs keep theirs while they are queued; so do repeated requests.
    states = await folder.rows("SELECT state, count(*) FROM run GROUP BY 1 ORDER BY 1")
    assert states == [("queued", 4), ("running", 16)]
    await folder.do(*(StartRun("d", run_key=f"k{number}") for number in range(20)))
    runs = await folder.rows("SELECT run_id, version FROM run ORDER BY id")
    for run_id, _ in runs[:8]:
        await folder.do(CancelRun(run_id, "room"))
    live = dict(
        await folder.rows("SELECT run_id, l.version FROM run_live AS l JOIN run ON run.id = l.run")
    )
    assert {run_id: version for run_id, version in runs if run_id in live} == live
    one, two = (await folder.models.dags.get("d")).shares
    assert (one.version, two.version, one.share) == (1, 2, 0.5)
    assert (one.runs.total, two.runs.total) == (expected.count(1), expected.count(2))
    await folder.promotions.rollback("d", None, by="ann")
    assert (await folder.models.dags.get("d")).shares == []
    assert await folder.seen() == (1, 2, True)


async def test_versions_that_differ_in_what_runs_there_are_share_none(folder):
    await folder.deploy(version(1, on="x"))
    await folder.deploy(version(2, on="x | y"))
    with pytest.raises(InvalidInput, match="differ in schedule"):
        await folder.promotions.promote("d", 1, 0.5, by="ann")
    assert await folder.seen() == (2, 2, False)


async def test_versions_are_listed_with_changes_and_source(folder):
    await folder.deploy(version(1, on="x"))
    await folder.deploy(version(2, on="x | y"))
    two, one = (await folder.models.versions.page("d", limit=9)).items
    assert (two.number, two.in_force, two.changes.added) == (2, True, ["t1"])
    assert two.changes.schedule
    assert (one.in_force, one.changes, one.tasks) == (False, None, 1)
    page = await folder.models.versions.page("d", limit=1)
    assert (page.items[0].changes, page.next) == (two.changes, "2")
    found = await folder.models.versions.get("d", 1, with_source=True)
    assert (found.source, found.schedule) == ("v1", one.schedule)
    hidden = await folder.models.versions.get("d", 1, with_source=False)
    assert (hidden.source, bool(hidden.source_hidden)) == (None, True)
    with pytest.raises(NotFound):
        await folder.models.versions.get("d", 3, with_source=True)


async def gone(folder):
    """Remove the file of a DAG with two ended runs, one event pending and a dead letter."""
    await folder.deploy(version(1, on="x & y"), dag("e", task("a"), file="d.py"))
    await folder.do(StartRun("d"), StartRun("d"), StartRun("e"), post("x"))
    for (run_id,) in await folder.rows("SELECT run_id FROM run"):
        await folder.do(CancelRun(run_id, "test"))
    await folder.catalog.remove(["d.py"])


async def test_only_what_no_file_defines_is_deleted(folder):
    await folder.deploy(version(1, on="x"))
    with pytest.raises(StillDefined, match=r"d\.py defines DAG 'd'"):
        await folder.deletions.delete("d", keep_history=False, dry_run=False, by="ann")
    await folder.do(StartRun("d"))
    await folder.catalog.remove(["d.py"])
    with pytest.raises(RunsUnderWay, match="--cancel"):
        await folder.deletions.delete("d", keep_history=False, dry_run=False, by="ann")
    assert len(await folder.deletions.live_runs("d")) == 1
    with pytest.raises(NotFound):
        await folder.deletions.delete("nothing", keep_history=False, dry_run=True, by="ann")


async def test_a_deletion_goes_on_where_it_was_cut_off(folder, database):
    await gone(folder)
    planned = await folder.deletions.delete("d", keep_history=False, dry_run=True, by="ann")
    assert (planned.runs, planned.pending_events, planned.subscriptions) == (2, 1, 2)
    assert await folder.seen()
    found = await folder.deletions.delete("d", keep_history=False, dry_run=False, by="ann")
    assert replace(found, dry_run=True) == planned
    with pytest.raises(NotFound):
        await folder.seen()
    (refused,) = await folder.do(StartRun("d"))
    assert isinstance(refused, NotFound)
    # Its name is free at once, and what comes has nothing of what goes.
    await folder.deploy(version(2, on="x & y"))
    await folder.do(post("y"), StartRun("d"))
    cut = SimpleNamespace(left=1)

    async def delete(runs):
        if not cut.left:
            raise ConnectionError
        cut.left -= 1
        async with database.connection() as connection:
            return await delete_runs(connection, runs, with_rows=True)

    async with database.connection() as connection:
        with pytest.raises(ConnectionError):
            await remove_deleted_dags(connection, delete, 1)
        assert await folder.rows("SELECT dag_id FROM dag_deletion") == [("d",)]
        cut.left = 9
        await remove_deleted_dags(connection, delete, 1)
    assert await folder.rows("SELECT count(*) FROM dag_deletion") == [(0,)]
    stored = "SELECT dag_id, number FROM dag JOIN dag_version AS v ON v.dag = dag.id ORDER BY 1"
    assert await folder.rows(stored) == [("d", 1), ("e", 1)]
    counted = "SELECT dag_id, count(*) FROM run JOIN dag ON dag.id = run.dag GROUP BY 1 ORDER BY 1"
    left = await folder.rows(counted)
    assert left == [("d", 1), ("e", 1)]
    assert await folder.rows("SELECT count(*) FROM pending_event") == [(1,)]
    await folder.do(SetPaused("d", paused=True))


async def test_a_dag_may_be_deleted_without_its_history(folder):
    await gone(folder)
    await folder.deletions.delete("d", keep_history=True, dry_run=False, by="ann")
    assert not (await folder.models.dags.get("d")).present
    assert await folder.rows("SELECT count(*) FROM run") == [(3,)]
    assert await folder.rows("SELECT count(*) FROM pending_event") == [(0,)]
    await folder.deploy(version(1, on="x & y"))
    await folder.do(post("y"))
    assert await folder.rows("SELECT count(*) FROM run") == [(3,)]
    await folder.do(post("x"))
    assert await folder.rows("SELECT count(*) FROM run") == [(4,)]
