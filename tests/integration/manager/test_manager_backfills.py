"""Backfills on real servers: their runs are made as there is room, each once, whatever happens."""

from datetime import UTC, datetime, timedelta

import pytest

from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.sweeper import Sweeper, SweeperSettings
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.backfills import BackfillState
from pubsubflow.model.schedule.conditions import ScheduleSpec
from pubsubflow.model.schedule.partitions import Partitioning
from pubsubflow.model.schedule.timetable import CronSpec
from pubsubflow.model.wire.commands import Backfill, CancelRun, ChangeBackfill, StartRun
from pubsubflow.store.read.runs.backfills import ReadBackfills
from support.specs import condition, dag, task

pytestmark = pytest.mark.anyio
HOURLY = CronSpec("0 * * * *")
DAY = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def begin(harness, hours=5, **options):
    """Request a backfill of some hours; return its answer."""
    options.setdefault("until", DAY + hours * HOUR)
    return await harness.call(Backfill("d", options.pop("since", DAY), **options))


async def orders(harness, count):
    """Wait for some orders, and that there are no more; return the hours of their runs."""
    await harness.until(lambda: len(harness.orders) >= count)
    assert len(harness.orders) == count
    return sorted((each.info.logical_time - DAY) // HOUR for each in harness.orders)


async def progress(harness, plan):
    backfills = ReadBackfills(harness.database)
    return await backfills.get(plan.backfill_id)


async def rows_of_dag(harness):
    return [tuple(row) for row in await harness.rows("SELECT backfills, apart FROM dag_state")]


async def test_runs_are_made_as_others_end_and_the_schedule_keeps_its_own_limit(harness):
    await harness.load(dag("d", task("t"), timetable=HOURLY, max_active_runs=1))
    plan = await begin(harness, max_active_runs=2, description="again", created_by="ann")
    assert [each.run_id is not None for each in plan.runs] == [True, True, False, False, False]
    assert await orders(harness, 2) == [0, 1]
    own = await harness.call(StartRun("d"))  # not held up by the runs of the backfill
    await harness.until(lambda: len(harness.orders) == 3)
    queued = await harness.call(StartRun("d"))
    assert await harness.value("SELECT state FROM run WHERE run_id = $1", queued) == "queued"
    for order in [each for each in harness.orders if each.info.run_id != own]:
        harness.orders.remove(order)
        order.delivery.ack()
        await harness.report(order.result())
    hours = [each.info.logical_time for each in harness.orders if each.info.run_id != own]
    await harness.until(lambda: len(harness.orders) == 3)
    assert hours == [] or all(hours)
    assert (await progress(harness, plan)).running == 2
    assert await harness.value("SELECT state FROM run WHERE run_id = $1", queued) == "queued"
    for _ in range(5):
        await harness.finish()
    found = await progress(harness, plan)
    assert (found.state, found.succeeded, found.left, found.description, found.created_by) == (
        "completed", 5, 0, "again", "ann"
    )  # fmt: skip
    assert await rows_of_dag(harness) == [(0, 0)]
    await harness.quiet()
    (row,) = await harness.rows("SELECT active, queued FROM dag_state")
    assert tuple(row) == (0, 0)


async def test_without_a_limit_of_its_own_it_takes_what_the_dag_has_left(harness):
    await harness.load(dag("d", task("t"), timetable=HOURLY, max_active_runs=2))
    first = await harness.call(StartRun("d"))
    plan = await begin(harness, 3, newest_first=True)
    assert [each.logical_time.hour for each in plan.runs] == [2, 1, 0]
    await harness.until(lambda: len(harness.orders) == 2)
    waits = await harness.call(StartRun("d"))
    (order,) = (each for each in harness.orders if each.info.run_id == first)
    harness.orders.remove(order)
    await harness.report(order.result())
    await harness.until(lambda: len(harness.orders) == 2)
    # The run of a person came first: the backfill goes on behind it.
    assert {each.info.run_id for each in harness.orders} == {plan.runs[0].run_id, waits}
    for _ in range(4):
        await harness.finish()
    assert (await progress(harness, plan)).state == "completed"
    assert [each.info.logical_time for each in harness.received if each.info.logical_time] == [
        DAY + 2 * HOUR, DAY + HOUR, DAY
    ]  # fmt: skip


async def test_a_backfill_is_paused_resumed_and_cancelled(harness):
    await harness.load(dag("d", task("t"), timetable=HOURLY))
    plan = await begin(harness, max_active_runs=1)
    change = ChangeBackfill(plan.backfill_id, BackfillState.PAUSED, "lunch")
    assert await harness.call(change) is None
    await harness.finish()
    assert await orders(harness, 0) == []
    found = await progress(harness, plan)
    assert (found.state, found.reason, found.left, found.over) == ("paused", "lunch", 4, False)
    await harness.call(ChangeBackfill(plan.backfill_id, BackfillState.RUNNING))
    assert await orders(harness, 1) == [1]
    await harness.call(ChangeBackfill(plan.backfill_id, BackfillState.CANCELLED, "wrong"))
    found = await progress(harness, plan)
    assert (found.state, found.running, found.over) == ("cancelled", 1, False)
    assert await rows_of_dag(harness) == [(1, 1)]
    assert "is cancelled" in str(
        await refusal(harness, ChangeBackfill(plan.backfill_id, BackfillState.RUNNING))
    )
    (run_id,) = await ReadBackfills(harness.database).live_runs(plan.backfill_id)
    await harness.call(CancelRun(run_id))
    found = await progress(harness, plan)
    assert (found.cancelled, found.over, found.left) == (1, True, 3)
    assert await rows_of_dag(harness) == [(0, 0)]


async def refusal(harness, command):
    with pytest.raises(Exception) as refused:  # noqa: PT011 - the caller looks at it
        await harness.call(command)
    return refused.value


async def test_only_what_failed_or_is_missing_is_made_again(harness):
    await harness.load(dag("d", task("t"), timetable=HOURLY))
    await begin(harness, 4)
    for state in ("success", "failed", "success"):
        await harness.finish(outcome=state)
    await harness.call(CancelRun((await harness.order()).info.run_id))
    plan = await begin(harness, 5, only_failed=True)
    assert [each.exists for each in plan.runs] == [True, False, True, False, False]
    for _ in range(3):
        await harness.finish()
    items = (await ReadBackfills(harness.database).plan(plan.backfill_id, limit=9)).items
    assert [(each.state, each.exists) for each in items] == [
        ("success", each) for each in (True, False, True, False, False)
    ]
    assert len(await harness.states()) == 7
    none = await begin(harness, 5, only_failed=True)
    assert (none.backfill_id, none.reason) == (None, "no run failed, and none is missing")
    # Two that overlap share the runs: whichever comes first makes one.
    one, two = await begin(harness, 8), await begin(harness, 9)
    assert [each.exists for each in two.runs] == [True] * 8 + [False]
    for _ in range(4):
        await harness.finish()
    assert [(await progress(harness, each)).exists for each in (one, two)] == [5, 8]


async def test_a_plan_of_any_length_goes_through_transactions_of_bounded_size(harness):
    await harness.load(dag("d", timetable=HOURLY))  # its runs end with the transaction
    plan = await begin(harness, 600)
    await harness.until_value("SELECT 1 FROM backfill WHERE state = 'completed'")
    found = await progress(harness, plan)
    assert (found.planned, found.succeeded, found.left) == (600, 600, 0)
    sizes = await harness.rows("SELECT count(*) AS runs FROM run GROUP BY created_at")
    assert max(row["runs"] for row in sizes) <= 100
    page = await ReadBackfills(harness.database).plan(plan.backfill_id, limit=500)
    assert page.next is not None
    too_many = await refusal(harness, Backfill("d", DAY - timedelta(days=9000), DAY))
    assert "more than 100000 runs" in str(too_many)


async def test_partitions_keep_their_order_and_a_new_version_that_refuses_pauses(harness):
    partitioned = ScheduleSpec(condition("x"), partitioning=Partitioning())
    await harness.load(dag("d", task("t"), schedule=partitioned, params={"n": 1}))
    options = {"partitions": ("c", "a", "b"), "since": None, "until": None}
    plan = await begin(harness, **options, max_active_runs=1, params={"n": 2}, newest_first=True)
    assert (await harness.order()).info.partition == "b"
    await harness.load(dag("d", task("t"), schedule=partitioned, params={"m": 1}))
    await harness.call(CancelRun(plan.runs[0].run_id))
    found = await progress(harness, plan)
    assert (found.state, found.left) == ("paused", 2)
    assert "n" in found.reason
    await harness.load(dag("d", task("u"), schedule=partitioned, params={"n": 1}))
    await harness.call(ChangeBackfill(plan.backfill_id, BackfillState.RUNNING))
    # A run has the version that is in force when it is made.
    order = await harness.finish("u")
    assert (order.info.partition, order.info.params) == ("a", {"n": 2})
    assert (await harness.finish("u")).info.partition == "c"
    assert (await progress(harness, plan)).state == "completed"


async def test_what_a_dead_or_an_older_manager_left_undone_is_swept(pair):
    await pair.load(dag("d", task("t"), timetable=HOURLY))
    plan = await begin(pair, 3, max_active_runs=1)
    # As a manager of before ends the run: it knows nothing of backfills.
    await pair.rows("UPDATE dag_state SET backfills = 0, apart = 0")
    await pair.finish()
    assert len(await pair.states()) == 1
    settings = SweeperSettings(undelivered_seconds=0)
    sweeper = Sweeper(
        database=pair.database, bus=pair.bus, commands=pair.managers[1], settings=settings
    )
    await pair.rows("UPDATE backfill SET advanced_at = now() - interval '1 minute'")
    await pair.rows("UPDATE dag_state SET backfills = 1")
    await sweeper.sweep()
    for _ in range(2):
        await pair.finish()
    found = await progress(pair, plan)
    assert (found.state, found.succeeded) == ("completed", 3)
    assert await pair.states() == [RunState.SUCCESS] * 3


async def test_runs_apart_make_no_room_for_others_before_they_are_active(harness):
    await harness.load(dag("d", task("t"), timetable=HOURLY, max_active_runs=1))
    await harness.call(StartRun("d"))
    answers = []
    commands = StartRun("d"), Backfill("d", DAY, DAY + 5 * HOUR, max_active_runs=3)
    items = [InboxItem(each, done=answers.append, failed=answers.append) for each in commands]
    harness.managers[0].put(*items)  # in one transaction
    await harness.until(lambda: len(answers) == 2)
    assert await harness.value("SELECT state FROM run WHERE run_id = $1", answers[0]) == "queued"
    await harness.until(lambda: len(harness.orders) == 4)
    assert await rows_of_dag(harness) == [(1, 3)]
