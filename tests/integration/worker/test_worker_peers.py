"""Workers side by side, workers that stop, workers that die."""

import os
import subprocess
import sys
from collections import Counter

import anyio
import msgspec
import psutil
import pytest

from pubsubflow.model.wire.messages import Outcome
from pubsubflow.worker import WorkerSettings

pytestmark = pytest.mark.anyio

WORK = """
import os, time
import anyio
from pathlib import Path
from pubsubflow import dag, task

@dag
def work():
    @task
    def folder():
        return ""

    @task
    def quick(place):
        time.sleep(0.02)

    @task
    def until_released(place):
        print(os.getpid())
        while not Path(place, "go").exists():
            time.sleep(0.005)
        return place

    @task
    def after(place):
        return 1

    @task
    async def until_released_async(place):
        print(os.getpid())
        while not Path(place, "go").exists():
            await anyio.sleep(0.005)

    place = folder()
    quick(place)
    after(until_released(place))
    until_released_async(place)
"""


@pytest.fixture
def dag(manager):
    return manager.load(WORK)


@pytest.fixture
def go(tmp_path):
    """Release the tasks that wait."""
    return (tmp_path / "go").touch


async def until_up(manager, *orders):
    """Wait until the tasks have written their processes, and return these."""
    await manager.until(lambda: all(map(manager.texts, orders)))
    return [psutil.Process(int(manager.texts(order)[0])) for order in orders]


async def test_two_workers_share_the_work(manager, start_worker, dag):
    async with start_worker("w1"), start_worker("w2"):
        place = {"folder": ""}
        orders = [await manager.send(manager.order(dag, "quick", inputs=place)) for _ in range(60)]
        for order in orders:
            await manager.result(order)
    shares = Counter(result.worker for result in manager.results.values())
    assert shares.keys() == {"w1", "w2"}
    assert min(shares.values()) > 10


async def test_no_task_waits_behind_a_long_one_while_another_worker_is_free(
    manager, start_worker, dag, go, tmp_path
):
    place = {"folder": str(tmp_path)}
    async with start_worker("busy", processes=1, max_wait_seconds=0.1):
        long = await manager.send(manager.order(dag, "until_released", inputs=place))
        await until_up(manager, long)
        orders = [await manager.send(manager.order(dag, "quick", inputs=place)) for _ in range(4)]
        async with start_worker("free", processes=1):
            for order in orders:
                assert (await manager.result(order)).worker == "free"
        go()
        assert (await manager.result(long)).worker == "busy"
        assert (await manager.run(dag, "quick", inputs=place)).worker == "busy"


@pytest.mark.parametrize("name", ["until_released", "until_released_async"])
async def test_a_stopping_worker_drains_what_runs_and_stops_chains(
    manager, start_worker, dag, go, tmp_path, name
):
    place = {"folder": str(tmp_path)}
    async with start_worker() as worker:
        order = await manager.send(manager.order(dag, name, inputs=place, chained=True))
        await until_up(manager, order)
        worker.stop()
        await worker.draining.wait()
        go()
    result = await manager.result(order)
    assert (result.outcome, result.then) == (Outcome.SUCCESS, -1)
    await manager.until(lambda: bool(manager.gone))
    assert manager.gone[0].worker == "w1"
    assert manager.order_of_arrival[-2:] == ["result", "worker_lost"]
    assert await manager.outstanding() == 0


async def test_a_stopping_worker_gives_back_what_it_cannot_finish(
    manager, start_worker, dag, go, tmp_path
):
    place = {"folder": str(tmp_path)}
    async with start_worker("w1", processes=1, drain_seconds=0.1) as worker:
        orders = [
            await manager.send(manager.order(dag, name, inputs=place))
            for name in ("until_released", "until_released", "until_released_async")
        ]
        processes = await until_up(manager, orders[0], orders[2])
        worker.stop()
        await manager.until(lambda: bool(manager.gone))
    assert not manager.results
    assert not any(process.is_running() for process in processes)
    go()
    async with start_worker("w2", processes=1):
        for order in orders:
            result = await manager.result(order, seconds=5)
            assert (result.outcome, result.worker) == (Outcome.SUCCESS, "w2")


async def test_the_tasks_of_a_dead_worker_move_on(
    manager, start_worker, nats_server, dag, go, tmp_path
):
    place = {"folder": str(tmp_path)}
    settings = WorkerSettings(processes=1, ack_wait_seconds=2, heartbeat_seconds=0.5)
    command = [sys.executable, "-m", "support.worker_process"]
    command += [msgspec.json.encode(part).decode() for part in (nats_server.settings, settings)]
    command.append(str(tmp_path / "hosted"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as host:  # noqa: ASYNC220
        names = ("until_released", "until_released_async")
        orders = [await manager.send(manager.order(dag, name, inputs=place)) for name in names]
        runners = await until_up(manager, *orders)
        host.kill()
    for runner in runners:
        try:
            await anyio.to_thread.run_sync(runner.wait, 5)
        except psutil.NoSuchProcess:
            continue
    go()
    async with start_worker("heir", ack_wait_seconds=2, heartbeat_seconds=0.5):
        for order in orders:
            result = await manager.result(order, seconds=15)
            assert (result.outcome, result.worker) == (Outcome.SUCCESS, "heir")


async def test_a_task_longer_than_the_ack_wait_runs_once(manager, start_worker, dag, go, tmp_path):
    place = {"folder": str(tmp_path)}
    async with (
        start_worker("w1", ack_wait_seconds=1, heartbeat_seconds=0.3),
        start_worker("w2", ack_wait_seconds=1, heartbeat_seconds=0.3),
    ):
        order = await manager.send(manager.order(dag, "until_released", inputs=place))
        beats = []
        beaten = anyio.Event()

        def on_beat(message):
            beats.append(message)
            if len(beats) >= 12:
                beaten.set()

        async with await manager.bus.subscribe("psf.hb.worker", on_beat):
            with anyio.fail_after(20):
                await beaten.wait()
        await until_up(manager, order)
        assert len(manager.texts(order)) == 1
        go()
        assert (await manager.result(order)).outcome == Outcome.SUCCESS
