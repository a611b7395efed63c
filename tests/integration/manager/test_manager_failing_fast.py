"""Runs of DAGs that fail fast: what runs is stopped, and no result of it counts."""

import msgspec
import pytest

from pubsubflow.model.spec import TriggerRule
from pubsubflow.model.wire.commands import StartRun
from pubsubflow.model.wire.messages import Outcome, TaskError, decode_cancel
from pubsubflow.model.wire.subjects import Subjects
from support.specs import dag, task

pytestmark = pytest.mark.anyio
NO = TaskError("E", "no")


async def test_a_failure_stops_all_else_but_teardowns(harness):
    rule = TriggerRule.ALL_DONE_SETUP_SUCCESS
    tasks = (
        task("make", role="setup"),
        task("slow", "make"),
        task("bad"),
        task("waits"),
        task("after", "bad"),
        task("drop", "make", "slow", role="teardown", trigger_rule=rule),
    )
    await harness.load(msgspec.structs.replace(dag("d", *tasks), by_instance=True, fail_fast=True))
    run_id = await harness.call(StartRun("d"))
    await harness.finish("make")
    slow, waits = await harness.order("slow"), await harness.order("waits")
    await harness.begin(run_id, 1)
    orders = []
    async with await harness.worker_bus.subscribe(
        Subjects.CANCEL, lambda message: orders.append(decode_cancel(message.data))
    ):
        await harness.finish("bad", Outcome.FAILED, error=NO)

        async def heard():
            return orders

        (order,) = await harness.until(heard)
    assert sorted(order.tasks) == [(1, -1), (3, -1)]
    for late in (slow, waits):
        await harness.report(late.result())
    await harness.finish("drop")
    await harness.until_states("failed")
    assert await harness.tasks() == {
        "0": "success",
        "1": "failed",
        "2": "failed",
        "3": "skipped",
        "4": "skipped",
        "5": "success",
    }
    rows = await harness.rows("SELECT node, error->>'type' FROM task WHERE error IS NOT NULL")
    assert sorted(rows) == [(1, "FailFast"), (2, "E"), (3, "FailFast"), (4, "FailFast")]
