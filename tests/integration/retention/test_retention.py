"""What is old goes, with all that belongs to it; what something waits for stays."""

import pytest
from msgspec import msgpack

from pubsubflow.errors import InvalidInput
from pubsubflow.model.schedule.conditions import ScheduleSpec
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.source.bundles import BundleFile, Manifest
from pubsubflow.model.spec import RetentionSpec
from pubsubflow.model.wire.commands import ClearTasks, RedriveDeadLetter, SetPaused, StartRun
from pubsubflow.model.wire.messages import NOT_MAPPED, LogMessage
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.retention import summed
from pubsubflow.store.database import Database
from pubsubflow.store.named_queries import SQL
from pubsubflow.store.read.read_models import ReadModels
from support.harness import post
from support.specs import condition, dag, task

pytestmark = pytest.mark.anyio
HISTORY = ("event", "run", "run_event", "task")


async def test_what_is_old_goes_and_what_comes_next_is_not_disturbed(kept):
    harness = kept.harness
    await harness.load(dag("d", task("a"), task("b", "a"), on="x"))
    await harness.post("x1", "x2", "x3")
    await harness.quiet()
    assert await kept.counts(*HISTORY) == [3, 3, 3, 6]
    await kept.pass_days(20)
    assert await kept.counts(*HISTORY) == [3, 3, 3, 6], "not due yet"
    await kept.pass_days(12)
    assert await kept.counts(*HISTORY) == [0, 0, 0, 0]
    await harness.post("x4")
    await harness.quiet()
    assert await harness.states() == ["success"]
    assert await kept.counts(*HISTORY) == [1, 1, 1, 2]


async def test_partitions_of_what_is_gone_go_too(kept):
    harness = kept.harness
    await harness.load(dag("d", task("a"), on="x"))
    for number in range(12):
        await harness.post(f"x{number}")
        await harness.quiet()
        await kept.pass_days(4)
    numbers = await kept.slices("event")
    assert numbers[-1] == 12
    assert len(numbers) <= 6
    runs = await kept.slices("run")
    assert {f"event_s{number}" for number in numbers} == {
        name for name in await kept.partitions() if name.startswith("event_s")
    }
    assert {f"task_s{number}" for number in runs} == {
        name for name in await kept.partitions() if name.startswith("task_s")
    }
    assert await harness.value("SELECT min(id) >> 32 FROM event") == numbers[0]


async def test_without_anything_new_no_slice_begins(kept):
    await kept.pass_days(100)
    assert await kept.slices("event") == [0]
    assert await kept.slices("run") == [0]


async def test_a_pending_event_is_kept_for_the_run_that_consumes_it(kept):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x & y"), dag("e", task("t"), on="x"))
    await harness.post("x1")
    await harness.quiet()
    await harness.post("z1")
    await kept.pass_days(40)
    assert await kept.counts("event", "run") == [1, 0]
    await harness.post("y1")
    await harness.quiet()
    assert harness.received[-1].events == ["x1", "y1"]
    # The run has ended: what it consumed has an age again.
    await kept.pass_days(40)
    assert await kept.counts("event", "pending_event") == [0, 0]


async def test_a_run_that_has_not_ended_keeps_its_rows_and_events(kept):
    harness = kept.harness
    await harness.load(dag("d", task("a"), task("b", "a", kind="sync"), on="x"))
    harness.automatic = None
    await harness.post("x1")
    await harness.finish("a")
    await harness.post("z1")
    await kept.pass_days(40)
    assert await kept.counts(*HISTORY) == [1, 1, 1, 1]
    await harness.finish("b")
    await harness.until_states("success")
    await kept.pass_days(40)
    assert await kept.counts(*HISTORY) == [0, 0, 0, 0]


async def test_a_paused_dag_keeps_the_events_that_it_holds(kept):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x"))
    await harness.call(SetPaused("d", paused=True))
    await harness.post("x1", "z1", "x2")
    await kept.pass_days(40)
    rows = await harness.rows("SELECT extra ->> 'name' FROM event ORDER BY id")
    assert [name for (name,) in rows] == ["x1", "x2"]
    await harness.call(SetPaused("d", paused=False))
    await harness.quiet()
    assert [order.events for order in harness.received] == [["x1"], ["x2"]]


async def test_a_subscriber_that_is_away_keeps_what_it_has_not_got(kept, database):
    harness = kept.harness
    await harness.post("x1", "y1", "x2")
    cursor = await harness.value("SELECT min(id) FROM event")
    await harness.rows(
        "INSERT INTO event_subscription (id, url, expression, dags, mode, ordered, description,"
        " cursor, state) VALUES (gen_random_uuid(), 'https://r', '^x://x$', '{}', 'binary', true,"
        " '', $1, 'paused')",
        cursor,
    )
    await kept.pass_days(40)
    rows = await harness.rows("SELECT extra ->> 'name' FROM event ORDER BY id")
    assert [name for (name,) in rows] == ["x2"]


async def test_events_in_an_open_dead_letter_are_kept_until_it_is_resent(kept):
    harness = kept.harness
    # A Struct of params that no event fits: its run is refused.
    await harness.load(dag("d", task("t"), on="x", params={"n": 0}, params_from={"n": "1 / 0"}))
    await harness.post("x1", "y1")
    await harness.quiet()
    assert await kept.counts("dead_letter") == [1]
    await kept.pass_days(40)
    rows = await harness.rows("SELECT extra ->> 'name' FROM event ORDER BY id")
    assert [name for (name,) in rows] == ["x1"]
    await harness.load(dag("d", task("t"), on="x"))
    letter = await harness.value("SELECT id FROM dead_letter")
    await harness.call(RedriveDeadLetter(letter))
    await harness.quiet()
    assert harness.received[-1].events == ["x1"]
    await kept.pass_days(40)
    assert await kept.counts("event", "dead_letter", "run") == [0, 0, 0]


async def test_output_goes_before_its_run(kept):
    harness = kept.harness
    await harness.load(dag("d", task("a")))
    run_id = await kept.run("d")
    await harness.write(run_id, 0, 0, "hello")
    await harness.until_value("SELECT text FROM log")
    await kept.pass_days(16)
    assert await kept.counts("run", "task", "log") == [1, 1, 0]


async def test_results_go_before_their_run(kept, database):
    harness = kept.harness
    await harness.load(dag("d", task("a", kind="sync"), task("b", inputs=["a"])))
    harness.automatic = None
    run_id = await harness.call(StartRun("d"))
    await harness.finish("a", value=[1, 2])
    await harness.finish("b")
    await harness.until_states("success")
    tasks = ReadModels(database).tasks
    shown = await tasks.get(await tasks.find_by_id(f"{run_id}.a"))
    assert (shown.result, shown.result_pruned) == ([1, 2], False)
    await kept.pass_days(10, results_days=8)
    shown = await tasks.get(await tasks.find_by_id(f"{run_id}.a"))
    assert (shown.result, shown.result_pruned, shown.result_bytes) == (None, True, 0)
    query = "SELECT results_removed FROM slice WHERE number = 0 AND series = 'run'"
    assert await harness.value(query)
    # b would get nothing in the place of what a returned.
    with pytest.raises(InvalidInput, match="results of a were pruned"):
        await harness.call(ClearTasks(run_id, ("b",)))
    await harness.call(ClearTasks(run_id))
    assert (await harness.order()).task_id == "a"


async def test_a_run_whose_events_are_gone_is_not_cleared(kept):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x", retention=RetentionSpec(runs_seconds=1e9)))
    await harness.post("x1")
    await harness.quiet()
    run_id = await harness.value("SELECT run_id FROM run")
    await kept.pass_days(40)
    assert await kept.counts("event", "run") == [0, 1]
    with pytest.raises(InvalidInput, match="1 of the events that the run consumed were pruned"):
        await harness.call(ClearTasks(run_id))


async def test_a_dag_has_a_retention_of_its_own(kept):
    harness = kept.harness
    short = RetentionSpec(runs_seconds=86_400)
    long = RetentionSpec(runs_seconds=100 * 86_400)
    few = RetentionSpec(runs_count=2)
    await harness.load(
        dag("short", task("t"), retention=short),
        dag("long", task("t"), retention=long),
        dag("few", task("t"), retention=few),
        dag("usual", task("t")),
    )
    first = {name: await kept.run(name) for name in ("short", "long", "usual")}
    runs = [await kept.run("few") for _ in range(5)]
    await kept.age(3)
    await kept.pruner().prune()
    known = {str(run_id) for (run_id,) in await harness.rows("SELECT run_id FROM run")}
    assert known == {first["long"], first["usual"], *runs[3:]}
    assert await kept.counts("task") == [4]
    await kept.pass_days(40)
    known = {str(run_id) for (run_id,) in await harness.rows("SELECT run_id FROM run")}
    assert known == {first["long"]}
    assert await kept.counts("task") == [1]
    await kept.pass_days(60)
    assert await kept.counts("run", "task") == [0, 0]


async def test_a_number_of_events_is_kept(kept):
    harness = kept.harness
    for number in range(10):
        await harness.post(f"x{number}")
        await kept.pruner(events_days=0, events_count=4).prune()
    rows = await harness.rows("SELECT extra ->> 'name' FROM event ORDER BY id")
    assert [name for (name,) in rows] == ["x6", "x7", "x8", "x9"]


async def test_zero_days_keep_for_ever(kept):
    harness = kept.harness
    await harness.load(dag("d", task("t"), on="x"))
    await harness.post("x1")
    await harness.quiet()
    names = ("events", "runs", "attempts", "logs", "results", "dead_letters", "versions", "keys")
    await kept.pass_days(30_000, **{f"{name}_days": 0 for name in names})
    assert await kept.counts(*HISTORY) == [1, 1, 1, 1]


async def test_an_idempotency_key_gives_the_first_event_within_its_time(kept):
    harness = kept.harness
    first = (await harness.call(post("x", keys=("k",))))[0]
    await kept.age(20)
    await kept.pruner().prune()
    again = (await harness.call(post("x", keys=("k",))))[0]
    assert (again.event_id, again.duplicate) == (first.event_id, True)
    await kept.age(11)
    await kept.pruner().prune()
    late = (await harness.call(post("x", keys=("k",))))[0]
    assert not late.duplicate


async def test_a_partition_runs_again_once_it_is_forgotten(kept):
    harness = kept.harness
    once = ScheduleSpec(condition("x & y"), partitioning=Partitioning(again="never"))
    await harness.load(dag("d", task("t"), schedule=once))
    await harness.post("x1", "y1", partition="p")
    await harness.post("x2", partition="waits")
    await harness.quiet()
    await kept.age(95)
    await kept.pruner(runs_days=0).prune()
    assert await kept.counts("condition_state") == [2], "its run is kept"
    await harness.post("x3", "y3", partition="p")
    assert await harness.value("SELECT reason FROM event_outcome LIMIT 1") == "partition p has run"
    await kept.pass_days(95)
    dry = {each.table: each.rows for each in summed(await kept.pruner().prune(dry_run=True))}
    assert dry["condition_state"] == 1
    await kept.pruner().prune()
    rows = await harness.rows("SELECT partition_key FROM condition_state")
    assert [key for (key,) in rows] == ["waits"], "something is pending there"
    await harness.post("x4", "y4", partition="p")
    await harness.quiet()
    assert harness.received[-1].events == ["x4", "y4"]
    assert await harness.value("SELECT run_key FROM run") == "partition:p:1"


async def test_dead_letters_go_after_they_were_resent_or_by_their_number(kept):
    harness = kept.harness
    await harness.rows(
        "INSERT INTO dead_letter (kind, subject, payload, reason, resent_at)"
        " SELECT 'hook', 'h', '', n::text, CASE WHEN n % 2 = 0 THEN now() END"
        " FROM generate_series(1, 10) AS n"
    )
    await kept.age(40)
    await kept.pruner().prune()
    reasons = [reason for (reason,) in await harness.rows("SELECT reason FROM dead_letter")]
    assert sorted(map(int, reasons)) == [1, 3, 5, 7, 9], "open ones stay"
    await kept.pruner(dead_letters_count=2).prune()
    reasons = [reason for (reason,) in await harness.rows("SELECT reason FROM dead_letter")]
    assert sorted(map(int, reasons)) == [7, 9]


async def test_versions_that_no_run_has_go(kept):
    harness = kept.harness
    for number in range(6):
        await harness.load(dag("d", task("t"), description=f"{number}"))
        if number == 1:
            await kept.run("d")
    await kept.age(100)
    await kept.pruner(versions_count=2, runs_days=0).prune()
    rows = await harness.rows("SELECT number FROM dag_version ORDER BY number")
    assert [number for (number,) in rows] == [2, 5, 6], "of a run, the last two"


async def test_late_output_of_a_removed_run_is_dropped(kept):
    harness = kept.harness
    await harness.load(dag("d", task("a")))
    run_id = await kept.run("d")
    number = await harness.run_number(run_id)
    await kept.pass_days(40)
    assert await kept.slices("run") == [1]
    late = LogMessage(number, 0, NOT_MAPPED, 1, 1, 0, "late")
    await harness.publish(Subjects.inbound(Subjects.LOG, number), late)
    assert await kept.counts("log", "dead_letter") == [0, 0]


async def test_a_run_that_is_cleared_at_its_last_moment_stays(kept):
    harness = kept.harness
    await harness.load(dag("d", task("a")))
    run_id = await kept.run("d")
    harness.automatic = None
    await kept.age(40)
    await kept.pruner().prune()  # the slice ends
    await harness.call(ClearTasks(run_id))
    await kept.age(40)
    await kept.pruner().prune()
    assert await kept.counts("run", "run_live", "attempt") == [1, 1, 1]
    await harness.finish("a")
    await harness.until_states("success")


async def test_a_dry_run_counts_and_changes_nothing(kept):
    harness = kept.harness
    await harness.load(dag("d", task("a"), task("b", "a"), on="x"))
    await harness.post("x1", "x2")
    await harness.quiet()
    await kept.age(6)
    await kept.pruner().prune()
    await kept.age(40)
    before = await kept.partitions()
    found = await kept.pruner().prune(dry_run=True)
    rows = {each.table: each.rows for each in summed(found)}
    assert rows == {"event": 2, "run": 2, "run_event": 2, "task": 4}
    assert all(each.bytes for each in summed(found) if each.table != "run")
    assert await kept.counts(*HISTORY) == [2, 2, 2, 4]
    assert await kept.partitions() == before


async def test_bundles_that_nothing_is_pinned_to_go_with_their_files(kept):
    harness = kept.harness
    await harness.load(dag("d", task("t")))
    await kept.run("d")
    shared, *files = (f"{number:064x}" for number in range(6))
    for number, name in enumerate(("inforce", "ofversion", "ofrun", "young", "old")):
        found = {"a.py": BundleFile(shared, 1), "b.py": BundleFile(files[number], 1)}
        manifest = Manifest("/dags", "", found)
        await harness.rows("INSERT INTO bundle VALUES ($1, $2)", name, msgpack.encode(manifest))
        await harness.rows("INSERT INTO source_file VALUES ($1, 'x')", files[number])
    await harness.rows("INSERT INTO source_file VALUES ($1, 'x')", shared)
    await harness.rows("UPDATE dag_state SET source = 'inforce-1-abc'")
    await harness.rows("UPDATE dag_version SET bundle = 'ofversion'")
    await harness.rows("UPDATE run SET source = 'ofrun-1-abc'")
    await harness.rows("UPDATE bundle SET created_at = now() - interval '100 days'")
    await harness.rows("UPDATE bundle SET created_at = now() WHERE hash = 'young'")
    removed = {each.table: each.rows for each in summed(await kept.pruner().prune())}
    left = {name for (name,) in await harness.rows("SELECT hash FROM bundle")}
    assert {"inforce", "ofversion", "ofrun", "young"} <= left
    assert "old" not in left
    known = {name for (name,) in await harness.rows("SELECT hash FROM source_file")}
    assert known >= {shared, *files[:4]}
    assert files[4] not in known
    assert removed["source_file"] == 1


async def test_files_are_left_alone_while_a_loader_writes(kept, postgres):
    harness = kept.harness
    await harness.rows("INSERT INTO source_file VALUES ('f', 'x')")
    await harness.rows(
        "INSERT INTO bundle VALUES ('b', $1)", msgpack.encode(Manifest("/dags", "", {}))
    )
    await harness.rows("UPDATE bundle SET created_at = now() - interval '100 days'")
    async with Database.open(postgres) as other, other.connection() as connection:
        await connection.execute(SQL["lock_source_files"])
        await kept.pruner().prune()
        assert await kept.counts("bundle", "source_file") == [1, 1]
    await kept.pruner().prune()
    assert await kept.counts("bundle", "source_file") == [0, 0]
