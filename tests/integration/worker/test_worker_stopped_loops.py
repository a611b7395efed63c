"""Processes whose loops stand still, and go on: what they gave up runs once all the same."""

import os
import signal
from collections import Counter

import anyio
import pytest

from pubsubflow.model.wire.messages import Outcome
from pubsubflow.worker.assignment import AttemptOutcome
from pubsubflow.worker.processes import runner_set, watchdog

pytestmark = pytest.mark.anyio

CHAINS, STOPS = 30, 8
WORK = """
import os
from pathlib import Path
from pubsubflow import Context, dag, task


def note(ctx):
    descriptor = os.open({notes!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{{ctx.run.run_id}} {{ctx.task.task_id}}\\n".encode())
    os.close(descriptor)


@dag
def work():
    @task
    async def first(ctx: Context):
        note(ctx)

    @task
    async def second(value, ctx: Context):
        note(ctx)

    @task
    async def third(value, ctx: Context):
        note(ctx)

    third(second(first()))
"""


async def test_what_goes_back_to_the_process_that_gave_it_up_runs_once(
    manager, start_worker, tmp_path, monkeypatch
):
    """Loops that have read their tasks and begun none, again and again, as on a busy machine."""
    monkeypatch.setattr(watchdog, "BLOCK_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(runner_set, "_MAX_ASYNC_RUNNERS", 1)
    notes = tmp_path / "notes"
    dag = manager.load(WORK.format(notes=str(notes)))
    async with start_worker() as worker:
        await manager.run(dag, "first", chained=True)
        (runner,) = worker._pools["async"]._runners.all
        orders = [manager.order(dag, "first", chained=True) for _ in range(CHAINS)]
        for number in range(STOPS):
            os.kill(runner.pid, signal.SIGSTOP)
            for order in orders[number::STOPS]:
                await manager.send(order)
            while not runner.blocked:  # noqa: ASYNC110 - of another process
                await anyio.sleep(0.001)
            # It reads what it was sent, and may begin some of it.
            os.kill(runner.pid, signal.SIGCONT)
            while runner.blocked:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        for order in orders:
            await manager.result(order, dag.node("third"))
    counted = Counter(notes.read_text().splitlines())
    assert len(counted) == 3 * (CHAINS + 1)
    assert set(counted.values()) == {1}
    assert manager.order_of_arrival.count("result") == 3 * (CHAINS + 1)


async def test_what_is_cancelled_before_it_begins_on_a_stopped_loop_begins_nowhere(
    manager, start_worker, tmp_path, monkeypatch
):
    monkeypatch.setattr(watchdog, "BLOCK_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "_CHECK_SECONDS", 0.01)
    notes = tmp_path / "notes"
    dag = manager.load(WORK.format(notes=str(notes)))
    # Only the watchdog gives the task up: the time after which the process is killed is not over.
    async with start_worker(started_seconds=0.05, grace_seconds=30.0) as worker:
        await manager.run(dag, "first")
        pool = worker._pools["async"]
        (runner,) = pool._runners.all
        os.kill(runner.pid, signal.SIGSTOP)
        order = await manager.send(manager.order(dag, "first"))
        with anyio.fail_after(10):
            while not runner.assignments:
                await anyio.lowlevel.checkpoint()
        pool.stop(runner.assignments.front, AttemptOutcome(Outcome.CANCELLED))
        assert (await manager.result(order)).outcome is Outcome.CANCELLED
        assert pool.runners == 1
        os.kill(runner.pid, signal.SIGCONT)
        await manager.run(dag, "first")
    assert f"run-{order.run}" not in notes.read_text()
