"""Conformance of executors: what a task may rely on wherever its attempts run.

A test file has a subclass for each executor: its `offer` says what workers offer, `value` what
tasks name. The fixtures `manager` and `start_worker` are those of tests of workers.
"""

import anyio
import pytest

from pubsubflow.model.wire.messages import Outcome
from pubsubflow.model.wire.worker_requests import LeaseStatus
from support.signals import TIMEOUT_SECONDS

TASKS = """
import asyncio, os, signal, time
from datetime import timedelta
from pathlib import Path

import anyio
from pubsubflow import Context, Dataset, dag, task
{imports}

place = Path({place!r})
out = Dataset("s3://lake/out")

@dag(executor={value})
def work():
    @task(outlets=[out])
    def add(ctx: Context, a: int = 1, b: int = 2) -> int:
        print("adding")
        ctx.emit(out, extra={{"sum": a + b}})
        return a + b

    @task
    async def greet(ctx: Context) -> str:
        ctx.log.info("greeting", run=ctx.run.run_id)
        return "PUBSUBFLOW_ATTEMPT" in os.environ

    @task
    def fails():
        raise ValueError("no such customer")

    @task
    async def sleeps(ctx: Context):
        await ctx.sleep(timedelta(hours=1))

    @task
    def dies():
        os.kill(os.getpid(), signal.SIGKILL)

    @task(timeout=0.3)
    def late():
        time.sleep(60)

    @task
    async def held(name: str = "held"):
        # A process may have several.
        (place / f"{{name}}.{{id(asyncio.current_task())}}.{{os.getpid()}}").touch()
        try:
            while not (place / "go").exists():
                await anyio.sleep(0.01)
        finally:
            (place / f"{{name}}.over").touch()
        return os.getpid()

    add(), greet(), fails(), sleeps(), dies(), late(), held()
"""


class ExecutorConformance:
    """The tests; all of a class share the words of their executor.

    Attributes:
        value: The expression that tasks give as `executor=`.
        imports: What it needs.
        outlives: Whether its processes outlive the worker.
    """

    value = '"local"'
    imports = ""
    outlives = False

    def offer(self, folder):  # noqa: ARG002 - others keep there what they know
        """Return what a worker offers."""
        return []

    @pytest.fixture
    def work(self, manager, tmp_path):
        text = TASKS.format(place=str(tmp_path), value=self.value, imports=self.imports)
        return manager.load(text)

    @pytest.fixture
    def worker(self, start_worker, tmp_path):
        """Start a worker that offers the executor."""

        def start(name="w1", **settings):
            usual = {"grace_seconds": 0.5, "drain_seconds": 0.0, "processes": 8}
            return start_worker(name, executors=self.offer(tmp_path), **usual | settings)

        return start

    async def test_outcomes_output_and_events_are_those_of_the_function(
        self, manager, worker, work
    ):
        names = ["add", "greet", "fails", "sleeps", "dies", "late"]
        async with worker():
            orders = {name: await manager.send(manager.order(work, name)) for name in names}
            found = {name: await manager.result(orders[name]) for name in names}
            await manager.until(lambda: "adding" in manager.texts(orders["add"]))
            await manager.until(lambda: "greeting" in manager.texts(orders["greet"]))
            await none_outstanding(manager)
        assert {name: result.outcome for name, result in found.items()} == {
            "add": Outcome.SUCCESS,
            "greet": Outcome.SUCCESS,
            "fails": Outcome.FAILED,
            "sleeps": Outcome.DEFERRED,
            "dies": Outcome.CRASHED,
            "late": Outcome.FAILED,
        }
        assert manager.decoded(found["add"]) == 3
        assert [event.extra for event in found["add"].emits] == [{"sum": 3}]
        assert manager.decoded(found["greet"]) is False  # no task sees what its process got
        assert found["fails"].error.message == "no such customer"
        assert 'raise ValueError("no such customer")' in found["fails"].error.traceback
        assert "timed out after 0.3 s" in found["late"].error.message
        assert found["late"].over_time
        assert not manager.results.keys() - {(each.run, each.node) for each in orders.values()}

    async def test_a_task_is_cancelled_with_its_grace(self, manager, worker, work, tmp_path):
        async with worker():
            order = await manager.send(manager.order(work, "held"))
            await there(tmp_path, "held.[0-9]*")
            manager.cancel(order.run)
            assert (await manager.result(order)).outcome is Outcome.CANCELLED
            await there(tmp_path, "held.over")
            await self.none_left(tmp_path)

    async def test_an_attempt_is_found_again_after_a_restart(self, manager, worker, work, tmp_path):
        async with worker("w1"):
            order = await manager.send(manager.order(work, "held"))
            before = await there(tmp_path, "held.[0-9]*")
        assert not (tmp_path / "held.over").exists()
        async with worker("w2"):
            if not self.outlives:
                await there(tmp_path, "held.[0-9]*", apart_from=before)
            (tmp_path / "go").touch()
            result = await manager.result(order)
            await none_outstanding(manager)
        assert result.outcome is Outcome.SUCCESS
        assert (manager.decoded(result) == int(before.suffix[1:])) is self.outlives
        assert manager.order_of_arrival.count("result") == 1
        await self.none_left(tmp_path)

    async def test_a_message_that_is_void_starts_nothing(self, manager, worker, work, tmp_path):
        order = manager.order(work, "held")
        manager.leases[order.run] = LeaseStatus.VOID
        await manager.send(order)
        async with worker(takes_over=True):
            await none_outstanding(manager)
        assert not manager.results
        assert not list(tmp_path.glob("held.*"))

    async def none_left(self, folder):
        """Wait until nothing is left of any attempt."""
        for offered in self.offer(folder):
            await offered.executor.open()
            with anyio.fail_after(TIMEOUT_SECONDS):
                while await offered.executor.find():  # noqa: ASYNC110 - nothing announces it
                    await anyio.sleep(0.02)
            await offered.executor.close()


class OutlivingConformance(ExecutorConformance):
    """Further tests for executors whose processes are apart from the worker.

    Attributes:
        refused: The expression of an executor that can never start.
    """

    outlives = True
    refused = ""

    async def kill(self, label, folder):
        """Kill the process of an attempt, as a machine that is lost."""
        raise NotImplementedError

    async def test_processes_that_end_otherwise_are_judged(self, manager, worker, work, tmp_path):
        executor = self.offer(tmp_path)[0].executor
        refused = TASKS.format(place=str(tmp_path), value=self.refused, imports=self.imports)
        await executor.open()
        async with worker():
            killed, ended, orphan = [await manager.send(manager.order(work, "held")) for _ in "123"]
            never = await manager.run(manager.load(refused), "add")
            await there(tmp_path, "held.[0-9]*", most=3)
            labels = {label.run: label for label in await executor.find()}
            fences = {
                (each.run, each.node, each.map_index, each.attempt, each.delivery)
                for each in labels.values()
            }
            assert fences == {(each.run, each.node, -1, 1, 1) for each in (killed, ended, orphan)}
            await self.kill(labels[killed.run], tmp_path)
            crash = await manager.result(killed)
            await executor.stop(labels[ended.run], 5.0)
            handed_back = await manager.result(ended)
        await executor.close()
        # A run has ended while no worker was there: its message is gone, its lease is void.
        manager.leases[orphan.run] = LeaseStatus.VOID
        await manager.bus.request("$JS.API.STREAM.PURGE.PSF_TASK", b"", 5)
        assert crash.outcome is Outcome.CRASHED
        assert crash.error.message.startswith("the process of the attempt ended: ")
        assert handed_back.outcome is Outcome.LOST
        assert (never.outcome, never.error.type) == (Outcome.FAILED, "CannotStart")
        assert never.error.final
        assert never.error.message
        (tmp_path / "held.over").unlink(missing_ok=True)
        async with worker("w2"):
            await there(tmp_path, "held.over")
            await self.none_left(tmp_path)


async def there(folder, pattern, *, apart_from=None, most=1):
    """Wait until so many files of a pattern are there, and return one."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        while True:
            found = [each for each in folder.glob(pattern) if each != apart_from]
            if len(found) == most:
                return found[0]
            await anyio.sleep(0.01)


async def none_outstanding(manager):
    """Wait until all messages of tasks are acknowledged."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        while await manager.outstanding():  # noqa: ASYNC110 - nothing announces it
            await anyio.sleep(0.02)
