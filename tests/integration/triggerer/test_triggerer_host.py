"""The host process: it dies, it blocks, it holds on to the interpreter."""

import os
import signal

import pytest

pytestmark = pytest.mark.anyio


async def test_a_killed_host_is_replaced_with_all_its_triggers(rig, source, run_triggerer):
    running = await run_triggerer()
    numbers = {label: await rig.add(label=label) for label in "abc"}
    for label in numbers:
        await source.heard(label, "started")
    before = running.host
    os.kill(before, signal.SIGKILL)
    for label in numbers:
        assert (await source.heard(label, "started", times=2))["pid"] != before
    await source.tell("b", "fire", payload=1)
    assert (await rig.told(numbers["b"])).epoch == 1


async def test_a_wait_that_fired_is_not_run_again_by_another_host(rig, source, run_triggerer):
    rig.answers = False
    running = await run_triggerer()
    number = await rig.add(label="a")
    await rig.add(label="b")
    await source.heard("a", "started")
    await source.tell("a", "fire", payload=1)
    await rig.told(number)
    os.kill(running.host, signal.SIGKILL)
    await source.heard("b", "started", times=2)
    assert source.count("a", "started") == 1
    await rig.answer(rig.fired[0])


async def test_a_trigger_that_crashes_the_host_again_and_again_fails(
    rig, source, run_triggerer, facts
):
    await run_triggerer()
    number = await rig.add(label="a")
    await rig.add(label="b")
    for times in range(1, 4):
        await source.heard("a", "started", times=times)
        await source.tell("a", "crash")
    error = (await rig.told(number)).error
    assert error.type == "TriggerCrashed"
    assert "exit code -11" in error.message
    assert "psf_test_triggers.py" in error.traceback
    await source.heard("b", "started", times=4)
    assert [each["running"] for each in facts if each["event"] == "triggerer.host_died"] == [
        [number]
    ] * 3


@pytest.mark.parametrize("how", ["block", "block_beside"])
async def test_a_trigger_that_blocks_is_named_and_gets_a_thread(
    rig, source, run_triggerer, facts, how
):
    await run_triggerer(block_seconds=0.1)
    numbers = [await rig.add(label="a", share="one"), await rig.add(label="b", share="one")]
    other = await rig.add(label="c")
    await source.heard("c", "started")
    before = (await source.heard("a", "started"))["pid"]
    await source.tell("a", how, seconds=0.6)
    assert (await source.heard("a", "started", times=2))["pid"] == before
    told = next(
        each for each in facts if each["event"] == "trigger.blocks" and each["numbers"] == numbers
    )
    assert told["trigger"] == "remote"
    assert "time.sleep(" in told["stack"]
    assert "psf_test_triggers.py" in told["stack"]
    await source.tell("a", how, seconds=2)  # now nobody minds
    await source.tell("c", "fire")
    await rig.told(other)
    await source.heard("a", "done")
    await source.tell("a", "fire")
    for number in numbers:
        await rig.told(number)
    await source.heard("a", "closed", times=2)
    assert [each.get("numbers") for each in facts].count(numbers) == 1


@pytest.mark.parametrize("how", ["spin", "hold"])
async def test_a_trigger_that_never_returns_is_stopped(rig, source, run_triggerer, facts, how):
    await run_triggerer(block_seconds=0.1, stuck_seconds=0.5)
    number = await rig.add(label="a")
    other = await rig.add(label="b")
    await source.heard("a", "started")
    await source.heard("b", "started")
    await source.tell("a", how)
    error = (await rig.told(number)).error
    assert error.type == "TriggerBlocked"
    assert "did not come back" in error.message
    assert "psf_test_triggers.py" in error.traceback
    assert not error.final
    await source.heard("b", "started", times=2)
    await source.tell("b", "fire")
    await rig.told(other)
    assert source.count("a", "started") == 1


async def test_a_watch_that_never_returns_is_started_again_apart(rig, source, run_triggerer):
    await run_triggerer(block_seconds=0.1, stuck_seconds=0.5)
    await rig.add(label="w", kind="watch")
    await source.heard("w", "started")
    await source.tell("w", "spin")
    await source.heard("w", "started", times=2)
    await source.tell("w", "block", seconds=1.5)
    await source.heard("w", "done")
    assert source.count("w", "started") == 2


async def test_a_blocking_trigger_that_is_stopped_meanwhile_does_not_come_back(
    rig, source, run_triggerer
):
    await run_triggerer(block_seconds=0.1)
    number = await rig.add(label="a")
    await source.heard("a", "started")
    await source.tell("a", "block", seconds=0.5)
    await rig.rows("DELETE FROM trigger WHERE id = $1", number)
    rig.order(number)
    await source.heard("a", "closed")
    await rig.add(label="b")
    await source.heard("b", "started")
    assert source.count("a", "started") == 1
