"""Dask: attempts on a cluster are what they are elsewhere, whatever dies there."""

import socket
import sys
from contextlib import asynccontextmanager

import anyio
import pytest

from pubsubflow.dask import Dask
from pubsubflow.executors import Attempt, AttemptLabel, CannotStart
from pubsubflow.model.wire.messages import Outcome
from pubsubflow.worker.executors.settings import load_executor
from support.dask_cluster import DaskCluster
from support.executor_conformance import TASKS, OutlivingConformance, none_outstanding, there
from support.signals import TIMEOUT_SECONDS

pytestmark = pytest.mark.anyio
ADAPTIVE = """
import sys, time
from pathlib import Path
from distributed import LocalCluster

if __name__ == "__main__":
    options = {"threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(n_workers=0, **options) as cluster:
        cluster.adapt(minimum=0, maximum=2, interval="200ms", wait_count=2)
        place = Path(sys.argv[1])
        place.with_suffix(".new").write_text(cluster.scheduler_address)
        place.with_suffix(".new").rename(place)
        time.sleep(600)
"""
LABEL = AttemptLabel("01930000-0000-7000-8000-000000000000", 7, 0, -1, 1, 1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with DaskCluster.start(tmp_path_factory.mktemp("dask"), workers=1, GPU=1) as cluster:
        yield cluster


def offered(cluster, **section):
    usual = {"slots": 20} if cluster is None else {"address": cluster.address, "slots": 20}
    return load_executor("dask", usual | section)


@asynccontextmanager
async def opened(cluster, **section):
    executor = offered(cluster, **section).executor
    await executor.open()
    try:
        yield executor
    finally:
        await executor.close()


def attempt(number, **options):
    label = AttemptLabel(LABEL.run_id, 7, 0, -1, number, 1)
    return Attempt(label, "d", "t", (), {}, Dask(**options))


class Reported(list):
    """What is reported; a test waits for it."""

    async def until(self, text):
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not any(text in each for each in self):  # noqa: ASYNC110 - a plain list
                await anyio.sleep(0.02)


async def test_what_waits_says_why_and_is_stopped_before_it_begins(cluster):
    reasons = {
        "no Dask worker has the resource FPGA=1 (of 1 worker)": {"resources": {"FPGA": 1}},
        "none of its Dask workers is there: nobody": {"workers": ["nobody"]},
    }
    async with (
        opened(cluster) as executor,
        opened(cluster, installation="other") as other,
        anyio.create_task_group() as group,
    ):
        ends = {}

        async def watch(each, said):
            ends[each.label] = await executor.watch(each.label, said.append)

        started = [attempt(number, **each) for number, each in enumerate(reasons.values(), 1)]
        for each, text in zip(started, reasons, strict=True):
            said = Reported()
            await executor.start(each)
            await executor.start(each)  # as a message that came again
            group.start_soon(watch, each, said)
            await said.until(text)
        labels = {each.label for each in started}
        assert set(await executor.find()) == labels
        assert await other.find() == []
        for each in started:
            await executor.stop(each.label, 0)
        with anyio.fail_after(TIMEOUT_SECONDS):
            while len(ends) < len(started):  # noqa: ASYNC110 - nothing announces it
                await anyio.sleep(0.02)
        assert {(each.reason, each.begun) for each in ends.values()} == {
            ("it was stopped before it began", False)
        }
        for each in started:
            await executor.remove(each.label)
            await executor.remove(each.label)
        assert await executor.find() == []


async def test_what_cannot_start_is_told_from_what_may_later(cluster):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        async with opened(cluster, addresses=[away]) as executor:
            with pytest.raises(CannotStart, match=f"{away} cannot be reached") as caught:
                await executor.start(attempt(1, address=away))
            assert caught.value.again
            with pytest.raises(CannotStart, match="add it to `addresses`") as caught:
                await executor.start(attempt(1, address="tcp://elsewhere:1"))
            assert not caught.value.again
            unreadable = attempt(2)
            await executor.start(unreadable)
            with pytest.raises(CannotStart, match="settings cannot be read here") as caught:
                await executor.watch(unreadable.label, print)
            assert caught.value.again
            await executor.remove(unreadable.label)


def load(manager, folder):
    return manager.load(TASKS.format(place=str(folder), value='"dask"', imports=""))


@pytest.mark.parametrize("alone", [True, False])
async def test_a_dask_worker_that_is_killed_costs_its_attempts_and_none_runs_twice(
    cluster, manager, start_worker, tmp_path, alone
):
    work = load(manager, tmp_path)
    async with start_worker("w1", executors=[offered(cluster)], grace_seconds=0.5):
        order = await manager.send(manager.order(work, "held"))
        await there(tmp_path, "held.[0-9]*")
        before = next(iter(cluster.workers))
        cluster.start_worker(f"{before}x", GPU=1)
        cluster.kill_worker(before, alone=alone)
        result = await manager.result(order)
        (tmp_path / "go").touch()
        after = await manager.run(work, "add")
        await none_outstanding(manager)
    assert result.outcome is Outcome.CRASHED
    assert result.error.message.startswith("the process of the attempt ended: ")
    assert len(list(tmp_path.glob("held.[0-9]*"))) == 1
    assert (after.outcome, manager.decoded(after)) == (Outcome.SUCCESS, 3)


async def test_a_scheduler_that_starts_anew_has_lost_what_ran(
    cluster, manager, start_worker, tmp_path
):
    work = load(manager, tmp_path)
    async with start_worker("w1", executors=[offered(cluster)], grace_seconds=0.5):
        order = await manager.send(manager.order(work, "held"))
        await there(tmp_path, "held.[0-9]*")
        cluster.kill_scheduler()
        cluster.start_scheduler()
        cluster.wait_for_workers()  # without a scheduler they end
        cluster.start_worker("anew", GPU=1)
        result = await manager.result(order)
        await there(tmp_path, "held.over")
        after = await manager.run(work, "add")
        await none_outstanding(manager)
    assert result.outcome in (Outcome.LOST, Outcome.CRASHED)
    assert (after.outcome, manager.decoded(after)) == (Outcome.SUCCESS, 3)
    assert len(list(tmp_path.glob("held.[0-9]*"))) == 1


@pytest.mark.soak
async def test_an_adaptive_cluster_grows_for_what_waits_and_shrinks_again(
    manager, start_worker, tmp_path
):
    work = load(manager, tmp_path)
    address = tmp_path / "address"
    adaptive = await anyio.open_process([sys.executable, "-c", ADAPTIVE, str(address)], stderr=None)
    try:
        await there(tmp_path, "address")
        section = {"address": address.read_text(), "slots": 20}
        async with start_worker("w1", executors=[load_executor("dask", section)]):
            orders = [await manager.send(manager.order(work, "held")) for _ in range(3)]
            # Two Dask workers of one slot: the third waits.
            await there(tmp_path, "held.[0-9]*", most=2)
            (tmp_path / "go").touch()
            found = [await manager.result(order) for order in orders]
            await none_outstanding(manager)
        assert {each.outcome for each in found} == {Outcome.SUCCESS}
        async with opened(None, address=address.read_text()) as executor:
            client = await executor._clusters[address.read_text()].client()
            with anyio.fail_after(TIMEOUT_SECONDS):
                while (await client.scheduler.identity())["workers"]:  # noqa: ASYNC110
                    await anyio.sleep(0.1)
    finally:
        with anyio.CancelScope(shield=True):
            adaptive.terminate()
            await adaptive.aclose()


class TestDask(OutlivingConformance):
    value = '"dask"'
    imports = "from pubsubflow.dask import Dask"
    refused = 'Dask(address="tcp://nowhere:8786")'

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster):
        self.cluster = cluster

    def offer(self, folder):  # noqa: ARG002 - the scheduler knows its own
        return [offered(self.cluster)]

    @pytest.mark.soak
    async def test_processes_that_end_otherwise_are_judged(self, manager, worker, work, tmp_path):
        # A slot for each, so that each has a Dask worker of its own.
        with DaskCluster.start(tmp_path / "dask", workers=3, threads=1) as self.cluster:
            await super().test_processes_that_end_otherwise_are_judged(
                manager, worker, work, tmp_path
            )

    async def kill(self, label, folder):  # noqa: ARG002
        """Kill the Dask worker on which it runs, and all below it."""
        async with opened(self.cluster) as executor:
            held = await executor._find(label)
            held.cluster.waiting.add(held.key)
            sight = await held.cluster.look(held.key)
        self.cluster.kill_worker(self.cluster.name_of(sight.place))
