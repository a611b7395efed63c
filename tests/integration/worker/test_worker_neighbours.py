"""Tasks of several DAGs share a process: what one of them does costs it alone."""

import pytest

from pubsubflow.model.wire.messages import Outcome

pytestmark = pytest.mark.anyio

ODD = """
from datetime import timedelta

import anyio
from pubsubflow import Context, dag, task


class Odd(Exception):
    def __str__(self):
        return None


@dag
def odd():
    @task
    def folder():
        return ""

    @task
    async def beside(place):
        print("begin")
        while not await anyio.Path(place).exists():
            await anyio.sleep(0.01)
        print("end")

    @task
    async def surrogate(place):
        raise ValueError("row \\udcff")

    @task
    async def group(place):
        raise ExceptionGroup("many \\udcff", [ValueError(1)])

    @task
    async def no_text(place):
        raise Odd

    @task
    async def step(place, ctx: Context):
        def load():
            raise ValueError("in a step \\udcff")

        await ctx.step("load", load)

    @task
    async def label(place, ctx: Context):
        await ctx.step("load \\udcff", int)

    @task(outlets=["x://out"])
    async def partition(place, ctx: Context):
        ctx.emit("x://out", partition="\\udcff")

    @task
    async def exits(place):
        raise SystemExit(3)

    @task
    async def recurses(place):
        def deeper():
            deeper()

        deeper()

    @task
    async def logs_odd(place, ctx: Context):
        ctx.log.info("it", value=Odd())

    place = folder()
    for each in (beside, surrogate, group, no_text, step, label, partition, exits,
                 recurses, logs_odd):
        each(place)
"""


@pytest.fixture
async def beside(manager, worker, tmp_path):
    """A task in the process of the others, with a function that waits for its undisturbed end."""
    dag = manager.load(ODD)
    end = tmp_path / "end"
    order = await manager.send(manager.order(dag, "beside", inputs={"folder": str(end)}))
    await manager.until(lambda: manager.texts(order))

    async def undisturbed():
        end.touch()
        assert (await manager.result(order)).outcome == Outcome.SUCCESS
        assert manager.texts(order) == ["begin", "end"]

    return dag, undisturbed


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("surrogate", "ValueError", "row \\udcff"),
        ("group", "ExceptionGroup", "many \\udcff (1 sub-exception)"),
        ("no_text", "Odd", "<its text cannot be made: TypeError>"),
        ("step", "StepFailed", "in a step \\udcff"),
        ("label", "UnicodeEncodeError", "surrogates not allowed"),
        ("partition", "DefinitionError", "cannot be encoded"),
        ("exits", "SystemExit", "3"),
        ("recurses", "RecursionError", "maximum recursion depth exceeded"),
    ],
)
async def test_an_odd_failure_is_the_task_s_own(manager, beside, name, kind, message):
    dag, undisturbed = beside
    result = await manager.run(dag, name, inputs={"folder": ""})
    assert (result.outcome, result.error.type) == (Outcome.FAILED, kind)
    assert message in result.error.message
    await undisturbed()


async def test_a_log_call_does_not_fail_its_task(manager, beside):
    dag, undisturbed = beside
    assert (await manager.run(dag, "logs_odd", inputs={"folder": ""})).outcome == Outcome.SUCCESS
    await undisturbed()
