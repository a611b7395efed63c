"""The host process: it dies, it blocks, it holds on to the interpreter."""

import os
import signal

import psutil
import pytest

pytestmark = pytest.mark.anyio


async def test_a_killed_host_is_replaced_with_all_its_triggers(harness, source, run_triggerer):
    running = await run_triggerer()
    numbers = {label: await harness.add(label=label) for label in "abc"}
    for label in numbers:
        await source.reported(label, "started")
    before = running.host
    os.kill(before, signal.SIGKILL)
    for label in numbers:
        assert (await source.reported(label, "started", times=2))["pid"] != before
    await source.send("b", "fire", payload=1)
    assert (await harness.until_fired(numbers["b"])).epoch == 1


async def test_a_wait_that_fired_is_not_run_again_by_another_host(harness, source, run_triggerer):
    harness.answers = False
    running = await run_triggerer()
    number = await harness.add(label="a")
    await harness.add(label="b")
    await source.reported("a", "started")
    await source.send("a", "fire", payload=1)
    await harness.until_fired(number)
    os.kill(running.host, signal.SIGKILL)
    await source.reported("b", "started", times=2)
    assert source.count("a", "started") == 1
    await harness.answer(harness.fired[0])


async def test_a_trigger_that_crashes_the_host_again_and_again_fails(
    harness, source, run_triggerer, facts
):
    await run_triggerer()
    number = await harness.add(label="a")
    await harness.add(label="b")
    for times in range(1, 4):
        await source.reported("a", "started", times=times)
        await source.send("a", "crash")
    error = (await harness.until_fired(number)).error
    assert error.type == "TriggerCrashed"
    assert "exit code -11" in error.message
    assert "psf_test_triggers.py" in error.traceback
    await source.reported("b", "started", times=4)
    assert [each["running"] for each in facts if each["event"] == "triggerer.host_died"] == [
        [number]
    ] * 3


@pytest.mark.parametrize("how", ["block", "block_beside"])
async def test_a_trigger_that_blocks_is_named_and_gets_a_thread(
    harness, source, run_triggerer, facts, how
):
    await run_triggerer(block_seconds=0.1)
    numbers = [await harness.add(label="a", share="one"), await harness.add(label="b", share="one")]
    other = await harness.add(label="c")
    await source.reported("c", "started")
    before = (await source.reported("a", "started"))["pid"]
    await source.send("a", how, seconds=0.6)
    assert (await source.reported("a", "started", times=2))["pid"] == before
    blocked = next(
        each
        for each in facts
        if each["event"] == "trigger.blocked_loop" and each["trigger_ids"] == numbers
    )
    assert blocked["trigger"] == "remote"
    assert "time.sleep(" in blocked["stack"]
    assert "psf_test_triggers.py" in blocked["stack"]
    await source.send("a", how, seconds=2)  # now it blocks no other
    await source.send("c", "fire")
    await harness.until_fired(other)
    await source.reported("a", "done")
    await source.send("a", "fire")
    for number in numbers:
        await harness.until_fired(number)
    await source.reported("a", "closed", times=2)
    assert [each.get("trigger_ids") for each in facts].count(numbers) == 1


@pytest.mark.parametrize("how", ["spin", "hold"])
async def test_a_trigger_that_never_returns_is_stopped(harness, source, run_triggerer, facts, how):
    # Longer than its module is imported on a busy machine, in the process that it gets for itself.
    await run_triggerer(block_seconds=0.1, stuck_seconds=1.5)
    number = await harness.add(label="a")
    other = await harness.add(label="b")
    await source.reported("a", "started")
    await source.reported("b", "started")
    await source.send("a", how)
    error = (await harness.until_fired(number)).error
    assert error.type == "TriggerBlocked"
    assert "blocked the event loop" in error.message
    assert "psf_test_triggers.py" in error.traceback
    assert not error.final
    await source.reported("b", "started", times=2)
    await source.send("b", "fire")
    await harness.until_fired(other)
    assert source.count("a", "started") == 1


async def test_a_watch_that_never_returns_is_started_again_apart(harness, source, run_triggerer):
    await run_triggerer(block_seconds=0.1, stuck_seconds=2.5)
    await harness.add(label="w", kind="watch")
    await source.reported("w", "started")
    await source.send("w", "spin")
    await source.reported("w", "started", times=2)
    await source.send("w", "block", seconds=1.5)
    await source.reported("w", "done")
    assert source.count("w", "started") == 2


async def test_a_blocking_trigger_that_is_stopped_meanwhile_does_not_come_back(
    harness, source, run_triggerer
):
    await run_triggerer(block_seconds=0.1)
    number = await harness.add(label="a")
    await source.reported("a", "started")
    await source.send("a", "block", seconds=0.5)
    await harness.end(number)
    await source.reported("a", "closed")
    await harness.add(label="b")
    await source.reported("b", "started")
    assert source.count("a", "started") == 1


async def test_what_a_trigger_has_started_ends_with_it(harness, source, run_triggerer, facts):
    await run_triggerer()
    numbers = [await harness.add(label=label) for label in "ab"]
    pids = []
    for label in "ab":
        await source.reported(label, "started")
        await source.send(label, "start")
        pids.append((await source.reported(label, "done"))["result"])
    await source.send("a", "fire", payload=1)
    await harness.until_fired(numbers[0])
    await source.reported("a", "closed")
    await harness.until(lambda: not any(map(alive, pids[0])))
    assert all(map(alive, pids[1]))

    def said():
        return [each for each in facts if each["event"] == "trigger.children_killed"]

    (killed,) = await harness.until(said)
    assert (killed["trigger_id"], killed["processes"]) == (numbers[0], 2)


def alive(pid):
    """Return whether a process runs."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
