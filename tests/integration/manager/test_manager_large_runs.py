"""Runs of many tasks, whose progress is stored in chunks."""

from uuid import UUID

import pytest

from pubsubflow.manager.persistence import load
from pubsubflow.model.runs.progress import STORED_PROGRESS
from pubsubflow.model.runs.stored.split_progress import CHUNK_NODES, decode_stored, is_split
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, StartRun
from support.specs import dag, task

pytestmark = pytest.mark.anyio
MANY = 4 * CHUNK_NODES
NAMES = ("a", "b", "c", "d", "e")
"""The last tasks: one after the other, with nothing to run between the first two."""
HEAD = "SELECT progress FROM run_live"
CHUNKS = "SELECT progress, xmin::text::bigint AS written FROM progress_chunk ORDER BY number"


def large():
    """A DAG of 517 tasks; five of them run."""
    empty = [task(f"n{number}", "a", kind="empty") for number in range(MANY)]
    rest = [task("b", *(each["task_id"] for each in empty))]
    rest += [task(name, before) for before, name in zip("bcd", "cde", strict=True)]
    return dag("large", task("a"), *empty, *rest)


async def start(harness):
    await harness.load(large())
    return UUID(str(await harness.call(StartRun("large"))))


async def finish(harness, *names):
    for name in names:
        await harness.finish(name, chain=0)


async def stored(harness):
    """Return the progress of the run, as the store holds it."""
    head = await harness.value(HEAD)
    return decode_stored(head, [row["progress"] for row in await harness.rows(CHUNKS)])


async def test_a_result_writes_the_chunks_that_it_changes_alone(harness):
    await start(harness)
    assert is_split(await harness.value(HEAD))
    before = await harness.rows(CHUNKS)
    assert len(before) == 5
    assert len({row["written"] for row in before}) == 1
    await finish(harness, "a")
    everything = await harness.rows(CHUNKS)
    assert all(old["written"] < new["written"] for old, new in zip(before, everything, strict=True))
    await finish(harness, "b")
    changed = await harness.rows(CHUNKS)
    assert changed[:4] == everything[:4]
    assert changed[4]["written"] > everything[4]["written"]
    assert (await stored(harness)).incomplete == 3
    await finish(harness, "c", "d", "e")
    await harness.until_states("success")
    assert await harness.rows(CHUNKS) == []


async def test_managers_take_turns_at_a_run(harness, monkeypatch):
    """What another manager has written is not known here: it is read from the chunks."""
    await start(harness)
    monkeypatch.setattr(load, "take_kept", lambda _: None)
    await finish(harness, *NAMES)
    await harness.until_states("success")
    assert len(await harness.tasks()) == MANY + 5


async def test_progress_that_a_daemon_of_before_wrote_is_whole(harness):
    await start(harness)
    whole = STORED_PROGRESS.encode(await stored(harness))
    await harness.rows("UPDATE run_live SET progress = $1", whole)
    await harness.rows("UPDATE progress_chunk SET progress = 'of before'")
    await finish(harness, "a")
    assert is_split(await harness.value(HEAD))
    assert (await stored(harness)).incomplete == 4
    await finish(harness, "b", "c", "d", "e")
    await harness.until_states("success")


async def test_a_cancelled_run_leaves_no_chunks(harness):
    run_id = await start(harness)
    await harness.call(CancelRun(run_id))
    await harness.until_states("cancelled")
    assert await harness.rows(CHUNKS) == []


async def test_tasks_of_a_large_run_are_cleared_while_it_runs_and_after(harness):
    run_id = await start(harness)
    await finish(harness, "a", "b")
    await harness.order("c")
    await harness.call(ClearTasks(run_id, ("b",)))
    assert (await stored(harness)).incomplete == 4
    await finish(harness, "b", "c", "d", "e")
    await harness.until_states("success")
    await harness.call(ClearTasks(run_id, ("d",), downstream=True))
    assert (await stored(harness)).incomplete == 2
    await finish(harness, "d", "e")
    await harness.until_states("success")
    assert await harness.rows(CHUNKS) == []
