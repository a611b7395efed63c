"""How a worker treats its processes, and what happens when NATS goes away."""

import anyio
import anyio.lowlevel
import anyio.to_thread
import psutil
import pytest

from pubsubflow.model.wire.heartbeat import decode_heartbeat
from pubsubflow.model.wire.messages import Outcome

pytestmark = pytest.mark.anyio

PIDS = """
import os, sys, threading, time
import anyio
import anyio.lowlevel
import anyio.to_thread
from pathlib import Path
from pubsubflow import dag, task

@dag
def pids():
    @task
    def mine():
        return str(os.getpid())

    @task
    async def mine_async():
        return str(os.getpid())

    @task
    def waits():
        print("up")
        while not Path("FOLDER", "go").exists():
            time.sleep(0.005)

    @task
    async def stray():
        def write_later():
            os.write(2, b"belongs to no task\\n")

        # A thread without the task's context, which outlives the task.
        threading.Timer(0.2, write_later).start()

    mine(), mine_async(), waits(), stray()
"""


@pytest.fixture
def dag(manager):
    return manager.load(PIDS.replace("FOLDER", str(manager.folder)))


def pid_in(result):
    return int(result.value[1:])


async def gone(pid):
    try:
        await anyio.to_thread.run_sync(psutil.Process(pid).wait, 10)
    except psutil.NoSuchProcess:
        return


@pytest.mark.parametrize("name", ["mine", "mine_async"])
async def test_a_process_stays_warm_from_task_to_task(manager, worker, dag, name):
    pids = {pid_in(await manager.run(dag, name)) for _ in range(5)}
    assert len(pids) == 1


async def test_a_process_is_replaced_after_so_many_tasks(manager, start_worker, dag):
    async with start_worker(processes=1, recycle_tasks=2):
        pids = [pid_in(await manager.run(dag, "mine")) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        await gone(pids[0])


async def test_an_idle_process_ends(manager, start_worker, dag):
    async with start_worker(warm_processes=0, idle_seconds=0, heartbeat_seconds=0.05):
        first = pid_in(await manager.run(dag, "mine"))
        await gone(first)
        assert pid_in(await manager.run(dag, "mine")) != first


async def test_a_process_that_holds_much_memory_is_replaced(manager, start_worker, dag):
    async with start_worker(max_idle_bytes=1, heartbeat_seconds=0.05):
        await gone(pid_in(await manager.run(dag, "mine")))
        assert (await manager.run(dag, "mine")).outcome == Outcome.SUCCESS


async def test_a_worker_says_that_it_lives(manager, start_worker, dag):
    beats, arrived = [], anyio.Event()

    def on_beat(message):
        beats.append(decode_heartbeat(message.data))
        if beats[-1].busy:
            arrived.set()

    async with (
        await manager.bus.subscribe("psf.hb.worker", on_beat),
        start_worker(heartbeat_seconds=0.05, async_slots=10),
    ):
        order = await manager.send(manager.order(dag, "waits"))
        with anyio.fail_after(10):
            await arrived.wait()
        (manager.folder / "go").touch()
        await manager.result(order)
    assert (beats[0].worker, beats[0].slots, beats[0].busy, beats[-1].slots) == ("w1", 12, 0, 12)


async def test_results_outlive_a_restart_of_nats(manager, worker, dag, nats_server):
    order = await manager.send(manager.order(dag, "waits"))
    await manager.until(lambda: bool(manager.texts(order)))
    nats_server.stop()
    (manager.folder / "go").touch()
    nats_server.start()
    assert (await manager.result(order)).outcome == Outcome.SUCCESS
    assert (await manager.run(dag, "mine")).outcome == Outcome.SUCCESS


async def test_what_no_task_wrote_is_in_the_daemons_log(manager, worker, dag, capsys):
    await manager.run(dag, "stray")
    text = ""
    with anyio.fail_after(10):
        while "belongs to no task" not in text:
            await anyio.lowlevel.checkpoint()
            text += capsys.readouterr().out
