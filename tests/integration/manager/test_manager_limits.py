"""Rate limits, keys of runs and tasks of several slots: who starts, who waits, and until when."""

from datetime import timedelta

import pytest

from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.model.limits.keys import KeyPart
from pubsubflow.model.limits.rates import RateLimitSpec
from pubsubflow.model.runs.concurrency import Limit
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import FireTimers, SetPool, StartRun, Timer
from pubsubflow.model.wire.messages import Outcome, TaskError
from pubsubflow.store.read.read_models import ReadModels
from support.harness import process_batch
from support.specs import dag, task

pytestmark = pytest.mark.anyio
HOURLY = RateLimitSpec("crm", 1, 3600.0, 1)
TENANT = (KeyPart("tenant-"), KeyPart(path=("params", "tenant")))


async def states(harness) -> list[str]:
    return [
        state for (state,) in await harness.rows("SELECT state FROM task_live ORDER BY run, node")
    ]


async def timers(harness) -> list[Timer]:
    rows = await harness.rows(
        "SELECT due_at, kind, dag, run, node, map_index, attempt, key, id FROM timer"
        " WHERE kind = 'rate_limit' ORDER BY id"
    )
    return [Timer(*row) for row in rows]


async def pass_hours(harness, hours: int) -> None:
    """Let the time pass for rate limits, and fire their timers."""
    await harness.rows(
        "UPDATE rate_limit SET full_at = full_at - $1::interval", timedelta(hours=hours)
    )
    await harness.call(FireTimers(tuple(await timers(harness))))


async def test_a_rate_limit_holds_across_dags_and_a_timer_starts_the_next(harness):
    await harness.load(*(dag(name, task("t", rate_limit=HOURLY)) for name in "ab"))
    assert await timers(harness) == []
    for name in "aba":
        await harness.call(StartRun(name))
    assert await states(harness) == ["queued", "ready", "ready"]
    (timer,) = await timers(harness)
    full_at = await harness.value("SELECT full_at FROM rate_limit")
    assert (timer.key, timer.due_at) == ("crm", full_at)
    await harness.finish("t")  # the end of a task is not a start
    assert await states(harness) == ["ready", "ready"]
    await pass_hours(harness, 1)
    assert await states(harness) == ["queued", "ready"]
    assert len(await timers(harness)) == 1
    await pass_hours(harness, 1)
    assert await states(harness) == ["queued", "queued"]
    assert await timers(harness) == []


async def test_an_early_timer_of_a_slow_clock_is_set_again(harness):
    await harness.load(dag("d", task("t", rate_limit=HOURLY)))
    for _ in range(2):
        await harness.call(StartRun("d"))
    await harness.call(FireTimers(tuple(await timers(harness))))
    assert await states(harness) == ["queued", "ready"]
    assert len(await timers(harness)) == 1


async def test_a_further_attempt_counts_and_a_redelivery_does_not(harness):
    retry = RetryPolicy(retries=1)
    await harness.load(dag("d", task("t", rate_limit=HOURLY, retry=retry)))
    await harness.call(StartRun("d"))
    order = await harness.order("t")
    await harness.report(order.result(Outcome.CRASHED, error=TaskError("Crashed", "x")))
    order = await harness.order("t")
    assert (order.message.attempt, order.message.delivery > 1) == (1, True)
    assert await states(harness) == ["queued"]
    await harness.report(order.result(Outcome.FAILED, error=TaskError("E", "x")))
    assert await states(harness) == ["ready"]
    assert await harness.rows("SELECT held FROM slot") == [(False,)]
    await pass_hours(harness, 1)
    order = await harness.finish("t")
    assert order.message.attempt == 2


async def test_the_last_declaration_of_a_rate_counts(harness):
    await harness.load(dag("a", task("t", rate_limit=HOURLY)))
    for _ in range(3):
        await harness.call(StartRun("a"))
    assert await states(harness) == ["queued", "ready", "ready"]
    quick = RateLimitSpec("crm", 100, 1.0, 100)
    await harness.load(dag("b", task("t", rate_limit=quick)))
    due = await timers(harness)
    assert len(due) == 2  # one looks at once
    await harness.rows("UPDATE rate_limit SET full_at = now()")
    await harness.call(FireTimers(tuple(due)))
    assert await states(harness) == ["queued"] * 3
    (shown,) = (await ReadModels(harness.database).pools.rate_limits(limit=5)).items
    assert (shown.name, shown.rate, shown.waiting) == ("crm", "100 per second", 0)


async def test_a_rate_limit_that_is_not_stored_is_the_tasks_own(database, harness):
    await harness.load(dag("d", task("t", rate_limit=HOURLY)))
    await harness.rows("DELETE FROM rate_limit")
    await process_batch(database, BatchProcessor(), StartRun("d"), StartRun("d"))
    assert await states(harness) == ["queued", "ready"]
    (run_id,) = await harness.rows("SELECT run_id FROM run ORDER BY id DESC LIMIT 1")
    (shown,) = (await ReadModels(database).tasks.page(run_id[0], limit=5)).items
    assert shown.waits_for.startswith("rate limit crm: 1 per hour, next at ")


async def test_a_key_of_the_run_bounds_one_tenant(harness):
    own = {"concurrency_key": "tenant-{{ params.tenant }}", "key_parts": TENANT}
    await harness.load(
        dag("d", task("t", **own), params={"tenant": "x"}),
        dag("fixed", task("t", concurrency_key="tenant-a")),
    )
    for tenant in "aba":
        await harness.call(StartRun("d", {"tenant": tenant}))
    await harness.call(StartRun("fixed"))
    assert await states(harness) == ["queued", "queued", "ready", "ready"]
    for _ in range(4):
        await harness.finish("t")
    # Queues of keys that pass go; one that is written in a file stays.
    queues = await harness.rows("SELECT limits FROM wait_queue")
    assert queues in ([], [(["key:tenant-a"],)])


async def test_a_task_of_several_slots_gathers_them_and_none_passes_for_ever(harness):
    await harness.load(
        dag("light", task("light", pool="p")),
        dag("d", task("heavy", pool="p", pool_slots=3), priority=1),
    )
    await harness.call(SetPool("p", 3))
    for name in ("light", "light", "d", "light", "light"):
        await harness.call(StartRun(name))
    assert await states(harness) == ["queued", "queued", "ready", "ready", "ready"]
    (pool,) = (await ReadModels(harness.database).pools.page(limit=5)).items
    assert (pool.used, pool.waiting) == (2, 3)
    await harness.finish("light")
    assert await states(harness) == ["queued", "ready", "ready", "ready"]
    await harness.finish("light")
    assert await states(harness) == ["queued", "ready", "ready"]
    pool = await ReadModels(harness.database).pools.get("p")
    assert (pool.used, pool.waiting) == (3, 2)
    await harness.finish("heavy")
    assert await states(harness) == ["queued", "queued"]


async def test_a_task_that_its_pool_cannot_hold_says_so(harness):
    await harness.load(dag("d", task("t", pool="p", pool_slots=3)))
    await harness.call(SetPool("p", 2))
    run_id = await harness.call(StartRun("d"))
    (shown,) = (await ReadModels(harness.database).tasks.page(run_id, limit=5)).items
    assert "it takes 3 slots and there are 2" in shown.waits_for
    await harness.call(SetPool("p", 3))
    assert await states(harness) == ["queued"]


def test_limits_come_back_from_their_capacities():
    for limit in (Limit("pool:p", 0, 4), Limit("key:k", 3), Limit("pool:p"), Limit("rate:r")):
        assert Limit.stored(limit.name, limit.capacity) == limit
