"""Tasks of several DAGs share a process: what one of them does costs it alone."""

import pytest

from pubsubflow.model.wire.messages import Outcome

pytestmark = pytest.mark.anyio

ODD = """
import asyncio, logging, os, subprocess
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

    @task
    async def speaks(place):
        name = place
        log = logging.getLogger("acme")
        log.debug("%s debug", name)
        log.info("%s info", name)
        print(name, "\\u2028", "one line")
        child = await asyncio.create_subprocess_exec("echo", f"{name} exec")
        await asyncio.sleep(0.05)
        await child.wait()
        child = await asyncio.create_subprocess_shell(f"echo {name} shell >&2")
        await child.wait()
        await anyio.run_process(["echo", "captured"])
        subprocess.run(["echo", f"{name} run"])
        subprocess.run(["seq", "20000"], stdout=subprocess.DEVNULL)
        subprocess.run(["sh", "-c", "yes | head -c 100000"])
        os.system(f"echo {name} system")
        os.write(1, f"{name} raw\\n".encode())
        await asyncio.to_thread(os.write, 2, f"{name} thread\\n".encode())

    @task
    def speaks_sync(place):
        log = logging.getLogger("acme")
        log.info("%s info", place)
        log.error("%s error", place)
        logging.basicConfig(format="mine %(message)s")
        log.info("%s", place)

    @task
    async def floods(place):
        for number in range(100_000):
            print("x" * 100)

    place = folder()
    for each in (beside, surrogate, group, no_text, step, label, partition, exits,
                 recurses, logs_odd, speaks, speaks_sync, floods):
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


async def test_what_a_task_logs_and_its_children_write_is_in_its_log(manager, beside):
    dag, undisturbed = beside
    orders = [
        await manager.send(manager.order(dag, "speaks", inputs={"folder": name}))
        for name in ("one", "two", "three")
    ]
    for order, name in zip(orders, ("one", "two", "three"), strict=True):
        assert (await manager.result(order)).outcome == Outcome.SUCCESS
        lines = [line for line in manager.lines(order) if line["m"] != "y"]
        texts = [line["m"] for line in lines if line["s"] != "stderr" or name in line["m"]]
        assert texts[0] == f"{name} info"
        assert (lines[0]["s"], lines[0]["level"], lines[0]["logger"]) == ("log", "info", "acme")
        assert set(texts[1:]) == {
            f"{name} {what}"
            for what in ("\u2028 one line", "exec", "shell", "run", "system", "raw", "thread")
        }
        assert sum(line["m"] == "y" for line in manager.lines(order)) == 50_000
    await undisturbed()


async def test_records_of_logging_are_in_the_log_of_a_sync_task(manager, worker, tmp_path):
    dag = manager.load(ODD)
    order = await manager.send(manager.order(dag, "speaks_sync", inputs={"folder": "it"}))
    await manager.result(order)
    found = [(line["s"], line.get("level"), line["m"]) for line in manager.lines(order)]
    assert found == [
        ("log", "info", "it info"),
        ("log", "error", "it error"),
        ("stderr", None, "mine it"),
    ]


async def test_a_flood_of_output_is_cut(manager, start_worker):
    dag = manager.load(ODD)
    async with start_worker(max_log_bytes=100_000):
        order = await manager.send(manager.order(dag, "floods", inputs={"folder": ""}))
        assert (await manager.result(order)).outcome == Outcome.SUCCESS
        lines = manager.lines(order)
    assert "truncated" in lines[-1]["m"]
    assert len(lines) < 2_000
