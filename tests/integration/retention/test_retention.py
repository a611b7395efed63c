"""What is old goes, with all that belongs to it; what something waits for stays."""

import pytest

from pubsubflow.model.wire.commands import SetPaused
from support.specs import dag, task

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
