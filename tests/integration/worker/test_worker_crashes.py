"""Tasks that kill or block the process that async tasks share: only they fail, and others go on."""

import anyio
import pytest

from pubsubflow.model.wire.messages import Outcome

pytestmark = pytest.mark.anyio

RUDE = """
import asyncio, ctypes, os, signal, sys, threading, time
from datetime import timedelta

import anyio
from pubsubflow import Context, dag, task


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def forget(work):
    threading.Thread(target=work).start()


@dag
def rude():
    @task
    def folder():
        return ""

    @task
    async def beside(place):
        print(os.getpid())
        while not await anyio.Path(place, "end").exists():
            await anyio.sleep(0.01)
        print("end")

    @task
    async def quick(place):
        return os.getpid()

    @task
    async def leaves(place):
        os._exit(3)

    @task
    async def segfaults(place):
        await anyio.sleep(0.01)
        ctypes.string_at(0)

    @task
    async def killed_in_thread(place):
        await asyncio.to_thread(killed)

    @task
    async def aborts_in_callback(place):
        asyncio.get_running_loop().call_later(0.05, os.abort)
        await anyio.sleep(60)

    @task
    async def exits_beside(place):
        async def work():
            sys.exit(7)

        await asyncio.gather(work(), anyio.sleep(0.01))

    @task
    async def forks(place):
        print(os.getpid())
        if os.fork() == 0:
            return "child"
        await anyio.sleep(0.2)
        return "parent"

    @task
    def forks_sync(place):
        if os.fork() == 0:
            return "child"
        os.wait()
        return "parent"

    @task
    async def closes_files(place):
        os.closerange(3, 1000)
        await anyio.sleep(0.1)
        await asyncio.to_thread(time.sleep, 0.1)

    @task
    async def first(place):
        return place

    @task
    async def second(place):
        print(os.getpid())
        await anyio.sleep(1000)

    @task
    async def sleeps(place):
        print("before")
        await anyio.sleep(0.3)
        time.sleep(1000)

    @task
    async def spins(place):
        print("before")
        await anyio.sleep(0.3)
        while True:
            pass

    @task(timeout=timedelta(seconds=3))
    async def limited(place):
        print(os.getpid())
        while not await anyio.Path(place, "end").exists():
            await anyio.sleep(0.01)

    @task(timeout=timedelta(seconds=0.1))
    async def swallows(place):
        while True:
            try:
                await anyio.sleep(1000)
            except BaseException:
                pass

    place = folder()
    for each in (beside, quick, leaves, segfaults, killed_in_thread, aborts_in_callback,
                 exits_beside, forks, forks_sync, closes_files, sleeps, spins, limited, swallows):
        each(place)
    second(first(place))
"""


@pytest.fixture
def dag(manager):
    return manager.load(RUDE)


@pytest.fixture
def place(tmp_path):
    return {"folder": str(tmp_path)}


@pytest.fixture
def end(tmp_path):
    return (tmp_path / "end").touch


async def begin(manager, dag, name, place, **more):
    """Start a task and wait until it has written a line."""
    order = await manager.send(manager.order(dag, name, inputs=place, **more))
    await manager.until(lambda: manager.texts(order))
    return order


@pytest.mark.parametrize(
    ("name", "death"),
    [
        ("leaves", "exit code 3"),
        ("segfaults", "SIGSEGV"),
        ("killed_in_thread", "SIGKILL"),
        ("aborts_in_callback", "SIGABRT"),
    ],
)
async def test_who_kills_the_process_fails_alone(manager, worker, dag, place, end, name, death):
    order = await begin(manager, dag, "beside", place)
    result = await manager.run(dag, name, inputs=place)
    assert (result.outcome, result.error.message) == (
        Outcome.CRASHED,
        f"the runner process ended with {death}",
    )
    end()
    assert (await manager.result(order)).outcome == Outcome.SUCCESS
    first, second = (each for each in manager.texts(order) if each.isdigit())
    assert first != second
    assert any("begins again" in each for each in manager.texts(order))


async def test_who_has_killed_a_process_gets_one_of_its_own(manager, worker, dag, place, end):
    order = await begin(manager, dag, "beside", place)
    result = await manager.run(dag, "leaves", inputs=place, delivery=2, apart=True)
    assert result.outcome == Outcome.CRASHED
    end()
    assert (await manager.result(order)).outcome == Outcome.SUCCESS
    assert len([each for each in manager.texts(order) if each.isdigit()]) == 1


async def test_the_middle_of_a_chain_is_lost_and_not_crashed(manager, worker, dag, place):
    order = manager.order(dag, "first", inputs=place, chained=True)
    await manager.send(order)
    (follower,) = order.chain
    await manager.until(lambda: manager.texts(order, follower))
    assert (await manager.run(dag, "leaves", inputs=place)).outcome == Outcome.CRASHED
    result = await manager.result(order, follower)
    assert (result.outcome, result.after) == (Outcome.LOST, order.node)


async def test_a_child_of_a_sync_task_sends_no_result(manager, start_worker, dag, place):
    async with start_worker(processes=1):
        for _ in range(2):
            result = await manager.run(dag, "forks_sync", inputs=place)
            assert (result.outcome, result.value) == (Outcome.SUCCESS, b"\xa6parent")


async def test_who_closes_the_files_of_the_process_fails_alone(manager, worker, dag, place, end):
    order = await begin(manager, dag, "beside", place)
    result = await manager.run(dag, "closes_files", inputs=place)
    assert result.outcome in (Outcome.CRASHED, Outcome.FAILED)
    end()
    assert (await manager.result(order)).outcome == Outcome.SUCCESS


@pytest.mark.parametrize("name", ["exits_beside", "forks"])
async def test_neither_an_exit_nor_a_fork_leaves_the_task(manager, worker, dag, place, end, name):
    order = await begin(manager, dag, "beside", place)
    result = await manager.run(dag, name, inputs=place)
    if name == "forks":
        assert (result.outcome, result.value) == (Outcome.SUCCESS, b"\xa6parent")
    else:
        assert (result.outcome, result.error.type) == (Outcome.FAILED, "SystemExit")
    end()
    assert (await manager.result(order)).outcome == Outcome.SUCCESS
    assert len([each for each in manager.texts(order) if each.isdigit()]) == 1


@pytest.mark.parametrize("name", ["sleeps", "spins"])
async def test_who_blocks_the_loop_is_named_and_the_rest_moves(
    manager, worker, dag, place, end, name
):
    blocking = await begin(manager, dag, name, place)
    await anyio.sleep(0.5)
    result = await manager.run(dag, "quick", inputs=place, seconds=5)
    assert result.outcome == Outcome.SUCCESS
    await manager.until(lambda: len(manager.lines(blocking)) > 1)
    found = manager.lines(blocking)[1]
    line = next(
        number
        for number, text in enumerate(RUDE.splitlines(), 1)
        if text.strip() == {"sleeps": "time.sleep(1000)", "spins": "pass"}[name]
    )
    assert "this task blocks the event loop" in found["m"]
    places = [f"dags.py:{line} in {name}", f"dags.py:{line - 1} in {name}"]
    assert any(each in found["m"] for each in places)
    manager.cancel(blocking.run)
    assert (await manager.result(blocking)).outcome == Outcome.CANCELLED


async def test_a_time_out_that_another_task_has_caused_does_not_count(
    manager, worker, dag, place, end
):
    order = await begin(manager, dag, "limited", place)
    blocking = await begin(manager, dag, "sleeps", place)
    await manager.until(lambda: len([each for each in manager.texts(order) if each.isdigit()]) == 2)
    end()
    assert (await manager.result(order)).outcome == Outcome.SUCCESS
    # The one that blocks begins again, too: apart.
    await manager.until(lambda: manager.texts(blocking).count("before") == 2)
    manager.cancel(blocking.run)
    assert (await manager.result(blocking)).outcome == Outcome.CANCELLED


async def test_a_process_with_a_task_that_does_not_stop_is_replaced(manager, worker, dag, place):
    before = await manager.run(dag, "quick", inputs=place)
    result = await manager.run(dag, "swallows", inputs=place)
    assert result.error.message == "timed out after 0.1 s"
    after = await manager.run(dag, "quick", inputs=place)
    assert after.value != before.value
