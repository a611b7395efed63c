"""Tasks that wait for the previous run: what they wait for, what wakes them, and who is before."""

from datetime import UTC, datetime, timedelta

import pytest

from pubsubflow.manager.sweeper import Sweeper, SweeperSettings
from pubsubflow.model.wire.commands import CancelRun, CheckPastWaits, ClearTasks, StartRun
from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.store.read.task_waits import describe_waits
from support.specs import dag, task

pytestmark = pytest.mark.anyio
NO = TaskError("E", "no", final=True)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def waiting(harness) -> list[tuple[int, str | None]]:
    """Return which tasks wait, and for which, once all that follows from before is done."""

    async def checked():
        return not await harness.value("SELECT count(*) FROM past_wait WHERE on_run IS NULL")

    await harness.until(checked)
    return [tuple(row) for row in await harness.rows(
        "SELECT p.node, p.on_task FROM past_wait AS p JOIN run ON run.id = p.run"
        " ORDER BY run.run_id, p.node"
    )]  # fmt: skip


async def numbers(harness) -> list[int]:
    return [row[0] for row in await harness.rows("SELECT id FROM run ORDER BY run_id")]


async def take(harness, run: int, task_id: str, outcome=Outcome.SUCCESS) -> None:
    """Finish a task of a run."""
    order = await harness.order(task_id, run=run)
    order.delivery.ack()
    error = NO if outcome is Outcome.FAILED else None
    await harness.report(order.result(outcome, error=error))


async def test_a_task_starts_when_it_has_succeeded_in_the_run_before(harness):
    spec = dag("d", task("a"), task("b", "a", depends_on_past=True), task("c", "b"), on="x")
    await harness.load(spec)
    await harness.post("x1", "x2", "x3")
    one, two, three = await numbers(harness)
    for run in (three, two):
        await take(harness, run, "a")
    assert await waiting(harness) == [(1, "b"), (1, "b")]
    await take(harness, one, "a")
    await take(harness, one, "b")
    await take(harness, two, "b", Outcome.SKIPPED)
    await take(harness, three, "b")
    assert await waiting(harness) == []
    for run in (one, three):
        await take(harness, run, "c")
    await harness.until_states("success", "success", "success")


async def test_a_failure_holds_the_next_run_until_it_is_cleared(harness):
    await harness.load(dag("d", task("a", depends_on_past=True), on="x", max_active_runs=1))
    await harness.post("x1")
    await harness.post("x2")
    one, two = await numbers(harness)
    await take(harness, one, "a", Outcome.FAILED)
    await harness.until_states("failed", "running")
    assert await waiting(harness) == [(0, "a")]
    # The only active run waits for the one that is cleared, which starts over the limit.
    run_id = await harness.value("SELECT run_id FROM run WHERE id = $1", one)
    await harness.call(ClearTasks(run_id))
    await harness.until_states("running", "running")
    await take(harness, one, "a")
    await take(harness, two, "a")
    await harness.until_states("success", "success")


async def test_a_task_may_wait_for_those_after_it_too(harness):
    await harness.load(
        dag("d", task("a", depends_on_past=True, wait_for_downstream=True), task("b", "a"), on="x")
    )
    await harness.post("x1", "x2")
    one, two = await numbers(harness)
    await take(harness, one, "a")
    await harness.until(lambda: said(harness, [(0, "b")]))
    await take(harness, one, "b")
    await take(harness, two, "a")


async def said(harness, wanted) -> bool:
    return await waiting(harness) == wanted


async def test_the_run_before_is_that_of_the_logical_time_before(harness):
    await harness.load(dag("d", task("a", depends_on_past=True)))

    async def start(hours, kind):
        moment = None if hours is None else NOON + timedelta(hours=hours)
        run_id = await harness.call(StartRun("d", logical_time=moment))
        await harness.rows("UPDATE run SET kind = $2 WHERE run_id = $1::uuid", run_id, kind)
        return await harness.value("SELECT id FROM run WHERE run_id = $1::uuid", run_id)

    first = await start(5, "cron")
    await take(harness, first, "a", Outcome.FAILED)
    earlier = await start(1, "backfill")  # nothing is before it
    await take(harness, earlier, "a")
    await start(4, "manual")  # after the backfill, and waited for by none
    asked = await start(None, "manual")  # has no place in the order
    await take(harness, asked, "a")
    after = await start(6, "cron")
    await harness.until(lambda: said(harness, [(0, "a")]))
    assert await harness.value("SELECT on_run FROM past_wait WHERE run = $1", after) == first


async def test_a_run_that_ends_waits_no_longer(harness):
    await harness.load(dag("d", task("a", depends_on_past=True), on="x"))
    await harness.post("x1", "x2")
    assert await waiting(harness) == [(0, "a")]
    runs = await harness.rows("SELECT run_id FROM run ORDER BY run_id")
    await harness.call(CancelRun(runs[1][0], "enough"))
    assert await waiting(harness) == []
    await harness.call(CheckPastWaits(runs=tuple(await numbers(harness))))


async def test_what_a_manager_did_not_check_the_sweeper_does(harness, database, bus):
    await harness.load(dag("d", task("a", depends_on_past=True), on="x"))
    await harness.post("x1", "x2")
    one, two = await numbers(harness)
    assert await waiting(harness) == [(0, "a")]
    # A manager has died between a commit and its check; and what is waited for was pruned.
    await harness.rows("DELETE FROM run_live WHERE run = $1", one)
    await harness.rows("DELETE FROM run WHERE id = $1", one)
    await harness.rows("UPDATE past_wait SET checked_at = now() - interval '10 seconds'")
    sweeper = Sweeper(
        database=database, bus=bus, commands=harness.managers[0], settings=SweeperSettings()
    )
    await sweeper.sweep()
    await take(harness, two, "a")
    assert await waiting(harness) == []


async def test_what_a_task_waits_for_is_said(harness, database):
    spec = dag("d", task("a", depends_on_past=True), on="x")
    await harness.load(spec)
    await harness.post("x1", "x2")
    assert await waiting(harness) == [(0, "a")]
    _, two = await numbers(harness)
    first = await harness.value("SELECT run_id FROM run ORDER BY run_id LIMIT 1")
    async with database.connection() as connection:
        lines = await describe_waits(connection, two, spec)
    assert lines == [f"task a waits for task a of run {first}"]
