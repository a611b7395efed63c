"""Checks of events: what is held, in which order it is released, what removes a hold."""

from functools import partial
from uuid import UUID

import anyio
import asyncpg
import pytest

from pubsubflow.errors import InvalidInput
from pubsubflow.manager import Sweeper
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.model.wire.commands import (
    CancelRun,
    ClearTasks,
    SetPaused,
    SettleHeldEvents,
    StartRun,
    SweepChecks,
)
from support.specs import check, dag, task

pytestmark = pytest.mark.anyio
HELD = "SELECT extra->>'name' FROM held_event WHERE discarded_at IS NULL ORDER BY id"
LOG = "SELECT extra->>'name' FROM event ORDER BY id"
GOOD, BAD, MEH = {"passed": True}, {"passed": False}, {"passed": False, "severity": "warn"}


async def names(harness, query) -> list[str]:
    return [name for (name,) in await harness.rows(query)]


async def checked(harness, name, value, check_id="check:c", **fields):
    """Answer the run by which a check looks at an event."""

    def find():
        for order in harness.orders:
            if (order.info.dag_id, order.events) == (check_id, [name]):
                harness.orders.remove(order)
                return order
        return None

    order = await harness.until(find)
    order.delivery.ack()
    await harness.report(order.result(value=value, **fields))
    return order


async def sweep(harness):
    commands = harness.managers[0]
    sweeper = Sweeper(database=harness.database, bus=harness.bus, commands=commands)
    await sweeper._sweep_checks()


async def events(harness) -> tuple[UUID, ...]:
    rows = await harness.rows("SELECT event_id FROM held_event WHERE discarded_at IS NULL")
    return tuple(event for (event,) in rows)


async def consumers(harness) -> list[tuple[str, UUID]]:
    """Return which DAGs have runs that consumed which events of the log."""
    rows = await harness.rows(
        "SELECT dag_id, event_id FROM run_event JOIN event ON event.id = event"
        " JOIN run ON run.id = run_event.run JOIN dag ON dag.id = dag ORDER BY dag_id, event.id"
    )
    return [tuple(row) for row in rows]


async def test_the_order_of_events_is_that_of_their_releases(pair):
    harness = pair
    await harness.load(
        dag("each", task("t"), on="a"), dag("both", task("t"), on="a & b"), check("c", "a")
    )
    for number, name in enumerate(["a1", "a2", "a3", "b4"]):
        await harness.post(name, manager=number % 2)
    assert await names(harness, HELD) == ["a1", "a2", "a3"]
    assert await harness.states("each") == await harness.states("both") == []
    for name, found in (("a3", GOOD), ("a2", BAD), ("a1", GOOD)):
        await checked(harness, name, found)
    assert await names(harness, LOG) == ["b4", "a3", "a1"]
    assert await names(harness, HELD) == ["a2"]
    got = [await harness.order("t") for _ in range(3)]
    assert sorted((each.info.dag_id, *each.events) for each in got) == [
        ("both", "b4", "a3"),
        ("each", "a1"),
        ("each", "a3"),
    ]
    assert await harness.value("SELECT count(*) FROM alert WHERE kind = 'check'") == 1


async def test_an_event_has_to_pass_every_blocking_check(pair):
    harness = pair
    await harness.load(
        check("c", "a"), check("other", "*", severity="warn"), check("quiet", "a", blocking=False)
    )
    await harness.post("a1")
    await checked(harness, "a1", GOOD)
    await checked(harness, "a1", BAD, "check:quiet")
    assert await names(harness, HELD) == ["a1"]
    await checked(harness, "a1", BAD, "check:other")  # of severity warn: it has ended, no more
    assert await names(harness, HELD) == []
    rows = await harness.rows("SELECT outcome, severity, holding FROM check_result ORDER BY dag")
    assert [tuple(row) for row in rows] == [
        ("passed", "error", False),
        ("failed", "warn", False),
        ("failed", "error", False),
    ]


async def test_two_checks_that_end_at_once_release_once(pair):
    harness = pair
    await harness.load(check("c", "a"), check("d", "a"), dag("each", task("t"), on="a"))
    for number in range(10):
        await harness.post(f"a{number}")

    def passing(order):
        return [order.result(value=GOOD)]

    harness.automatic = passing
    for order in [*harness.orders]:
        harness.orders.remove(order)
        harness.answer(order, passing(order))
    await harness.quiet()
    assert sorted(await names(harness, LOG)) == [f"a{number}" for number in range(10)]
    assert await harness.states("each") == ["success"] * 10


async def test_a_check_begins_on_an_event_that_is_released_in_the_same_transaction(harness):
    await harness.load(check("c", "a"), check("d", "a"))
    await harness.call(SetPaused("check:d", paused=True))
    await harness.post("a1")
    (event,) = await events(harness)
    answers: list[object] = []
    commands = [SetPaused("check:d", paused=False), SettleHeldEvents("release", (event,), "ann")]
    harness.managers[0].put(
        *[InboxItem(each, done=answers.append, failed=answers.append) for each in commands]
    )
    await harness.until(lambda: len(answers) == len(commands))
    assert await names(harness, LOG) == ["a1"]
    assert await consumers(harness) == [("check:c", event), ("check:d", event)]


HOLD_UP = """
CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock(1);
    RETURN NEW;
END $$;
CREATE TRIGGER hold_up BEFORE INSERT ON run FOR EACH ROW EXECUTE FUNCTION hold_up();
"""
WAITING = """
FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
HAVING count(*) =
"""


async def test_a_check_that_left_a_dataset_begins_while_its_event_is_released(pair, postgres):
    harness = pair
    await harness.load(check("c", "a"), check("d", "a", blocking=False))
    await harness.call(SetPaused("check:d", paused=True))
    await harness.post("a1")
    await harness.load(check("c", "a", blocking=False))  # so the next sweep releases
    await harness.load(check("d", "b", blocking=False))  # no release locks it any more
    number = await harness.value("SELECT id FROM dag WHERE dag_id = 'check:c'")
    (event,) = await events(harness)
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute(HOLD_UP)
        await admin.execute("SELECT pg_advisory_lock(1)")
        async with anyio.create_task_group() as group:
            group.start_soon(harness.call, SetPaused("check:d", paused=False))
            await harness.until_value(f"SELECT 1 {WAITING} 1")
            group.start_soon(partial(harness.call, SweepChecks((number,)), manager=1))
            await harness.until_value(f"SELECT 2 {WAITING} 2")
            await admin.execute("SELECT pg_advisory_unlock(1)")
    finally:
        await admin.close()
    assert await consumers(harness) == [("check:c", event), ("check:d", event)]


async def test_what_a_run_of_a_check_cannot_do_holds_until_it_is_checked_again(harness):
    await harness.load(check("c", "a", max_active_runs=1))
    await harness.post("a1", "a2")
    order = await harness.order("check")
    order.delivery.ack()
    queued = await harness.value("SELECT run_id FROM run WHERE state = 'queued'")
    await harness.call(CancelRun(queued))
    await harness.report(order.result("failed"))
    await sweep(harness)
    rows = await harness.rows("SELECT outcome, holding, description FROM check_result")
    assert {tuple(row)[:2] for row in rows} == {("error", True)}
    assert any("its run is cancelled" in row["description"] for row in rows)
    with pytest.raises(InvalidInput, match="checks run-again"):
        await harness.call(ClearTasks(order.info.run_id))
    with pytest.raises(InvalidInput, match="is a check"):
        await harness.call(StartRun("check:c"))
    again = SettleHeldEvents("run-again", await events(harness), "ann")
    assert len(await harness.call(again)) == 2
    assert await harness.call(again) == []  # they wait already
    for name in ("a1", "a2"):
        await checked(harness, name, MEH)
    assert await names(harness, LOG) == ["a1", "a2"]


async def test_a_pause_holds_and_a_removal_releases(harness):
    await harness.load(dag("each", task("t"), on="a"), check("c", "a", file="c.py"))
    await harness.call(SetPaused("check:c", paused=True))
    await harness.post("a1")
    assert not harness.orders
    await harness.call(SetPaused("check:c", paused=False))
    await checked(harness, "a1", GOOD)
    assert (await harness.order("t")).events == ["a1"]
    await harness.post("a2")
    await checked(harness, "a2", BAD)
    await harness.catalog.remove(["c.py"])
    await harness.post("a3")  # it may come back: its file is gone for a moment
    await sweep(harness)
    assert await names(harness, HELD) == ["a2", "a3"]
    await harness.catalog.retire(0)
    await harness.post("a4")
    await sweep(harness)
    assert await names(harness, LOG) == ["a1", "a4", "a2", "a3"]
    rows = await harness.rows("SELECT outcome, note FROM check_result ORDER BY event")
    assert [tuple(row) for row in rows] == [
        ("passed", None),
        ("failed", "the check was removed"),
        ("removed", "the check was removed"),
    ]
    alert = await harness.rows("SELECT ending FROM alert")
    assert [tuple(row) for row in alert] == [("the check was removed",)]


async def test_a_check_that_blocks_no_more_releases_and_a_discarded_event_is_gone(harness):
    await harness.load(dag("each", task("t"), on="a"), check("c", "a"))
    await harness.post("a1", "a2", "a3")
    await checked(harness, "a2", BAD)
    (bad,) = await harness.rows("SELECT event_id FROM held_event WHERE extra->>'name' = 'a2'")
    done = await harness.call(SettleHeldEvents("discard", (bad["event_id"],), "ann", "broken"))
    assert done == [str(bad["event_id"])]
    assert await harness.call(SettleHeldEvents("release", (bad["event_id"],), "ann")) == []
    await harness.load(check("c", "a", blocking=False))
    await sweep(harness)
    assert await names(harness, LOG) == ["a1", "a3"]
    await checked(harness, "a1", BAD)  # it was waited for no longer
    assert await names(harness, LOG) == ["a1", "a3"]


async def test_a_subscriber_that_comes_later_catches_up_with_releases(harness):
    await harness.load(check("c", "a"), dag("d", task("t"), on="a"))
    await harness.call(SetPaused("d", paused=True))
    await harness.post("a1", "a2")
    await checked(harness, "a2", GOOD)
    await checked(harness, "a1", GOOD)
    await harness.call(SetPaused("d", paused=False))
    with anyio.fail_after(20):
        got = [(await harness.order("t")).events for _ in range(2)]
    assert got == [["a2"], ["a1"]]
