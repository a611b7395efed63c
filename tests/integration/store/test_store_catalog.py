"""The catalog: what the loader writes, and the versions in force."""

import random
import string
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import msgspec
import pytest

from pubsubflow.errors import InvalidInput, NotFound
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.model.datasets import normalise_uri
from pubsubflow.model.schedule.condition_state import decode_condition_state
from pubsubflow.model.schedule.timetable import CronSpec, IntervalSpec, OnceSpec
from pubsubflow.model.source.bundles import Manifest
from pubsubflow.model.spec import DatasetSpec, LoadedFile
from pubsubflow.model.wire.commands import FireTimers, SetPaused, StartRun
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.read.timers import Timers
from pubsubflow.store.read.worker_requests import WorkerRequestQueries
from support.bundles import MadeBundle
from support.harness import post, process_batch
from support.specs import dag, loaded, task, uri
from support.truncated_database import truncated, truncated_database  # noqa: F401 - fixtures

pytestmark = pytest.mark.anyio
NOON = CronSpec("0 12 * * *")
EVENING = CronSpec("0 18 * * *")
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def catalog(database):
    return Catalog(database)


@pytest.fixture
def rows(database):
    async def read(query, *arguments):
        async with database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    return read


@pytest.fixture
def pending(rows):
    async def read():
        """Return input → datasets of pending events, checked against the condition's counts."""
        found = {}
        for index, name in await rows(
            "SELECT input, uri FROM pending_event JOIN event ON event.id = pending_event.event"
            " JOIN dataset ON dataset.id = event.dataset ORDER BY input, event"
        ):
            found.setdefault(index, []).append(name.removeprefix("x://"))
        ((state, is_open),) = await rows("SELECT state, open FROM condition_state")
        counts = [index.count for index in decode_condition_state(state).inputs]
        assert [len(found.get(index, [])) for index in range(len(counts))] == counts
        assert is_open == bool(found)
        return found

    return read


def one(**options):
    return dag("d", task("a"), **options)


async def versions(rows):
    return [number for (number,) in await rows("SELECT number FROM dag_version ORDER BY id")]


async def test_an_unchanged_file_costs_no_new_version(catalog, rows):
    for _ in range(3):
        await catalog.save([loaded(one(on="x & y"))])
    assert await versions(rows) == [1]
    assert await rows("SELECT uri FROM dataset ORDER BY uri") == [("x://x",), ("x://y",)]


async def test_a_changed_file_makes_a_version_and_its_return_none(catalog, rows):
    await catalog.save([loaded(one())])
    await catalog.save([loaded(one(source="h2"))])
    await catalog.save([loaded(one())])
    assert await versions(rows) == [1, 2]
    in_force = "SELECT number FROM dag JOIN dag_version AS v ON v.id = dag.version"
    assert await rows(in_force) == [(1,)]
    assert await rows(
        "SELECT number FROM dag_state JOIN dag_version AS v ON v.id = dag_state.version"
    ) == [(1,)]


async def test_only_the_dag_that_changed_gets_a_version(catalog, rows):
    await catalog.save([loaded(one(), dag("e", task("a"), file="d.py"))])
    await catalog.save([loaded(one(), dag("e", task("b"), file="d.py"))])
    found = "SELECT dag_id, v.number FROM dag JOIN dag_version AS v ON v.id = dag.version"
    assert sorted(await rows(found)) == [("d", 1), ("e", 2)]


async def test_an_import_error_keeps_the_last_good_version(catalog, rows, database):
    await catalog.save([loaded(one(on="x"))])
    await catalog.save([LoadedFile("d.py", error="SyntaxError: !", traceback="tb")])
    assert await rows("SELECT error FROM dag_file") == [("SyntaxError: !",)]
    assert await catalog.imported_files() == {"d.py": ""}
    assert await rows("SELECT present, version > 0 FROM dag") == [(True, True)]
    await process_batch(database, BatchProcessor(), post("x"))
    assert await rows("SELECT count(*) FROM run") == [(1,)]
    await catalog.save([loaded(one(on="x"))])
    assert await rows("SELECT error FROM dag_file") == [(None,)]
    assert await versions(rows) == [1]


async def test_a_record_counts_until_its_file_is_written_without_it(catalog, rows):
    first = loaded(dag("one", task("t"), file="a.py"), dag("two", task("t"), file="a.py"))
    other = loaded(dag("three", task("t"), file="b.py"))
    await catalog.save([first, other], {"a.py": b"record"})
    (found,) = (await catalog.stored_imports()).items()
    assert found[0] == "a.py"
    assert (found[1].record, found[1].bundles) == (b"record", (first.bundle,))
    assert sorted(found[1].dag_ids) == ["one", "two"]
    # The DAGs of a file that is in force in another bundle are in that one.
    await catalog.advance("another", ["a.py"])
    assert (await catalog.stored_imports())["a.py"].bundles == ("another",)
    # As a daemon writes it that knows no records; then again with one.
    await catalog.save([first])
    assert await catalog.stored_imports() == {}
    await catalog.save([first], {"a.py": b"newer"})
    assert (await catalog.stored_imports())["a.py"].record == b"newer"
    # A DAG that has moved to another file is not this one's any more.
    await catalog.save([loaded(dag("two", task("t"), file="b.py"))])
    assert (await catalog.stored_imports())["a.py"].dag_ids == ("one",)
    await catalog.remove(["a.py"])
    assert await rows("SELECT FROM dag_import") == []


async def test_a_file_that_never_was_good_has_an_error_and_no_dag(catalog, rows):
    await catalog.save([loaded(file="bad.py", error="no")])
    assert await rows("SELECT file, error FROM dag_file") == [("bad.py", "no")]
    assert await rows("SELECT * FROM dag") == []


async def test_a_removed_file_silences_its_dags(catalog, rows, database):
    await catalog.save([loaded(one(on="x", timetable=NOON))])
    await catalog.remove(["d.py"])
    await catalog.retire(0)
    assert await rows("SELECT present, version FROM dag") == [(False, 0)]
    assert await rows("SELECT * FROM dag_subscription") == []
    assert await rows("SELECT * FROM timer") == []
    assert await rows("SELECT * FROM dag_file") == []
    answers = await process_batch(
        database, BatchProcessor(), post("x"), StartRun("d"), SetPaused("d", paused=True)
    )
    assert [type(answer) for answer in answers[1:]] == [NotFound, NotFound]
    assert await rows("SELECT count(*) FROM run") == [(0,)]
    assert await rows("SELECT count(*) FROM event") == [(1,)], "the event itself is kept"


async def test_a_removed_dag_takes_no_event_of_the_batch_that_asks_about_it(
    catalog, rows, database
):
    await catalog.save([loaded(one(on="x", timetable=NOON)), loaded(dag("e", task("a"), on="x"))])
    (timer,) = await Timers(database).upcoming()
    await catalog.remove(["d.py"])
    await catalog.retire(0)
    await catalog.save([loaded(one(timetable=NOON))])
    await catalog.remove(["d.py"])
    await catalog.retire(0)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO timer (due_at, kind, dag) SELECT now(), 'retry', id FROM dag"
        )
    timers = tuple(
        msgspec.structs.replace(each, run=0) for each in await Timers(database).upcoming()
    )
    assert timer not in timers
    await process_batch(database, BatchProcessor(), post("x"), FireTimers(timers))
    assert await rows("SELECT dag_id FROM run JOIN dag ON dag.id = run.dag") == [("e",)]


async def test_a_dag_that_comes_back_goes_on_with_what_was_pending(catalog, pending, database):
    await catalog.save([loaded(one(on="x & y"))])
    await process_batch(database, BatchProcessor(), post("x"))
    await catalog.remove(["d.py"])
    await catalog.retire(0)
    await process_batch(database, BatchProcessor(), post("x", "y"))
    await catalog.save([loaded(one(on="x & y"))])
    assert await pending() == {0: ["x"]}
    await process_batch(database, BatchProcessor(), post("y"))
    assert await pending() == {}


async def test_a_dag_that_left_its_file_is_silenced(catalog, rows):
    await catalog.save([loaded(one(on="x"), dag("e", task("a"), file="d.py"))])
    await catalog.save([loaded(dag("e", task("a"), file="d.py"))])
    await catalog.retire(0)
    assert await rows("SELECT dag_id, present FROM dag ORDER BY dag_id") == [
        ("d", False), ("e", True)
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["together", "old first", "new first"])
async def test_a_dag_may_move_to_another_file(catalog, rows, database, order):
    other = dag("o", task("a"), file="old.py")
    await catalog.save([loaded(other, one(on="x", file="old.py"))])
    left, moved = loaded(other), loaded(one(on="x", file="new.py"))
    if order == "together":
        await catalog.save([left, moved])
    for file in {"old first": [left, moved], "new first": [moved, left]}.get(order, []):
        await catalog.save([file])
    assert await rows("SELECT file, present FROM dag WHERE dag_id = 'd'") == [("new.py", True)]
    await process_batch(database, BatchProcessor(), post("x"))
    assert await rows("SELECT count(*) FROM run") == [(1,)]


async def test_datasets_are_kept_as_they_are_declared(catalog, rows):
    file = msgspec.structs.replace(
        loaded(one(on="x")), datasets=(DatasetSpec(uri("x"), "X", "lake", {"a": "\x00"}),)
    )
    await catalog.save([file])
    await catalog.save([file])
    assert await rows("SELECT uri, name, group_name, extra FROM dataset") == [
        ("x://x", "X", "lake", {"a": "\\u0000"})
    ]


@pytest.mark.parametrize("removed", [False, True])
async def test_files_of_a_bundle_that_is_stored_are_not_looked_up(catalog, rows, database, removed):
    """They are when retention has removed it, with its files."""
    first, second = (
        MadeBundle({"d.py": "dag", "data.json": text}, root="/opt/dags") for text in ("1", "2")
    )
    reads = []

    def read(file):
        reads.append(file.hash)
        return second.contents[file.hash]

    await catalog.save_bundle(first.hash, first.manifest, lambda file: first.contents[file.hash])
    if removed:
        async with database.connection() as connection:
            await connection.execute("DELETE FROM bundle")
            await connection.execute("DELETE FROM source_file")
    await catalog.save_bundle(second.hash, second.manifest, read, (first.hash, first.manifest))
    new = {file.hash for file in second.manifest.files.values()}
    if not removed:
        new -= {file.hash for file in first.manifest.files.values()}
    assert set(reads) == new
    stored = {hash_ for (hash_,) in await rows("SELECT hash FROM source_file")}
    assert stored >= {file.hash for file in second.manifest.files.values()}


async def test_files_are_stored_once_and_sources_name_bundle_and_version(catalog, rows, database):
    reads = []

    def read(file):
        reads.append(file.hash)
        return bundles[-1].contents[file.hash]

    bundles = []
    for text in ("one", "two"):
        bundles.append(MadeBundle({"d.py": "dag", "data.json": text}, root="/opt/dags"))
        await catalog.save_bundle(bundles[-1].hash, bundles[-1].manifest, read)
        file = msgspec.structs.replace(loaded(one()), bundle=bundles[-1].hash)
        if text == "one":
            await catalog.save([file])
        else:
            await catalog.advance(file.bundle, ["d.py"])
        await process_batch(database, BatchProcessor(), StartRun("d"))
    assert len(reads) == len(set(reads)) == 3
    sources = [source for (source,) in await rows("SELECT source FROM run ORDER BY id")]
    assert [
        source for (source,) in await rows("SELECT source FROM run_live ORDER BY run")
    ] == sources
    assert await versions(rows) == [1]
    queries = WorkerRequestQueries(database)
    for source, bundle in zip(sources, bundles, strict=True):
        found = await queries.source(source)
        assert (found.bundle, found.file, found.dag_id) == (bundle.hash, "d.py", "d")
        assert [task.task_id for task in found.tasks] == ["a"]
        assert msgspec.msgpack.decode(await queries.bundle(bundle.hash), type=Manifest) == (
            bundle.manifest
        )
    file = bundles[0].manifest.files["data.json"]
    assert await queries.file(file.hash, 1, 10) == (b"ne", 3)
    assert await queries.file("nothing", 0, 10) is None
    for key in ("nothing", "a-1-b", sources[0][:-1] + "!", f"{'0' * 32}-1-{'0' * 12}"):
        assert await queries.source(key) is None


async def test_the_events_of_a_dag_that_is_gone_for_a_moment_wait(catalog, rows, database, pending):
    await catalog.save([loaded(one(on="x & y"))])
    processor = BatchProcessor()
    await process_batch(database, processor, post("x"))
    await catalog.remove(["d.py"])
    await process_batch(database, processor, post("x"), post("y"))
    assert await rows("SELECT count(*) FROM run") == [(0,)]
    assert 0 < await catalog.retire(300) <= 300
    await catalog.save([loaded(one(on="x & y"))])
    assert await catalog.retire(300) is None
    timers = tuple(await Timers(database).upcoming())
    assert [timer.kind for timer in timers] == ["subscribe"]
    await process_batch(database, processor, FireTimers(timers))
    assert await rows("SELECT count(*) FROM run_event") == [(3,)]
    assert await pending() == {}


async def test_a_dag_that_its_file_does_not_make_for_a_moment_is_kept_too(catalog, rows, database):
    other = dag("e", task("a"), file="d.py")
    await catalog.save([loaded(one(on="x"), other)])
    await catalog.save([loaded(other)])
    await process_batch(database, BatchProcessor(), post("x"))
    assert await rows("SELECT count(*) FROM run") == [(0,)]
    await catalog.save([loaded(one(on="x"), other)])
    timers = tuple(await Timers(database).upcoming())
    await process_batch(database, BatchProcessor(), FireTimers(timers))
    assert await rows("SELECT count(*) FROM run") == [(1,)]


async def test_a_tick_while_a_dag_is_gone_for_a_moment_is_kept(catalog, rows, ticks, database):
    await catalog.save([loaded(one(timetable=IntervalSpec(3600)))])
    async with database.connection() as connection:
        await connection.execute("UPDATE timer SET due_at = due_at - interval '1 hour'")
    (due,) = await ticks()
    await catalog.remove(["d.py"])
    processor = BatchProcessor()
    await process_batch(database, processor, FireTimers(tuple(await Timers(database).upcoming())))
    assert await rows("SELECT count(*) FROM run") == [(0,)]
    assert await rows("SELECT kind, due_at FROM timer") == [("held_tick", due)]
    await catalog.save([loaded(one(timetable=IntervalSpec(3600)))])
    for _ in range(2):
        timers = tuple(await Timers(database).upcoming())
        await process_batch(database, processor, FireTimers(timers))
    assert await rows("SELECT run_key FROM run") == [(f"tick:{due.isoformat()}",)]


async def test_a_paused_dag_that_was_gone_for_a_moment_stays_paused(catalog, rows, database):
    await catalog.save([loaded(one(on="x"))])
    processor = BatchProcessor()
    await process_batch(database, processor, SetPaused("d", paused=True))
    await catalog.remove(["d.py"])
    await process_batch(database, processor, post("x"), SetPaused("d", paused=False))
    assert await rows("SELECT count(*) FROM run") == [(0,)]
    await catalog.save([loaded(one(on="x"))])
    await process_batch(database, processor, FireTimers(tuple(await Timers(database).upcoming())))
    assert await rows("SELECT count(*) FROM run") == [(1,)]


@pytest.mark.parametrize(
    ("before", "events", "after", "kept"),
    [
        ("x & y", "xx", "x & y & z", {0: "xx"}),
        ("x & y", "xx", "y & x", {1: "xx"}),
        ("x & y", "x", "z & y", {}),
        ("x & y & z", "xy", "z & y & x", {2: "x", 1: "y"}),
        ("x & y", "x", "(x & y) | (x & z)", {0: "x"}),
        ("(x & y) | (x & z)", "x", "(w & y) | (x & z) | (x & v)", {2: "x", 4: "x"}),
        ("(x & x) & y", "xx", "y & x & x", {1: "xx", 2: "xx"}),
        ("(x & y) | (x & z)", "xyx", "x & z & q", {0: "x"}),
        ("x & y", "x", None, None),
    ],
)
async def test_what_is_pending_moves_to_the_places_of_the_new_condition(
    catalog, pending, rows, database, before, events, after, kept
):
    await catalog.save([loaded(one(on=before))])
    await process_batch(database, BatchProcessor(), post(*events))
    await catalog.save([loaded(one(on=after))])
    if kept is None:
        assert await rows("SELECT * FROM pending_event") == []
    else:
        assert await pending() == {place: list(names) for place, names in kept.items()}


async def test_a_condition_that_changed_and_changed_back_keeps_counting(
    catalog, pending, rows, database
):
    await catalog.save([loaded(one(on="x & y"))])
    processor = BatchProcessor()
    await process_batch(database, processor, post("x"))
    await catalog.save([loaded(one(on="z & x"))])
    await process_batch(database, processor, post("x", "y"))
    await catalog.save([loaded(one(on="x & y"))])
    assert await pending() == {0: ["x", "x"]}
    await process_batch(database, processor, post("y"))
    assert await pending() == {}
    assert await rows("SELECT count(*) FROM run_event") == [(3,)]


@pytest.fixture
def ticks(rows):
    async def read():
        return [due for (due,) in await rows("SELECT due_at FROM timer ORDER BY due_at")]

    return read


async def test_a_timetable_sets_the_next_tick(catalog, ticks):
    before = datetime.now(UTC)
    await catalog.save([loaded(one(timetable=NOON))])
    assert await ticks() in ([NOON.after(before)], [NOON.after(datetime.now(UTC))])


async def test_the_clock_is_told_of_new_ticks(database, ticks):
    calls = []
    catalog = Catalog(database, timers_changed=lambda: calls.append(None))
    await catalog.save([loaded(one())])
    assert calls == []
    await catalog.save([loaded(one(timetable=NOON))])
    assert calls == [None]


async def test_a_tick_is_kept_when_other_things_change(catalog, ticks, database):
    await catalog.save([loaded(one(timetable=IntervalSpec(3600)))])
    async with database.connection() as connection:
        await connection.execute("UPDATE timer SET due_at = due_at - interval '1 hour'")
    overdue = await ticks()
    assert overdue[0] < datetime.now(UTC)
    await catalog.save([loaded(one(timetable=IntervalSpec(3600), source="h2"))])
    assert await ticks() == overdue, "a tick that is due is not lost with a new version"


async def test_a_changed_timetable_sets_its_own_tick(catalog, ticks):
    await catalog.save([loaded(one(timetable=NOON))])
    await catalog.save([loaded(one(timetable=EVENING))])
    (tick,) = await ticks()
    assert tick == EVENING.after(datetime.now(UTC))


async def test_a_timetable_that_is_gone_leaves_no_tick(catalog, ticks):
    await catalog.save([loaded(one(timetable=NOON))])
    await catalog.save([loaded(one())])
    assert await ticks() == []


async def test_once_ticks_once_whatever_versions_follow(catalog, ticks, rows, database):
    await catalog.save([loaded(one(timetable=OnceSpec()))])
    (due,) = await ticks()
    assert due - datetime.now(UTC) < timedelta(seconds=1)
    await catalog.save([loaded(one(timetable=OnceSpec(), source="h2"))])
    assert await ticks() == [due]
    timers = tuple(await Timers(database).upcoming())
    await process_batch(database, BatchProcessor(), FireTimers(timers))
    assert await ticks() == []
    await catalog.save([loaded(one(timetable=OnceSpec(), source="h3"))])
    assert await ticks() == []
    assert await rows("SELECT count(*) FROM run") == [(1,)]


async def test_with_catch_up_time_begins_at_the_start(catalog, ticks):
    await catalog.save([loaded(one(timetable=NOON, start=START, catchup=True))])
    assert await ticks() == [NOON.after(START)]


async def test_catch_up_goes_on_where_it_was(catalog, ticks, database):
    options = {"start": START, "catchup": True}
    await catalog.save([loaded(one(timetable=NOON, **options))])
    processor = BatchProcessor()
    for _ in range(3):
        await process_batch(
            database, processor, FireTimers(tuple(await Timers(database).upcoming()))
        )
    due = START + timedelta(days=3, hours=12)
    assert await ticks() == [due]
    await catalog.save([loaded(one(timetable=EVENING, **options))])
    assert await ticks() == [due + timedelta(hours=6)]


async def test_after_a_return_catch_up_makes_no_run_twice_and_goes_on(
    catalog, rows, ticks, database
):
    spec = one(timetable=NOON, start=START, catchup=True)
    processor = BatchProcessor()

    async def tick():
        await process_batch(
            database, processor, FireTimers(tuple(await Timers(database).upcoming()))
        )

    await catalog.save([loaded(spec)])
    await tick()
    await tick()
    await catalog.remove(["d.py"])
    await catalog.retire(0)
    assert await ticks() == []
    await catalog.save([loaded(spec)])
    for _ in range(3):
        await tick()
    days = [f"tick:2026-01-0{day}T12:00:00+00:00" for day in (1, 2, 3)]
    assert await rows("SELECT run_key FROM run ORDER BY run_id") == [(day,) for day in days]
    assert await ticks() == [START + timedelta(days=3, hours=12)]


@pytest.mark.parametrize(
    ("bounds", "due"),
    [
        ({"end": START}, []),
        ({"start": START, "end": START + timedelta(hours=11), "catchup": True}, []),
        ({"start": datetime(2100, 1, 1, tzinfo=UTC)}, [datetime(2100, 1, 1, 12, tzinfo=UTC)]),
    ],
)
async def test_ticks_keep_to_their_bounds(catalog, ticks, bounds, due):
    await catalog.save([loaded(one(timetable=NOON, **bounds))])
    assert await ticks() == due


async def test_a_missed_tick_without_catch_up_starts_the_latest_alone(
    catalog, rows, ticks, database
):
    await catalog.save([loaded(one(timetable=IntervalSpec(60)))])
    async with database.connection() as connection:
        await connection.execute("UPDATE timer SET due_at = due_at - interval '1 hour'")
    now = datetime.now(UTC)
    processor = BatchProcessor(now=lambda: now)
    await process_batch(database, processor, FireTimers(tuple(await Timers(database).upcoming())))
    ((logical_time,),) = await rows("SELECT logical_time FROM run")
    assert now - timedelta(seconds=60) < logical_time <= now
    assert await ticks() == [logical_time + timedelta(seconds=60)]


async def test_nobody_can_take_the_key_of_a_tick(catalog, rows, ticks, database):
    await catalog.save([loaded(one(timetable=NOON, start=START, catchup=True))])
    (due,) = await ticks()
    key, processor = f"tick:{due.isoformat()}", BatchProcessor()
    (refused,) = await process_batch(database, processor, StartRun("d", run_key=key))
    assert isinstance(refused, InvalidInput)
    await process_batch(database, processor, FireTimers(tuple(await Timers(database).upcoming())))
    (again,) = await process_batch(database, processor, StartRun("d", run_key=key))
    assert await rows("SELECT kind, run_key, run_id::text FROM run") == [("cron", key, again)]
    assert await ticks() == [due + timedelta(days=1)]


async def test_a_tick_that_two_clocks_saw_starts_one_run(catalog, rows, database):
    await catalog.save([loaded(one(timetable=NOON, start=START, catchup=True))])
    timers = FireTimers(tuple(await Timers(database).upcoming()))
    await process_batch(database, BatchProcessor(), timers)
    await process_batch(database, BatchProcessor(), timers)
    assert await rows("SELECT count(*) FROM run") == [(1,)]


@pytest.mark.parametrize(("on_pause", "passed"), [("drop", True), ("hold", False)])
async def test_the_ticks_of_a_pause_pass_or_are_made_up_for(
    catalog, rows, ticks, database, on_pause, passed
):
    first = NOON.after(START)
    made = one(timetable=NOON, start=START, catchup=True, on_pause=on_pause)
    await catalog.save([loaded(made)])
    processor = BatchProcessor()
    await process_batch(database, processor, SetPaused("d", paused=True))
    await process_batch(database, processor, FireTimers(tuple(await Timers(database).upcoming())))
    assert await rows("SELECT count(*) FROM run") == [(0,)]
    # What is held is not due, or the timers would be late for as long as the pause lasts.
    assert [timer.due_at for timer in await Timers(database).upcoming()] == (
        [NOON.after(first)] if passed else []
    )
    await catalog.save([loaded(msgspec.structs.replace(made, description="another version"))])
    assert await ticks() == [NOON.after(first) if passed else first]
    await process_batch(database, processor, FireTimers(tuple(await Timers(database).upcoming())))
    await process_batch(database, processor, SetPaused("d", paused=False))
    assert await ticks() == [NOON.after(NOON.after(first)) if passed else first]


async def test_a_deadlock_with_a_manager_is_tried_again(catalog, rows, database):
    await catalog.save([loaded(one(on="x"))])
    blocked = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with (
        database.connection() as manager,
        database.connection() as observer,
        anyio.create_task_group() as group,
    ):
        await manager.execute("BEGIN; SET LOCAL deadlock_timeout = '10s'")
        await manager.execute("SELECT FROM dag_state FOR UPDATE")
        group.start_soon(catalog.save, [loaded(dag("d", task("a", emits=["new"]), on="x"))])
        with anyio.fail_after(10):
            while not await observer.fetchval(blocked):
                await anyio.lowlevel.checkpoint()  # until the catalog waits for the DAG's lock
        await manager.execute("INSERT INTO dataset (uri) VALUES ('x://new')")
        await manager.execute("COMMIT")
    assert await versions(rows) == [1, 2]
    assert await rows("SELECT uri FROM dataset ORDER BY uri") == [("x://new",), ("x://x",)]


@pytest.mark.parametrize(("alphabet", "count"), [(string.ascii_letters, 1495), ("éüößłżą", 1247)])
async def test_a_uri_as_long_as_allowed_can_be_stored(catalog, rows, alphabet, count):
    name = "".join(random.Random(1).choices(alphabet, k=count))
    assert normalise_uri(uri(name)[:1500])
    await catalog.save([loaded(dag("d", task("a", emits=[name[:1496]])))])
    ((stored,),) = await rows("SELECT uri FROM dataset")
    assert len(stored) == count + 4
