"""`await dag.atest()` does what `dag.test()` does, on the loop that runs."""

import asyncio
import sys
import threading

import anyio
import anyio.lowlevel
import pytest

from pubsubflow import DAG, task
from pubsubflow.errors import InvalidInput

pytestmark = pytest.mark.anyio


def chatty(name):
    with DAG(name) as made:

        @task
        async def says():
            print("from", name)
            await anyio.lowlevel.checkpoint()
            print("still", name)

        says()
    return made


async def test_plain_tasks_leave_the_loop_free():
    answered = threading.Event()
    with DAG("d") as made:

        @task
        def asks_a_server_on_the_loop():
            return answered.wait(10)

        asks_a_server_on_the_loop()
    async with anyio.create_task_group() as group:
        group.start_soon(_answer, answered)
        run = await made.atest()
    assert run.result("asks_a_server_on_the_loop") is True


async def test_plain_tasks_run_one_after_another():
    spans = []
    with DAG("d") as made:

        @task
        def body(x):
            spans.append(x)
            threading.Event().wait(0.005)  # long enough for another to start, were it let
            spans.append(x)

        body.expand(x=[1, 2, 3])
    await made.atest()
    assert spans == [1, 1, 2, 2, 3, 3]


async def _answer(answered):
    await anyio.wait_all_tasks_blocked()
    answered.set()


async def test_test_refuses_to_block_the_loop():
    with DAG("d") as made:
        pass
    with pytest.raises(InvalidInput, match=r"await d\.atest"):
        made.test()


async def test_runs_side_by_side_keep_their_output_apart():
    before = sys.stdout
    runs = {}

    async def keep(name):
        runs[name] = await chatty(name).atest()

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(keep, name)
    assert sys.stdout is before
    for name, run in runs.items():
        lines = [line.message for line in run.tasks["says"][0].logs]
        assert lines == [f"from {name}", f"still {name}"]


async def test_cancelling_the_test_ends_the_run():
    ended = []
    with DAG("d") as made:

        @task
        async def hangs():
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("hangs")

        hangs()
    before = sys.stdout
    with anyio.move_on_after(0.01) as scope:
        await made.atest()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await made.atest()
    assert ended == ["hangs", "hangs"]
    assert sys.stdout is before


async def test_raise_on_error():
    with DAG("d") as made:

        @task
        async def fails():
            raise LookupError("gone")

        fails()
    with pytest.raises(LookupError, match="gone"):
        await made.atest(raise_on_error=True)
