"""Tasks that wait: they leave, come back with their record, and their steps are kept."""

import anyio
import msgspec
import pytest
from test_worker_leases import give_back_once

from pubsubflow.model.runs.waits import complete_wait, completed_entry
from pubsubflow.model.wire.messages import NO_NODE, JournalEntry, Outcome, TaskError, encode
from pubsubflow.model.wire.waits import WaitCompletion, decode_wait_set
from pubsubflow.model.wire.worker_requests import (
    LEASE_LOST,
    Chunk,
    JournalEntryRequest,
    JournalRequest,
)

pytestmark = pytest.mark.anyio

WAITING = """
import asyncio
from datetime import timedelta
from pubsubflow import Context, StepFailed, dag, task

@dag
def work():
    @task
    async def prepare():
        return 20

    @task(timeout=5)
    async def wait(start: int, ctx: Context):
        print("from the top")
        one = await ctx.step("one", lambda: print("one") or start + 1)
        event = await ctx.wait_for_event("s3://lake/orders", timeout=60)
        two = await ctx.step("two", asyncio.sleep, 0, one + 1)
        return [one, two, event.extra]

    @task
    async def after(found: list):
        return len(found)

    @task.sensor(timedelta(seconds=5))
    def plain(event, more: int):
        return [event.payload, more]

    after(wait(prepare()))
    plain(7)
"""


@pytest.fixture
def dag(manager):
    return manager.load(WAITING)


def happened(waiting, info=None):
    """Return the outcome of a wait for an event, or for a time."""
    payload = msgspec.Raw(encode(info))
    return completed_entry(complete_wait(waiting, WaitCompletion(0, payload, number=7)))


def kept(manager, order):
    return [(step.key, step.label) for step in manager.journal(order).values()]


async def test_a_task_that_waits_gives_its_slot_back(manager, start_worker, dag, event):
    async with start_worker(async_slots=1):
        first = await manager.send(manager.order(dag, "wait", inputs={"prepare": 20}))
        result = await manager.result(first)
        assert (result.outcome, result.then, result.value) == (Outcome.DEFERRED, NO_NODE, b"")
        waiting = decode_wait_set(result.wait_set)
        assert (waiting.key, waiting.label) == ("1", "s3://lake/orders")
        assert kept(manager, first) == [("0", "one")]
        other = await manager.run(dag, "prepare")
        assert other.outcome is Outcome.SUCCESS
        with anyio.fail_after(10):
            while await manager.outstanding():  # noqa: ASYNC110 - JetStream sends no notification
                await anyio.sleep(0.02)

        manager.results.clear()
        record = (
            *manager.journal(first).values(),
            happened(waiting, event("s3://lake/orders", a=1)),
        )
        again = manager.order(dag, "wait", run=first.run, inputs={"prepare": 20}, delivery=2)
        again = msgspec.structs.replace(again, journal=record)
        result = await manager.result(await manager.send(again))
    assert result.outcome is Outcome.SUCCESS
    assert msgspec.msgpack.decode(result.value) == [21, 22, {"a": 1}]
    assert manager.texts(first) == ["from the top", "one", "from the top"]
    requests = [each for each in manager.requests if isinstance(each, JournalEntryRequest)]
    assert [(each.delivery, each.entry.label) for each in requests] == [(1, "one"), (2, "two")]
    assert not any(isinstance(each, JournalRequest) for each in manager.requests)


async def test_a_journal_that_is_not_in_the_message_is_fetched(manager, worker, dag, event):
    order = manager.order(dag, "wait", inputs={"prepare": 20}, journal=None)
    manager.journal(order)["0"] = JournalEntry("0", "one", "step", encode("x" * 500))
    result = await manager.result(await manager.send(order))
    assert result.outcome is Outcome.DEFERRED
    assert sum(isinstance(each, JournalRequest) for each in manager.requests) == 6


async def test_a_redelivered_task_fetches_its_journal(manager, bus, start_worker, dag):
    order = await manager.send(manager.order(dag, "wait", inputs={"prepare": 20}))
    await give_back_once(bus)
    manager.journal(order)["0"] = JournalEntry("0", "one", "step", encode(21))
    async with start_worker():
        result = await manager.result(order)
    assert result.outcome is Outcome.DEFERRED
    assert manager.texts(order) == ["from the top"]


async def test_a_follower_waits_until_its_row_is_there(manager, worker, dag):
    manager.journal_answers["one"] = [Chunk(b"", 0), Chunk(b"", 0)]
    order = await manager.send(manager.order(dag, "prepare", chained=True))
    result = await manager.result(order, dag.node("wait"))
    assert (result.outcome, result.after) == (Outcome.DEFERRED, order.node)
    assert manager.results[order.run, order.node].then == dag.node("wait")
    requests = [each for each in manager.requests if isinstance(each, JournalEntryRequest)]
    assert [(each.node, each.attempt, each.delivery) for each in requests] == [
        (dag.node("wait"), 1, 1)
    ] * 3
    assert (order.run, dag.node("after")) not in manager.results


async def test_a_task_that_was_handed_out_anew_is_stopped(manager, worker, dag):
    manager.journal_answers["one"] = [Chunk(b"", 0, f"{LEASE_LOST}the task was handed out anew")]
    result = await manager.run(dag, "wait", inputs={"prepare": 20})
    assert (result.outcome, result.error.final) == (Outcome.CANCELLED, True)
    assert result.error.message == "the task was handed out anew"


async def test_what_the_managers_cannot_record_fails_the_attempt(manager, worker, dag):
    manager.journal_answers["one"] = [Chunk(b"", 0, "out of order")]
    result = await manager.run(dag, "wait", inputs={"prepare": 20})
    assert (result.outcome, result.error.type) == (Outcome.FAILED, "Unavailable")
    assert not result.error.final


async def test_another_path_fails_for_good(manager, worker, dag):
    record = (JournalEntry("0", "another", "step"),)
    result = await manager.run(dag, "wait", inputs={"prepare": 20}, journal=record)
    assert (result.outcome, result.error.type) == (Outcome.FAILED, "ReplayMismatch")
    assert result.error.final
    assert "step 'another' here before, and now step 'one'" in result.error.message


async def test_a_step_that_failed_fails_again(manager, worker, dag):
    record = (JournalEntry("0", "one", "step", b"", TaskError("OSError", "no disk")),)
    result = await manager.run(dag, "wait", inputs={"prepare": 20}, journal=record)
    assert (result.outcome, result.error.type) == (Outcome.FAILED, "StepFailed")
    assert result.error.message == "step 'one' failed: OSError: no disk"


async def test_a_plain_task_gets_what_happened_before_its_start(manager, worker, dag):
    start = dag.spec.tasks[dag.node("plain")].start_wait
    record = (happened(start),)
    result = await manager.run(dag, "plain", journal=record)
    assert msgspec.msgpack.decode(result.value) == [None, 7]
    order = manager.order(dag, "plain", journal=None)
    manager.journal(order)["start"] = record[0]
    result = await manager.result(await manager.send(order))
    assert result.outcome is Outcome.SUCCESS


ENDINGS = """
import asyncio
import anyio
from pubsubflow import Context, dag, task

@dag
def work():
    @task(timeout=0.2)
    async def late(ctx: Context):
        async def slow(n):
            try:
                await anyio.sleep(60)
            finally:
                raise OSError(n)
        await asyncio.gather(*(ctx.step("slow", slow, n) for n in range(3)))

    @task
    async def lingers(ctx: Context):
        try:
            await ctx.sleep(1)
        finally:
            print("leaving")
            await anyio.sleep(60)

    @task
    async def swallows(ctx: Context):
        try:
            await ctx.sleep(1)
        except BaseException:
            pass
        return "went on"

    @task
    async def beside(ctx: Context):
        await ctx.step("go on", anyio.sleep, 0)
        return "fine"

    late(); lingers(); swallows(); beside()
"""


async def test_a_timeout_beside_others_ends_its_task_alone(manager, worker):
    dag = manager.load(ENDINGS)
    result = await manager.run(dag, "late")
    assert (result.outcome, result.error.type) == (Outcome.FAILED, "TimeoutError")
    assert (await manager.run(dag, "beside")).outcome is Outcome.SUCCESS


async def test_a_cancellation_counts_while_a_task_leaves(manager, worker):
    dag = manager.load(ENDINGS)
    order = await manager.send(manager.order(dag, "lingers"))
    await manager.until(lambda: manager.texts(order))
    manager.cancel(order.run)
    assert (await manager.result(order)).outcome is Outcome.CANCELLED


async def test_a_deferral_that_is_swallowed_stands(manager, worker):
    dag = manager.load(ENDINGS)
    order = await manager.send(manager.order(dag, "swallows"))
    assert (await manager.result(order)).outcome is Outcome.DEFERRED
    (line,) = manager.lines(order)
    assert (line["level"], "its function returned; that is ignored" in line["m"]) == (
        "warning",
        True,
    )
