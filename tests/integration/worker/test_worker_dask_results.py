"""Results that stay in Dask: taken from there, from a copy, or missed plainly, and released."""

from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from pubsubflow.client.errors import RequestRefused
from pubsubflow.model.wire.executor_spec import ExecutorSpec
from pubsubflow.model.wire.messages import NOT_MAPPED, Outcome
from pubsubflow.model.wire.stored_results import StoredResult, decode_stored
from pubsubflow.object_store import FileStore
from pubsubflow.worker import ResultStore, ResultStoreSettings
from pubsubflow.worker.executors import kept_sweep
from pubsubflow.worker.executors.settings import load_executor
from support.dask_cluster import DaskCluster
from support.signals import TIMEOUT_SECONDS, Signal

pytestmark = pytest.mark.anyio
FOLDER = Path(__file__).with_name("dask_dags")
SIZE = 3_000_000
DAGS = f"""
from pubsubflow import dag, task
from pubsubflow.dask import Dask

def on(name):
    return Dask(workers=[name], result="dask")

@dag
def large():
    @task(executor=on("d0"))
    async def make() -> str:
        return "x" * {SIZE}

    @task(executor=on("d0"))
    def small() -> str:
        return "x" * 100

    @task(executor=on("d1"))
    def measure(text: str, other: str) -> int:
        return len(text)

    @task(executor=on("d1"))
    def part() -> list[str]:
        return ["x" * {SIZE}, "y" * 1_000]

    @task(executor=on("d0"))
    def element(text: str) -> int:
        return len(text)

    @task(executor=on("d0"))
    def taken() -> str:
        return "x" * {SIZE}

    @task
    def here(text: str) -> int:
        return len(text)

    measure(make(), small())
    element.expand(text=part())
    here(taken())
"""


@pytest.fixture(autouse=True)
def _prompt(monkeypatch):
    monkeypatch.setattr(kept_sweep, "_SECONDS", 0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with DaskCluster.start(tmp_path_factory.mktemp("dask"), workers=2, threads=2) as cluster:
        yield cluster


@pytest.fixture
def dask_worker(start_worker, cluster):
    """Run a worker that offers the cluster; what is entered is its executor."""

    @asynccontextmanager
    async def start(name, **more):
        section = {"address": cluster.address, "max_result_bytes": 4_000_000}
        offered = load_executor("dask", section)
        async with start_worker(name, executors=[offered], **more):
            yield offered.executor

    return start


async def until_kept(executor, names):
    """Wait until the cluster keeps these results alone."""
    with anyio.fail_after(TIMEOUT_SECONDS):
        while sorted(await executor.find_results()) != names:  # noqa: ASYNC110 - nothing announces it
            await anyio.sleep(0.02)


async def measured(manager, dag, stored, *, place="d1"):
    """Return the result of a task on a Dask worker that takes one that is elsewhere."""
    order = manager.order(dag, "measure", inputs={"small": "x"})
    inputs = {**order.inputs, dag.node("make"): msgspec.Raw(stored)}
    executor = ExecutorSpec("dask", {"workers": [place], "result": "dask"})
    order = msgspec.structs.replace(order, inputs=inputs, executor=executor)
    return await manager.result(await manager.send(order))


async def test_a_large_result_stays_in_dask_for_the_tasks_of_its_run(manager, dask_worker):
    dag = manager.load(DAGS)
    async with dask_worker("w1") as executor:
        made = await manager.run(dag, "make")
        reference = StoredResult(
            made.run, made.node, NOT_MAPPED, 1, 1, SIZE + 5, "dask:pubsubflow", copied=False
        )
        assert decode_stored(made.value) == reference
        found = await measured(manager, dag, made.value)
        assert (found.outcome, manager.decoded(found)) == (Outcome.SUCCESS, SIZE)
        small = await manager.run(dag, "small")
        assert manager.decoded(small) == "x" * 100
        refused = await manager.run(dag, "taken")
        assert (refused.outcome, refused.error.final) == (Outcome.FAILED, True)
        assert "give task 'here' the same executor with result='dask'" in refused.error.message
        # The runs that have ended are released, and no other.
        manager.ended_runs = {found.run, small.run, refused.run}
        await until_kept(executor, [reference.kept_name])
    # Also those of a worker before.
    async with dask_worker("w2") as executor:
        manager.ended_runs.add(made.run)
        await until_kept(executor, [])
        # A process has what it has read for a while.
        lost = await measured(manager, dag, made.value, place="d0")
    assert (lost.outcome, lost.error.type, lost.error.final) == (Outcome.FAILED, "ResultLost", True)
    assert "Clear the task that returned it" in lost.error.message


async def test_a_worker_that_is_killed_loses_results_that_have_no_copy(
    manager, dask_worker, cluster, tmp_path
):
    store = FileStore(f"file://{tmp_path}/results", setting="results.store")
    copies = ResultStoreSettings(store=f"file://{tmp_path}/results", max_bytes=5_000_000)
    dag = manager.load(DAGS)
    async with dask_worker("w1"):
        alone = await manager.run(dag, "make")
    async with dask_worker("w2", results=(ResultStore(store, 5.0), copies)) as executor:
        copied = await manager.run(dag, "make")
        assert decode_stored(copied.value).copied
        # The next one of that name: what asked for it runs again there.
        cluster.kill_worker("d0")
        cluster.start_worker("d0", threads=2)
        found = await measured(manager, dag, copied.value)
        lost = await measured(manager, dag, alone.value)
        assert manager.decoded(found) == SIZE
        assert (lost.error.type, lost.error.final) == ("ResultLost", True)
        # What keeps nothing any more is not run again by Dask, and is released as any other.
        again = await manager.run(dag, "make")
        assert again.outcome is Outcome.SUCCESS
        manager.ended_runs = {each.run for each in (alone, copied, found, lost, again)}
        await until_kept(executor, [])


async def test_a_run_takes_a_result_from_dask_and_misses_it_plainly_as_people_see_it(
    cluster, fresh_home, tmp_path, monkeypatch
):
    gate = tmp_path / "gate"
    monkeypatch.setenv("PUBSUBFLOW__EXECUTORS__DASK__ADDRESS", cluster.address)
    monkeypatch.setenv("TEST_GATE", str(gate))
    with child_daemon(FOLDER, home=fresh_home(tmp_path / "home"), port=0) as url:
        async with Client(url) as client:
            run = await client.trigger("kept")

            async def made():
                return (await client.task(run, "make")).state == "success"

            await Signal().wait_until(made, poll_seconds=0.1)
            task = await client.task(run, "make")
            shown = task.result, task.result_keeper, task.result_stored, task.result_bytes
            assert shown == (None, "dask", False, SIZE + 5)
            with pytest.raises(RequestRefused, match="it stays there for the tasks of its run"):
                await client.task_result(run, "make")
            cluster.kill_worker("d0")
            gate.touch()
            assert (await client.wait(run)).state == "failed"
            lost = await client.task(run, "measure")
            assert (lost.attempt, lost.error.type) == (1, "ResultLost")
            cluster.start_worker("d0", threads=2)
            await client.clear(run, tasks=["make"], downstream=True)
            assert (await client.wait(run)).state == "success"
            assert await client.task_result(run, "measure") == SIZE
