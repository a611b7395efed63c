"""Slices: begun and removed beside those who write and read, whatever dies in between."""

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import anyio
import msgspec
import pytest
from msgspec.structs import replace
from pyarrow.parquet import read_table

from pubsubflow.errors import ConfigError, NotFound
from pubsubflow.model.wire.commands import Replay
from pubsubflow.model.wire.messages import EmittedEvent
from pubsubflow.retention import Archive, RetentionSettings
from pubsubflow.retention.archive import ArchiveUnavailable
from pubsubflow.store import slices
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.read_models import ReadModels
from support.specs import dag, task

pytestmark = pytest.mark.anyio
SLICED = [
    "event",
    "event_outcome",
    "log",
    "log_object",
    "attempt",
    "journal_entry",
    "task",
    "run_event",
]
FIRST_OF_SLICE_1 = 1 << 32
FILL = """
WITH made AS (
    INSERT INTO event (id, event_id, dataset, extra, time, source)
    SELECT nextval('event_id'), gen_random_uuid(), 1 + n % 50, '{}', now(), 'api'
    FROM generate_series(1, 5000) AS n
    RETURNING id
)
INSERT INTO event_outcome (event, dag, input, outcome, reason)
SELECT id, 1 + id % 50, 0, 'filtered', 'r' FROM made
"""


@pytest.fixture
async def other(postgres):
    """Another daemon's connections."""
    async with Database.open(postgres) as opened:
        yield opened


async def history(kept, days=6):
    """One event and its run, in slices that have ended and are due."""
    await kept.harness.load(dag("d", task("t"), on="x"))
    await kept.harness.post("x1")
    await kept.harness.quiet()
    await kept.age(days)
    await kept.pruner().prune()
    await kept.age(40)


async def test_ids_go_on_in_order_where_a_slice_begins(kept):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x"))
    await harness.post("x1", "x2")
    await harness.quiet()
    await kept.age(6)
    await kept.pruner().prune()
    await harness.post("x3", "x4")
    await harness.quiet()
    ids = [number for (number,) in await harness.rows("SELECT id FROM event ORDER BY id")]
    assert ids == [1, 2, FIRST_OF_SLICE_1 + 1, FIRST_OF_SLICE_1 + 2]
    runs = [number for (number,) in await harness.rows("SELECT id FROM run ORDER BY run_id")]
    assert runs == sorted(runs)
    assert [number >> 32 for number in runs] == [0, 0, 1, 1]
    assert [order.events for order in harness.received] == [["x1"], ["x2"], ["x3"], ["x4"]]


async def test_an_event_of_an_earlier_slice_completes_a_condition(kept):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x & y & z"))
    for name in ("x1", "y1", "z1"):
        await harness.post(name)
        await kept.age(6)
        await kept.pruner().prune()
    await harness.quiet()
    assert [order.events for order in harness.received] == [["x1", "y1", "z1"]]
    assert await kept.slices("event") == [0, 1, 2, 3]


async def test_a_slice_whose_sequence_has_not_jumped_begins_in_the_next_pass(kept, database):
    harness = kept.harness
    await harness.post("x1")
    async with database.connection() as connection:
        await connection.execute(SQL["open_slice"], "event")  # and the daemon is killed
    await harness.post("x2")
    assert await harness.value("SELECT max(id) FROM event") == 2
    await kept.pruner().prune()
    await harness.post("x3")
    assert await harness.value("SELECT max(id) FROM event") == FIRST_OF_SLICE_1 + 1
    assert await kept.slices("event") == [0, 1]


async def test_a_sequence_that_has_jumped_already_does_not_go_back(kept, database):
    """Sequences do not roll back: the jump stays, what should have recorded it does not."""
    harness = kept.harness
    await harness.post("x1")
    async with database.connection() as connection:
        await connection.execute(SQL["open_slice"], "event")
        await connection.execute("SELECT setval('event_id', 1::bigint << 32)")
    await harness.post("x2", "x3")
    await kept.pruner().prune()
    await harness.post("x4")
    ids = [number for (number,) in await harness.rows("SELECT id FROM event ORDER BY id")]
    assert ids == [1, *(FIRST_OF_SLICE_1 + number for number in (1, 2, 3))]
    assert await kept.slices("event") == [0, 1]


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_partitions_that_a_dead_pass_left_are_dropped(kept, database, steps):
    await history(kept)
    async with database.connection() as connection:
        found = (await slices.list_slices(connection, "event"))[0]
        await connection.execute("TRUNCATE event_s0, event_outcome_s0")
        await slices.forget_slice(connection, found)
        if steps > 1:
            await connection.execute("ALTER TABLE event DETACH PARTITION event_s0")
        if steps > 2:
            await connection.execute("DROP TABLE event_s0")
    await kept.pruner().prune()
    assert not {"event_s0", "event_outcome_s0"} & await kept.partitions()
    await kept.harness.post("x2")
    await kept.harness.quiet()
    assert await kept.harness.value("SELECT count(*) FROM event") == 1


async def test_a_detachment_waits_for_nobody_and_is_finished_later(
    kept, database, other, monkeypatch
):
    """A transaction that has read the log lasts, as that of pg_dump: writers go on all the same."""
    monkeypatch.setattr(slices, "_DETACH_WAIT", "SET lock_timeout = '100ms'")
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x"))
    for number in range(2):
        await harness.post(f"x{number}")
        await kept.age(6)
        await kept.pruner().prune()
    async with database.connection() as connection, other.connection() as reader:
        for found in (await slices.list_slices(connection, "event"))[:2]:
            await connection.execute(f"TRUNCATE event_s{found.number}")
            await slices.forget_slice(connection, found)
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await reader.execute("SELECT count(*) FROM event")
        for _ in range(2):  # the second finds a detachment that was interrupted
            await slices.drop_leftovers(connection, "event")
        await harness.post("x2")
        await harness.quiet()
        assert {"event_s0", "event_s1"} <= await kept.partitions()
        await transaction.rollback()
        await slices.drop_leftovers(connection, "event")
    assert not {"event_s0", "event_s1", "event_outcome_s0"} & await kept.partitions()
    assert await kept.counts("event") == [1]


async def test_a_slice_that_is_read_is_left_to_the_next_pass(kept, other):
    await history(kept)
    async with other.connection() as reader, reader.transaction():
        await reader.execute("SELECT FROM event")
        assert await kept.pruner().prune()
        await kept.harness.post("x2")
    assert await kept.counts("event") == [2]
    await kept.pruner().prune()
    assert await kept.counts("event") == [1]


async def test_a_hop_does_not_wait_for_a_slice_that_is_locked(kept, other):
    """Retention holds its locks, and events are posted and their runs end meanwhile."""
    await history(kept)
    async with other.transaction() as connection:
        await connection.execute(SQL["lock_slice"], 0, SLICED)
        before = len(kept.harness.received)
        await kept.harness.post("x2")
        await kept.harness.quiet()
        assert len(kept.harness.received) == before + 1


async def test_one_daemon_at_a_time_is_at_it(kept, other):
    await history(kept)
    async with other.session() as connection:
        assert await connection.fetchval(SQL["try_lock_retention"])
        assert await kept.pruner().prune() is None
        assert await kept.pruner().prune(dry_run=True) is not None
    # The lock ends with the use of the connection, as it would with the daemon.
    assert await kept.pruner().prune() is not None


async def test_two_pruners_side_by_side_remove_once(kept):
    await history(kept)
    done = []

    async def prune():
        done.append(await kept.pruner().prune())

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(prune)
    assert await kept.counts("event", "run") == [0, 0]
    removed = [each for found in done if found for each in found.removals if each.table == "run"]
    assert sum(each.rows for each in removed) == 1


async def test_what_is_removed_is_archived_before(kept, tmp_path):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x & y"), dag("e", task("t"), on="x"))
    await harness.post("x1", "x2", "y1")
    await harness.post("x3")  # pending for d
    await harness.quiet()
    await kept.pass_days(40, archive=Archive(f"file://{tmp_path}"))
    found = {}
    for path in sorted(tmp_path.rglob("*.gz")):
        lines = gzip.decompress(path.read_bytes()).splitlines()
        rows = [msgspec.json.decode(line) for line in lines]
        found.setdefault(path.parent.name, []).extend(rows)
    assert [row["extra"]["name"] for row in found["event"]] == ["x1", "x2", "y1"]
    assert {row["dataset"] for row in found["event"]} == {"x://x", "x://y"}
    assert sorted(row["dag"] for row in found["run"]) == ["d", "e", "e", "e"]
    assert len(found["task"]) == 4
    assert len(found["run_event"]) == 6
    assert await kept.counts("event", "run") == [1, 0]
    assert not list(tmp_path.rglob("*.part"))


async def test_an_archive_of_parquet_has_the_types_of_the_columns(kept, tmp_path):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x"))
    await harness.post("x1", "x2")
    await harness.quiet()
    recorded = await harness.value("SELECT min(recorded_at) FROM event")
    await kept.pass_days(40, archive=Archive(f"file://{tmp_path}", "parquet"))
    assert await kept.counts("event", "run", "task") == [0, 0, 0]
    assert not list(tmp_path.rglob("*.part"))
    tables = {each: read_table(tmp_path / each) for each in ("event", "run", "task", "run_event")}
    event, run = tables["event"], tables["run"]
    assert event.column("dataset").to_pylist() == ["x://x", "x://x"]
    assert [json.loads(each)["name"] for each in event.column("extra").to_pylist()] == ["x1", "x2"]
    assert event.column("recorded_at").to_pylist()[0] == recorded
    assert event.column("ancestry").to_pylist() == [[], []]
    assert event.column("run").to_pylist() == [None, None]
    assert run.column("dag").to_pylist() == ["d", "d"]
    assert run.column("logical_time").to_pylist() == [None, None]
    kinds = {"id": "int64", "recorded_at": "timestamp[us, tz=UTC]", "partition": "string"}
    assert {name: str(event.schema.field(name).type) for name in kinds} == kinds
    assert str(tables["task"].schema.field("result").type) == "binary"
    assert tables["run_event"].num_rows == 2


async def test_nothing_is_removed_that_cannot_be_archived(kept, tmp_path):
    await history(kept)
    (tmp_path / "event").write_text("in the way of the folder")
    (tmp_path / "event_outcome").write_text("in the way of the folder")
    with pytest.raises(ArchiveUnavailable, match="cannot be written"):
        await kept.pruner(Archive(f"file://{tmp_path}")).prune()
    assert await kept.counts("event", "run", "task") == [1, 1, 1]
    (tmp_path / "event").unlink()
    await kept.pruner(Archive(f"file://{tmp_path}")).prune()
    assert await kept.counts("event", "run", "task") == [0, 0, 0]


def test_an_archive_of_an_unknown_kind_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="nonsense"):
        Archive("nonsense://bucket/folder")


async def test_explain_says_where_the_trail_ends(kept, database):
    harness = kept.harness
    await harness.load(
        dag("a", task("t", emits=["y"]), on="x"),
        dag("b", task("t", emits=["z"]), on="y"),
        dag("c", task("t"), on="z"),
    )
    emits = {"a": (EmittedEvent("x://y"),), "b": (EmittedEvent("x://z"),), "c": ()}
    harness.automatic = lambda order: [order.result(emits=emits[order.info.dag_id])]
    await harness.post("x1")
    await harness.quiet()
    rows = await harness.rows("SELECT dag_id, run_id FROM run JOIN dag ON dag.id = run.dag")
    runs = {row["dag_id"]: row["run_id"] for row in rows}
    models = ReadModels(database)
    whole = await models.runs.explain(runs["c"])
    assert [step.run.dag_id for step in whole.runs] == ["c", "b", "a"]
    assert not any(step.pruned_events for step in whole.runs)
    await harness.rows("DELETE FROM run WHERE run_id = $1", runs["a"])
    ends = await models.runs.explain(runs["c"])
    assert [step.run.dag_id for step in ends.runs] == ["c", "b"]
    assert [event.pruned for step in ends.runs for event in step.events] == [False, True]
    await harness.rows("TRUNCATE event")
    ends = await models.runs.explain(runs["c"])
    assert [(step.run.dag_id, step.pruned_events) for step in ends.runs] == [("c", 1)]


async def test_statements_with_ids_touch_the_partitions_of_these_alone(kept, database):
    harness = kept.harness
    await harness.load(*(dag(f"d{number}", task("t"), on=f"x{number}") for number in range(50)))
    for _ in range(4):
        await harness.rows(FILL)
        await kept.age(4)
        await kept.pruner().prune()
    event = await harness.value("SELECT max(id) FROM event")
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for name, arguments in {
            "read_events": f"ARRAY[{event}]",
            "read_event_outcomes": f"ARRAY[{event}]",
            "read_subscribed_dags": f"ARRAY[{event}]",
            "read_events_of_dag": f"1, {event}, {event}, 100",
            "find_events_to_deliver": f"{event - 1}, {event}, NULL, '{{}}', 10, NULL",
            "page_events": f"{event}, 1, 0, {event}, NULL, NULL, NULL",
            "record_event_outcomes": f"ARRAY[{event}], ARRAY[1], ARRAY[0], ARRAY[''], ARRAY['x'],"
            " ARRAY['r']",
        }.items():
            await connection.execute(f"PREPARE {name} AS {SQL[name]}")
            statement = f"EXPLAIN (ANALYZE, COSTS OFF) EXECUTE {name}({arguments})"
            plan = [row[0] for row in await connection.fetch(statement)]
            read = {
                found[1]
                for line in plan
                if (found := re.search(r" on event(?:_outcome)?_s(\d)", line))
                and "never executed" not in line
            }
            assert len(read) <= 1, "\n".join(plan)


async def test_many_kept_events_hold_their_slice(kept, monkeypatch):
    monkeypatch.setattr("pubsubflow.retention.pruner.MOST_KEPT", 2)
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x & y"))
    await harness.post("x1", "x2", "x3", "z1")
    found = await kept.pass_days(40)
    assert found.held == 1
    assert await kept.counts("event") == [4]


async def test_many_kept_runs_have_the_others_deleted_row_by_row(kept, monkeypatch):
    monkeypatch.setattr("pubsubflow.retention.pruner.MOST_KEPT", 1)
    harness = kept.harness
    await harness.load(dag("d", task("t")), dag("e", task("t")))
    for name in ("d", "e", "d", "e"):
        await kept.run(name)
    await harness.rows(
        "UPDATE run SET ended_at = now() + interval '100 days' FROM dag"
        " WHERE dag.id = dag AND dag_id = 'd'"
    )
    await kept.pass_days(40)
    assert await kept.counts("run", "task", "run_event") == [2, 2, 0]


async def test_who_looks_for_pruned_events_reads_until_when_they_are(kept, database):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x"), dag("kept", task("t"), on="x & never"))
    await harness.post("x1")
    await harness.post("z1")
    await harness.quiet()
    models = ReadModels(database)
    gone = (await models.datasets.events(limit=1)).items[0].event_id
    with pytest.raises(NotFound, match=r"^no event named"):
        await models.datasets.event_with_outcomes(uuid4())
    since = datetime.now(UTC) - timedelta(days=100)
    replay = Replay("d", since, dry_run=True)
    assert "pruned" not in (await harness.call(replay)).reason
    await kept.pass_days(40)
    # x1 is pending for one DAG; the run of the other that consumed it is gone.
    (event,) = (await models.datasets.events_with_outcomes(limit=9)).items
    reasons = {each.dag_id: (each.outcome, each.reason) for each in event.outcomes}
    assert reasons["kept"][0] == "pending"
    assert "a run that consumed it was pruned" in reasons["d"][1]
    await harness.post("never1")
    await harness.quiet()
    await kept.pass_days(40)
    assert await kept.counts("event") == [0]
    with pytest.raises(NotFound, match=r"event \(those recorded before 2.* were pruned\)"):
        await models.datasets.event_with_outcomes(UUID(gone))
    plan = await harness.call(replay)
    assert re.fullmatch(
        r"no event of its datasets was recorded in that time; "
        r"events recorded before 2\S+ were pruned",
        plan.reason,
    )


def test_settings_are_in_range():
    settings = RetentionSettings(events_days=0.5)
    assert settings.seconds("events") == 43_200
    assert replace(settings, events_days=0).seconds("events") is None
