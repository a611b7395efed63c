"""How tasks end when they do not end by themselves."""

import os
import signal

import anyio
import psutil
import pytest

from pubsubflow.model.wire.messages import Outcome

pytestmark = pytest.mark.anyio

STUCK = """
import ctypes, os, signal, subprocess, sys, time
import anyio
from datetime import timedelta
from pubsubflow import dag, task

@dag
def stuck():
    @task
    def folder():
        return ""

    @task(timeout=timedelta(seconds=1))
    def timed_out(place):
        print("before")
        try:
            time.sleep(1000)
        finally:
            print("cleaned up")

    @task(timeout=timedelta(seconds=1))
    async def timed_out_async(place):
        print("before")
        try:
            await anyio.sleep(1000)
        finally:
            print("cleaned up")

    @task(timeout=timedelta(seconds=1))
    async def stubborn(place):
        while True:
            try:
                await anyio.sleep(1000)
            except BaseException:
                print("never")

    @task(timeout=timedelta(seconds=1))
    async def blocks(place):
        time.sleep(1000)

    @task
    def waits(place):
        child = subprocess.Popen(["sleep", "1000"])
        print(os.getpid(), child.pid)
        time.sleep(1000)

    @task
    def deaf(place):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid())
        while True:
            time.sleep(1000)

    @task
    async def waits_async(place):
        print(os.getpid())
        await anyio.sleep(1000)

    @task
    def leaves(place):
        print("last words")
        os._exit(3)

    @task
    def is_killed(place):
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def segfaults(place):
        ctypes.string_at(0)

    @task
    async def segfaults_async(place):
        ctypes.string_at(0)

    @task
    async def first(place):
        return place

    @task
    async def second(place):
        print(os.getpid())
        await anyio.sleep(1000)

    @task
    def first_sync(place):
        return place

    @task
    def second_sync(place):
        print(os.getpid())
        time.sleep(1000)

    place = folder()
    for each in (timed_out, timed_out_async, stubborn, blocks, waits, deaf, waits_async, leaves,
                 is_killed, segfaults, segfaults_async):
        each(place)
    second(first(place))
    second_sync(first_sync(place))
"""


@pytest.fixture
def dag(manager):
    return manager.load(STUCK)


async def until_up(manager, order, node=None):
    """Wait until a task has written its processes, and return them."""
    await manager.until(lambda: bool(manager.texts(order, node)))
    return [psutil.Process(int(pid)) for pid in manager.texts(order, node)[0].split()]


async def gone(process):
    try:
        await anyio.to_thread.run_sync(process.wait, 10)
    except psutil.NoSuchProcess:
        return


@pytest.mark.parametrize("name", ["timed_out", "timed_out_async"])
async def test_a_task_that_takes_too_long_fails(manager, worker, dag, name):
    order = await manager.send(manager.order(dag, name, inputs={"folder": ""}))
    result = await manager.result(order)
    assert (result.outcome, result.error.type, result.error.message, result.error.final) == (
        Outcome.FAILED,
        "TimeoutError",
        "timed out after 1 s",
        False,
    )
    lines = [line.strip() for line in STUCK.splitlines()]
    wait = {"timed_out": "time.sleep(1000)", "timed_out_async": "await anyio.sleep(1000)"}[name]
    assert result.error.traceback.startswith("Stopped here (most recent call last):")
    assert f'dags.py", line {lines.index(wait) + 1}, in {name}' in result.error.traceback
    assert 0.99 <= result.ended_at - result.started_at < 3
    assert manager.texts(order) == ["before", "cleaned up"]


async def test_a_task_that_ignores_its_end_is_left_behind(manager, worker, dag):
    beside = await manager.send(manager.order(dag, "waits_async", inputs={"folder": ""}))
    result = await manager.run(dag, "stubborn", inputs={"folder": ""})
    assert result.error.message == "timed out after 1 s"
    assert (beside.run, beside.node) not in manager.results
    manager.cancel(beside.run)
    assert (await manager.result(beside)).outcome == Outcome.CANCELLED


async def test_a_task_that_blocks_the_loop_ends_with_its_process(manager, worker, dag):
    beside = await manager.send(manager.order(dag, "waits_async", inputs={"folder": ""}))
    (runner,) = await until_up(manager, beside)
    result = await manager.run(dag, "blocks", inputs={"folder": ""})
    assert result.error.message == "timed out after 1 s"
    await gone(runner)
    await manager.until(
        lambda: len([each for each in manager.texts(beside) if each.isdigit()]) == 2
    )
    assert any("the task begins again" in each for each in manager.texts(beside))
    assert (beside.run, beside.node) not in manager.results


@pytest.mark.parametrize("name", ["waits", "deaf", "waits_async"])
async def test_cancelling_a_run_ends_its_tasks(manager, worker, dag, name):
    order = await manager.send(manager.order(dag, name, inputs={"folder": ""}))
    processes = await until_up(manager, order)
    manager.cancel(order.run)
    result = await manager.result(order)
    assert (result.outcome, result.error.message) == (Outcome.CANCELLED, "enough of it")
    if name != "waits_async":
        for process in processes:
            await gone(process)
    result = await manager.run(dag, "folder")
    assert result.outcome == Outcome.SUCCESS


async def test_calling_off_cleared_tasks_ends_them_alone(manager, worker, dag):
    place = {"folder": ""}
    cleared = await manager.send(manager.order(dag, "waits_async", inputs=place))
    other = await manager.send(manager.order(dag, "waits", inputs=place, run=cleared.run))
    await until_up(manager, cleared)
    await until_up(manager, other)
    mine = ((cleared.node, cleared.map_index),)
    manager.cancel(cleared.run, mine, cleared.delivery)  # it was handed out since
    manager.cancel(cleared.run, ((cleared.node, 7),), cleared.delivery + 1)
    manager.cancel(cleared.run, mine, cleared.delivery + 1)
    assert (await manager.result(cleared)).outcome == Outcome.CANCELLED
    assert (other.run, other.node) not in manager.results
    manager.cancel(other.run)
    assert (await manager.result(other)).outcome == Outcome.CANCELLED


async def test_cancelling_reaches_what_waits_for_a_process(manager, start_worker, dag):
    async with start_worker(processes=1):
        place = {"folder": ""}
        first = await manager.send(manager.order(dag, "waits", inputs=place))
        await until_up(manager, first)
        second = await manager.send(manager.order(dag, "waits", inputs=place, run=first.run + 100))
        await manager.bus.flush()
        manager.cancel(second.run)
        manager.cancel(first.run)
        assert (await manager.result(first)).outcome == Outcome.CANCELLED
        result = await manager.result(second, seconds=5)
        assert result.outcome == Outcome.CANCELLED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("leaves", "the runner process ended with exit code 3"),
        ("is_killed", "the runner process ended with SIGKILL"),
        ("segfaults", "the runner process ended with SIGSEGV"),
        ("segfaults_async", "the runner process ended with SIGSEGV"),
    ],
)
async def test_a_crash_costs_its_task_alone(manager, worker, dag, name, text):
    order = await manager.send(manager.order(dag, name, inputs={"folder": ""}))
    result = await manager.result(order)
    assert (result.outcome, result.error.type, result.error.message) == (
        Outcome.CRASHED,
        "Crashed",
        text,
    )
    output = "\n".join([*manager.texts(order), result.error.traceback])
    if name == "leaves":
        assert "last words" in output
    if "segfaults" in name:
        assert "Segmentation fault" in output
    assert (await manager.run(dag, "folder")).outcome == Outcome.SUCCESS


@pytest.mark.parametrize("name", ["first", "first_sync"])
async def test_a_crash_in_a_chain_is_reported_for_the_node_that_ran(manager, worker, dag, name):
    order = manager.order(dag, name, inputs={"folder": ""}, chained=True, attempt=3)
    await manager.send(order)
    (follower,) = order.chain
    (runner,) = await until_up(manager, order, follower)
    os.kill(runner.pid, signal.SIGKILL)
    result = await manager.result(order, follower)
    assert (result.outcome, result.after, result.attempt, result.delivery) == (
        Outcome.CRASHED,
        order.node,
        1,
        1,
    )
    head = manager.results[order.run, order.node]
    assert (head.outcome, head.then, head.attempt) == (Outcome.SUCCESS, follower, 3)


async def test_a_lost_zygote_costs_no_more_than_its_tasks(manager, worker, dag):
    order = await manager.send(manager.order(dag, "waits_async", inputs={"folder": ""}))
    (runner,) = await until_up(manager, order)
    os.kill(runner.ppid(), signal.SIGKILL)
    assert (await manager.result(order)).outcome == Outcome.CRASHED
    assert (await manager.run(dag, "folder")).outcome == Outcome.SUCCESS
