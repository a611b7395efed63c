"""What async tasks may do with anyio and asyncio in the process that they share."""

import anyio
import pytest

from pubsubflow.model.wire.messages import Outcome

pytestmark = pytest.mark.anyio

FLOW = """
import asyncio
import contextvars
from pathlib import Path

import anyio
from pubsubflow import Context, dag, task

PLACE = Path("FOLDER")
mine = contextvars.ContextVar("mine", default="nothing")


async def note(name):
    (PLACE / name).touch()


@dag
def flow():
    @task
    async def groups():
        found = []

        async def child(number):
            await anyio.sleep(0)
            found.append((number, mine.get()))

        mine.set("the task's")
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child, number)
        async with asyncio.TaskGroup() as group:
            group.create_task(child(3))
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        try:
            with anyio.fail_after(0.01):
                await anyio.sleep_forever()
        except TimeoutError:
            found.append("late")
        current = anyio.get_current_task()
        assert current.id == id(asyncio.current_task())
        left = asyncio.current_task().cancelling()
        return [sorted(map(str, found)), scope.cancelled_caught, left]

    @task
    async def context_of_another():
        return mine.get()

    @task
    async def shields():
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                await note("up")
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                await note("shielded")
            await anyio.sleep(0)
            await note("after")

    @task
    async def swallows():
        await note("up")
        for _ in range(3):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                pass
        return "swallowed"

    @task
    async def fails_in_a_group():
        async def child():
            raise ValueError("of a child")

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await anyio.sleep_forever()

    groups(), context_of_another(), shields(), swallows(), fails_in_a_group()
"""


@pytest.fixture
def dag(manager):
    return manager.load(FLOW.replace("FOLDER", str(manager.folder)))


async def begun(manager, dag, name):
    order = await manager.send(manager.order(dag, name))
    with anyio.fail_after(10):
        while not (manager.folder / "up").exists():
            await anyio.lowlevel.checkpoint()
    return order


async def test_groups_scopes_and_context_variables_are_the_tasks(manager, worker, dag):
    for _ in range(2):
        result = await manager.run(dag, "groups")
        assert result.outcome is Outcome.SUCCESS, result.error
        children = [f'({number}, "the task\'s")' for number in range(4)]
        assert manager.decoded(result) == [[*children, "late"], True, 0]
        assert manager.decoded(await manager.run(dag, "context_of_another")) == "nothing"


async def test_a_cancellation_leaves_shielded_scopes_alone_and_comes_again_after_them(
    manager, worker, dag
):
    order = await begun(manager, dag, "shields")
    manager.cancel(order.run)
    assert (await manager.result(order)).outcome is Outcome.CANCELLED
    assert (manager.folder / "shielded").exists()
    assert not (manager.folder / "after").exists()


async def test_a_cancellation_that_is_swallowed_comes_again(manager, worker, dag):
    order = await begun(manager, dag, "swallows")
    manager.cancel(order.run)
    assert (await manager.result(order)).outcome is Outcome.CANCELLED
    assert manager.decoded(await manager.run(dag, "context_of_another")) == "nothing"


async def test_what_a_child_raises_fails_the_task(manager, worker, dag):
    result = await manager.run(dag, "fails_in_a_group")
    assert (result.outcome, result.error.type) == (Outcome.FAILED, "ExceptionGroup")
    assert "of a child" in result.error.traceback
