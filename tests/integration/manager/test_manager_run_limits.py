"""Limits of runs: of DAGs that have a tag so many are active, whatever manager starts them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.model.schedule.timetable import IntervalSpec
from pubsubflow.model.wire.commands import (
    Backfill,
    CancelRun,
    ClearTasks,
    DeletePool,
    SetPaused,
    SetPool,
    StartQueuedRuns,
    StartRun,
)
from pubsubflow.store.read.read_models import ReadModels
from support.harness import process_batch
from support.specs import dag, task

pytestmark = pytest.mark.anyio
HEAVY = "runs:tag:heavy"
STATES = "SELECT dag.dag_id, run.state FROM run JOIN dag ON dag.id = run.dag ORDER BY run.id"


async def until_active(harness, *names):
    """Wait until runs of these DAGs are active, by what managers do of themselves, and no more."""

    async def active():
        return sorted(name for name, state in await harness.rows(STATES) if state == "running")

    async def same():
        return await active() == sorted(names)

    await harness.until(same)
    await harness.call(StartQueuedRuns())
    assert await active() == sorted(names)


async def test_dags_with_a_tag_share_their_runs_and_others_do_not_wait(pair):
    await pair.load(
        dag("a", task("a"), tags=("heavy",), on="x"),
        dag("b", task("b"), tags=("night", "heavy"), priority=1),
        dag("c", task("c"), on="x"),
    )
    await pair.call(SetPool(HEAVY, 2), manager=1)
    await pair.post("x", manager=1)
    await until_active(pair, "a", "c")
    runs = [
        await pair.call(StartRun(name), manager=number % 2) for number, name in enumerate("aaab")
    ]
    await until_active(pair, "a", "a", "c")
    models = ReadModels(pair.database)
    pool = await models.pools.get(HEAVY)
    assert (pool.slots, pool.used, pool.waiting) == (2, 2, 3)
    waiting = await models.runs.get(UUID(runs[3]))
    assert waiting.waits_for == "tag heavy: 2 of 2 runs active"
    explained = await models.runs.explain(UUID(runs[3]))
    assert explained.waits == ["it waits for tag heavy: 2 of 2 runs active"]
    (reason, _) = (await models.why_not.why_not("b")).reasons
    assert reason.text == (
        "1 run is queued: 0 active, max_active_runs=16, tag heavy: 2 of 2 runs active"
    )
    # The end of any of them makes room, and the highest priority is next, not the oldest.
    await pair.finish("a")
    await until_active(pair, "a", "b", "c")
    await pair.call(CancelRun(UUID(runs[1])))
    await pair.call(SetPaused("a", paused=True))  # which holds its schedule, not its queue
    await pair.finish("b")
    await until_active(pair, "a", "a", "c")
    for task_id in "aac":
        await pair.finish(task_id)
    await pair.quiet()
    assert (await models.pools.get(HEAVY)).used == 0
    left = "SELECT * FROM dag_state WHERE (active, queued) <> (0, 0)"
    assert await pair.rows(left) == await pair.rows("SELECT * FROM run_queue") == []


async def test_a_limit_comes_changes_and_goes_while_runs_wait(pair):
    await pair.load(dag("d", task("d"), tags=("heavy", "slow"), max_active_runs=3))
    for _ in range(4):
        await pair.call(StartRun("d"))
    await until_active(pair, "d", "d", "d")
    # What runs stays, and counts.
    await pair.call(SetPool(HEAVY, 1))
    await pair.finish("d")
    await pair.finish("d")
    await until_active(pair, "d")
    await pair.call(SetPool(HEAVY, 2), manager=1)
    await until_active(pair, "d", "d")
    # Of two limits that hold a run, both need room.
    await pair.call(SetPool("runs:tag:slow", 2))
    await pair.call(SetPool(HEAVY, 9))
    first = await pair.call(StartRun("d"))
    await until_active(pair, "d", "d")
    await pair.call(DeletePool("runs:tag:slow"), manager=1)
    await until_active(pair, "d", "d", "d")
    await pair.call(SetPool(HEAVY, 0))
    await pair.call(StartRun("d"))
    await until_active(pair, "d", "d", "d")
    assert (await ReadModels(pair.database).runs.get(UUID(first))).waits_for is None
    for _ in range(3):
        await pair.finish("d")
    await until_active(pair)
    # A run that is opened again waits like others.
    await pair.call(ClearTasks(UUID(first)))
    await until_active(pair)
    await pair.call(DeletePool(HEAVY))
    await until_active(pair, "d", "d")


async def test_a_backfill_with_a_limit_of_its_own_is_held_by_that_of_its_tag_too(harness):
    day = timedelta(days=1)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    await harness.load(
        dag("d", task("d"), tags=("heavy",), max_active_runs=1, timetable=IntervalSpec(86_400.0))
    )
    await harness.call(SetPool(HEAVY, 2))
    await harness.call(StartRun("d"))
    await harness.call(StartRun("d"))
    await harness.call(Backfill("d", since, since + 4 * day, max_active_runs=3))
    # One against max_active_runs of the DAG, one of the backfill.
    await until_active(harness, "d", "d")
    counts = "SELECT active, queued, apart FROM dag_state"
    assert await harness.rows(counts) == [(2, 3, 1)]
    await harness.call(SetPool(HEAVY, 5))
    await until_active(harness, "d", "d", "d", "d")
    assert await harness.rows(counts) == [(4, 1, 3)]
    for _ in range(6):
        await harness.finish("d")
    await harness.quiet()
    assert await harness.rows(counts) == [(0, 0, 0)]
    assert await harness.rows("SELECT * FROM backfill WHERE open") == []


async def test_what_a_manager_that_died_did_not_start_the_next_one_starts(harness):
    await harness.load(dag("d", task("d"), tags=("heavy",)))
    await harness.call(SetPool(HEAVY, 2))
    # Committed without what follows: the manager dies in between.
    starts = [StartRun("d") for _ in range(3)]
    await process_batch(harness.database, BatchProcessor(), *starts)
    assert await harness.rows(STATES) == [("d", "queued")] * 3
    await harness.call(StartQueuedRuns())
    await until_active(harness, "d", "d")
