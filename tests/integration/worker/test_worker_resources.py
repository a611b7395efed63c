"""Tasks that declare resources: who uses more memory fails and says so; who has no room waits."""

import os

import pytest

from pubsubflow.model.wire.messages import Outcome

pytestmark = pytest.mark.anyio

HUNGRY = """
import asyncio, os, subprocess, sys, time
from pathlib import Path

from pubsubflow import Resources, dag, task

GROW = "kept = []\\nwhile True: kept.append(bytearray(b'x' * (8 << 20)))"
SMALL = Resources(memory="192MiB", cpu=1)


@dag(default_args={"resources": SMALL})
def hungry():
    @task
    def grows():
        exec(GROW)

    @task
    def child_grows():
        subprocess.run([sys.executable, "-c", GROW], start_new_session=True)

    @task
    def at_once():
        return len(bytearray(2 << 30))  # here

    @task
    async def grows_async():
        await asyncio.sleep(0)
        exec(GROW)

    @task
    def fits():
        kept = bytearray(b"x" * (64 << 20))
        return sorted(os.sched_getaffinity(0))

    @task(resources=None)
    async def beside(place):
        while not Path(place, "end").exists():
            await asyncio.sleep(0.01)
        return os.getpid()

    @task(resources=None)
    def plain():
        return "ran"

    @task
    def holds(place):
        while not Path(place, "end").exists():
            time.sleep(0.01)

    @task(resources=None)
    def place():
        return ""

    grows(), child_grows(), at_once(), grows_async(), fits(), plain()
    folder = place()
    beside(folder), holds(folder)
"""


@pytest.fixture
def dag(manager):
    return manager.load(HUNGRY)


async def test_a_task_that_uses_more_memory_fails_and_says_so(manager, start_worker, dag, tmp_path):
    async with start_worker(processes=3):
        beside = await manager.send(manager.order(dag, "beside", inputs={"place": str(tmp_path)}))
        for name in ("grows", "child_grows", "at_once", "grows_async"):
            result = await manager.run(dag, name)
            assert (result.outcome, result.error.type) == (Outcome.FAILED, "MemoryError"), name
            assert result.error.message == "used more than 192 MiB (resources.memory)", name
            assert not result.error.final
            if name == "at_once":
                assert "# here" in result.error.traceback
            else:
                assert result.peak_memory > 192 << 20, name
        result = await manager.run(dag, "fits")
        assert result.outcome is Outcome.SUCCESS
        assert len(manager.decoded(result)) == 1
        assert 64 << 20 < result.peak_memory < 192 << 20
        # A plain process serves one task after another, and each has a peak of its own.
        plain = await manager.run(dag, "plain")
        assert 0 < plain.peak_memory < 160 << 20
        # What shares the loop with nobody's hunger has noticed nothing.
        (tmp_path / "end").touch()
        assert (await manager.result(beside)).outcome is Outcome.SUCCESS


async def test_a_task_waits_for_room_and_holds_up_no_other(
    manager, start_worker, dag, tmp_path, monkeypatch
):
    # Those that wait are not offered to other workers meanwhile, which would make room as well.
    monkeypatch.setattr("pubsubflow.worker.resources.parking._PARKED_SECONDS", 600.0)
    async with start_worker(processes=2, memory="256MiB", cpu=os.cpu_count()) as worker:
        place = {"place": str(tmp_path)}
        first = await manager.send(manager.order(dag, "holds", inputs=place))
        others = [await manager.send(manager.order(dag, "fits")) for _ in range(3)]
        await manager.until(lambda: first.run in {each.run for each in manager.started})
        for _ in range(3):
            assert (await manager.run(dag, "plain")).outcome is Outcome.SUCCESS
        assert worker.resources.free_memory == 64 << 20
        assert not {other.run for other in others} & {run for run, _ in manager.results}
        (tmp_path / "end").touch()
        for order in (first, *others):
            assert (await manager.result(order, seconds=60)).outcome is Outcome.SUCCESS
