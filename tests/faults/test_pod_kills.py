"""Pods and the daemon killed at random: nothing is lost, no effect is doubled, no pod is left."""

import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from pubsubflow.embedded import read_owner
from pubsubflow.executors import BEGUN
from support.kubernetes_thread import KubernetesThread

pytestmark = [pytest.mark.anyio, pytest.mark.soak]
DAGS = Path(__file__).with_name("pod_dags")
KILLS = int(os.environ.get("POD_KILLS", "100"))
ACTIVE = 6
KILLS_A_RUN = 3
HALF = 0.5
QUIET_SECONDS = 600


class Daemon:
    """A daemon that is killed and started anew on its home."""

    def __init__(self, home):
        self.home = home
        self._stack = ExitStack()

    def start(self):
        self.url = self._stack.enter_context(child_daemon(DAGS, home=self.home, port=0))

    def kill(self):
        os.kill(read_owner(self.home).pid, signal.SIGKILL)
        self._stack.close()


class Campaign:
    """Kills, and counts what it killed.

    Attributes:
        kills: Of pods, by how they were ended.
        restarts: Of the daemon.
        runs: How many were started.
    """

    def __init__(self, cluster, daemon, seed):
        self.cluster, self.daemon = cluster, daemon
        self.random = random.Random(seed)
        self.kills = {"killed": 0, "removed": 0, "evicted": 0}
        self.restarts = self.runs = 0

    def strike(self):
        """End a pod that runs, if there is one: half of the time one whose task has begun."""
        api = self.cluster.api
        found = [name for name, pod in api.items["pods"].items() if api.node.runs(pod)]
        if self.random.random() < HALF:
            found = [name for name in found if api.node.note(name) == BEGUN]
        if not found:
            return
        name = self.random.choice(found)
        kind = self.random.choices(list(self.kills), [3, 1, 1])[0]
        if kind == "killed":
            api.node.kill(name)
        elif kind == "removed":
            api.taken_from(name, "DeletionByTaintManager")
        else:
            api.node.evict(name)
        self.kills[kind] += 1

    def trouble(self):
        """Have the API break off its watches, forget, or be away for a moment."""
        api = self.cluster.api
        self.random.choice([api.cut, api.forget, lambda: api.fail("GET", "/pods", 500, 5)])()

    async def fill(self, client):
        """Start runs until so many are under way; return how many have ended."""
        states = ["running", "queued"]
        active = len([run async for run in client.runs(dag_id="work", state=states)])
        for _ in range(ACTIVE - active):
            await client.trigger("work", params={"number": self.runs})
            self.runs += 1
        return self.runs - max(active, ACTIVE)

    async def play(self):
        while sum(self.kills.values()) < KILLS:
            async with Client(self.daemon.url) as client:
                end = time.monotonic() + self.random.uniform(10, 40)
                while time.monotonic() < end and sum(self.kills.values()) < KILLS:
                    ended = await self.fill(client)
                    await anyio.sleep(self.random.uniform(0.1, 1.0))
                    # Some have to get through: what is never done is not done twice.
                    if sum(self.kills.values()) < KILLS_A_RUN * (ended + 1):
                        self.cluster.call(self.strike)
                    if self.random.random() < 0.1:
                        self.cluster.call(self.trouble)
            self.daemon.kill()
            self.daemon.start()
            self.restarts += 1


@pytest.fixture
def seed(record_property):
    found = int(os.environ.get("FAULT_SEED", time.time_ns() % 10**9))
    record_property("seed", found)
    return found


async def test_pods_and_the_daemon_are_killed_at_random(tmp_path, fresh_home, monkeypatch, seed):
    (tmp_path / "cluster").mkdir()
    with KubernetesThread.running(tmp_path / "cluster") as cluster:
        for name, text in (
            cluster.environ | {"PUBSUBFLOW__EXECUTORS__KUBERNETES__SLOTS": "4"}
        ).items():
            monkeypatch.setenv(name, text)
        daemon = Daemon(fresh_home(tmp_path / "home"))
        daemon.start()
        campaign = Campaign(cluster, daemon, seed)
        began = time.monotonic()
        try:
            await campaign.play()
            async with Client(daemon.url) as client:
                with anyio.fail_after(QUIET_SECONDS):
                    await at_rest(client, cluster.api, campaign.runs)
                await check(client, campaign.runs)
        finally:
            seconds = time.monotonic() - began
            print(
                f"seed {seed}: {campaign.runs} runs, pods {campaign.kills}, "
                f"{campaign.restarts} restarts of the daemon, {seconds:.0f} s"
            )
            daemon.kill()


async def at_rest(client, api, runs):
    """Wait until all runs have ended and nothing is left of any pod."""
    while True:
        ended = [run async for run in client.runs(state="success")]
        others = [run async for run in client.runs() if run.state != "success"]
        if len(ended) == 2 * runs and not others and not any(api.items.values()):
            return
        assert not [run for run in others if run.state in ("failed", "cancelled")]
        await anyio.sleep(0.5)


async def check(client, runs):
    """Compare every effect with plain Python."""
    for name in ("first", "second", "fanned"):
        events = [each async for each in client.events(dataset=f"pods://{name}")]
        assert sorted(each.extra["number"] for each in events) == list(range(runs)), name
        if name != "first":
            assert all(each.extra["value"] == 2 * each.extra["number"] + 1 for each in events)
    async for run in client.runs(dag_id="work"):
        number = run.params["number"]
        assert await client.task_result(run.run_id, "rest") == 2 * number + 1
        lines = [line.message async for line in client.logs(run.run_id, "double")]
        assert any(line.startswith("doubling in") for line in lines)
