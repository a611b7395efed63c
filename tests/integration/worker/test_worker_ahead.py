"""Short tasks are sent to a process ahead, and nothing depends on where they waited."""

import time

import anyio
import pytest

from pubsubflow.model.wire.messages import Outcome
from pubsubflow.worker.processes import ahead as sending_ahead
from pubsubflow.worker.processes.ahead import TasksAhead
from pubsubflow.worker.processes.runner_process import RunnerProcess

pytestmark = pytest.mark.anyio

FLOW = """
import os, signal, subprocess, sys, time
from pathlib import Path
from pubsubflow import Context, dag, task

PLACE = Path("FOLDER")


def note(ctx, text="ran"):
    with (PLACE / "notes").open("a") as file:
        file.write(f"{ctx.run.run_id} {text}\\n")


def wait_for(name):
    (PLACE / "up").touch()
    while not (PLACE / name).exists():
        time.sleep(0.002)


@dag
def flow():
    @task
    def short(ctx: Context):
        note(ctx)
        return os.getpid()

    @task
    def holds(ctx: Context):
        note(ctx)
        wait_for("go")

    @task(timeout=1.0)
    def limited():
        time.sleep(0.3)

    @task
    def dies():
        wait_for("go")
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def patches():
        wait_for("go")
        time.sleep = print

    @task
    def writes(ctx: Context):
        mine = ctx.run.run_id
        print(mine, "printed")
        os.write(2, f"{mine} raw\\n".encode())
        subprocess.run(["echo", mine, "child"], check=True)
        ctx.log.info(f"{mine} record")
        sys.stdout.write(f"{mine} half a line")

    @task
    def then_writes(ctx: Context, before):
        print(ctx.run.run_id, "next")

    short(), holds(), limited(), dies(), patches()
    then_writes(writes())
"""


@pytest.fixture
def dag(manager):
    return manager.load(FLOW.replace("FOLDER", str(manager.folder)))


@pytest.fixture
def ahead(monkeypatch):
    """Count all tasks as short ones, however busy the machine is; note what is sent ahead."""
    monkeypatch.setattr(sending_ahead, "SHORT_SECONDS", 0.3)
    monkeypatch.setattr(sending_ahead, "_WEIGHT", 1.0)
    count = TasksAhead.count
    monkeypatch.setattr(TasksAhead, "count", lambda self, _: count(self, 0.0))
    found = []
    assign = RunnerProcess.assign

    def spied(self, assignment, source):
        assign(self, assignment, source)
        if self.assignments.front is not assignment:
            found.append(assignment.header.run)

    monkeypatch.setattr(RunnerProcess, "assign", spied)
    return found


@pytest.fixture
def notes(manager):
    def read(text="ran"):
        file = manager.folder / "notes"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split()[0] for line in lines if line.split()[1] == text]

    return read


async def behind(manager, dag, first, ahead, count=4, name="short"):
    """Have a task run with others behind it in its process; return the orders."""
    assert (await manager.run(dag, "short")).outcome is Outcome.SUCCESS
    front = await manager.send(manager.order(dag, first))
    orders = [await manager.send(manager.order(dag, name)) for _ in range(count)]
    with anyio.fail_after(10):
        while not {each.run for each in orders} <= set(ahead):
            await anyio.lowlevel.checkpoint()
        while first != "limited" and not (manager.folder / "up").exists():
            await anyio.lowlevel.checkpoint()
    return front, orders


def run_id(order):
    return f"run-{order.run}"


async def all_succeed(manager, orders, notes):
    for order in orders:
        assert (await manager.result(order)).outcome is Outcome.SUCCESS
    begun = notes()
    assert [begun.count(run_id(order)) for order in orders] == [1] * len(orders)


async def test_what_each_task_writes_is_its_own(manager, start_worker, dag, ahead):
    async with start_worker(processes=1):
        await manager.run(dag, "short")
        orders = [
            await manager.send(manager.order(dag, "writes", chained=number % 2 == 1))
            for number in range(24)
        ]
        for number, order in enumerate(orders):
            mine = run_id(order)
            await manager.result(order)
            texts = sorted(manager.texts(order))
            words = ("child", "half a line", "printed", "raw", "record")
            assert texts == [f"{mine} {word}" for word in words]
            if number % 2:
                node = dag.node("then_writes")
                await manager.result(order, node)
                assert manager.texts(order, node) == [f"{mine} next"]
    assert ahead


async def test_short_tasks_do_not_wait_for_a_long_one(manager, start_worker, dag, ahead, notes):
    async with start_worker(processes=2, max_wait_seconds=20):
        assert (await manager.run(dag, "short")).outcome is Outcome.SUCCESS
        long = await manager.send(manager.order(dag, "holds"))
        orders = [await manager.send(manager.order(dag, "short")) for _ in range(8)]
        await all_succeed(manager, orders, notes)
        assert (long.run, long.node) not in manager.results
        (manager.folder / "go").touch()
        await all_succeed(manager, [long], notes)


async def test_what_a_long_task_holds_up_goes_to_another_worker(
    manager, start_worker, dag, ahead, notes
):
    async with start_worker(processes=1, max_wait_seconds=0.2):
        front, orders = await behind(manager, dag, "holds", ahead)
        async with start_worker("w2", cache="other", processes=1):
            await all_succeed(manager, orders, notes)
            assert {manager.results[each.run, each.node].worker for each in orders} == {"w2"}
            (manager.folder / "go").touch()
            await all_succeed(manager, [front], notes)


async def test_a_clock_that_is_set_back_leaves_none_behind_a_long_task(
    manager, start_worker, dag, ahead, notes, monkeypatch
):
    """By the time of day the long task would be a short one for an hour."""
    now = time.time
    async with start_worker(processes=1, max_wait_seconds=0.2):
        front, orders = await behind(manager, dag, "holds", ahead)
        monkeypatch.setattr(time, "time", lambda: now() - 3600)
        async with start_worker("w2", cache="other", processes=1):
            await all_succeed(manager, orders, notes)
        (manager.folder / "go").touch()
        await all_succeed(manager, [front], notes)


async def test_a_process_that_dies_costs_the_task_that_ran(
    manager, start_worker, dag, ahead, notes
):
    async with start_worker(processes=1):
        front, orders = await behind(manager, dag, "dies", ahead)
        (manager.folder / "go").touch()
        assert (await manager.result(front)).outcome is Outcome.CRASHED
        await all_succeed(manager, orders, notes)


async def test_a_cancelled_task_takes_none_with_it(manager, start_worker, dag, ahead, notes):
    async with start_worker(processes=1):
        front, orders = await behind(manager, dag, "holds", ahead)
        manager.cancel(orders[1].run)
        result = await manager.result(orders[1])
        assert result.outcome is Outcome.CANCELLED
        manager.cancel(front.run)
        assert (await manager.result(front)).outcome is Outcome.CANCELLED
        await all_succeed(manager, [orders[0], *orders[2:]], notes)
        assert run_id(orders[1]) not in notes()


async def test_a_timeout_counts_from_the_start(manager, start_worker, dag, ahead, monkeypatch):
    monkeypatch.setattr(sending_ahead, "SHORT_SECONDS", 5.0)
    async with start_worker(processes=1):
        front, orders = await behind(manager, dag, "limited", ahead, name="limited")
        for order in (front, *orders):
            result = await manager.result(order)
            assert result.outcome is Outcome.SUCCESS
            assert result.ended_at - result.started_at < 1.0


async def test_a_drained_worker_gives_back_what_has_not_begun(
    manager, start_worker, dag, ahead, notes
):
    async with start_worker(processes=1) as first:
        front, orders = await behind(manager, dag, "holds", ahead)
        first.stop()
        async with start_worker("w2", cache="other", processes=1):
            await all_succeed(manager, orders, notes)
            assert {manager.results[each.run, each.node].worker for each in orders} == {"w2"}
            (manager.folder / "go").touch()
            await all_succeed(manager, [front], notes)
            assert manager.results[front.run, front.node].worker == "w1"


async def test_none_begins_in_a_process_that_a_task_has_changed(
    manager, start_worker, dag, ahead, notes
):
    async with start_worker(processes=1):
        before = manager.decoded(await manager.run(dag, "short"))
        front, orders = await behind(manager, dag, "patches", ahead)
        (manager.folder / "go").touch()
        assert (await manager.result(front)).outcome is Outcome.SUCCESS
        await all_succeed(manager, orders, notes)
        pids = {manager.decoded(manager.results[each.run, each.node]) for each in orders}
        assert before not in pids


async def test_a_process_is_replaced_when_it_is_due(manager, start_worker, dag, ahead, notes):
    async with start_worker(processes=1, recycle_tasks=3):
        orders = [await manager.send(manager.order(dag, "short")) for _ in range(12)]
        await all_succeed(manager, orders, notes)
        results = [manager.results[each.run, each.node] for each in orders]
        pids = [manager.decoded(each) for each in results]
        assert all(pids.count(pid) <= 3 for pid in pids)
