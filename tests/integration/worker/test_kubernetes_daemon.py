"""Pods through a real daemon: what people see of them, and what is left when they are gone."""

from pathlib import Path

import anyio.to_thread
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from support.command_server import CommandServer
from support.kubernetes_api import KubernetesApi
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("pod_dags")


@pytest.fixture
async def api(tmp_path):
    (tmp_path / "cluster").mkdir()
    async with KubernetesApi.start(tmp_path / "cluster") as api:
        yield api


@pytest.fixture
async def url(api, tmp_path, fresh_home, monkeypatch):
    for key, text in (("KUBECONFIG", api.kubeconfig), ("NAMESPACE", "jobs"), ("IMAGE", "psf:1")):
        monkeypatch.setenv(f"PUBSUBFLOW__EXECUTORS__KUBERNETES__{key}", str(text))
    # It needs nothing of the cluster to start.
    with child_daemon(DAGS, home=fresh_home(tmp_path / "home"), port=0) as url:
        yield url


@pytest.fixture
def psf(tmp_path):
    """Run a command while the event loop serves the cluster."""
    with CommandServer() as server:

        async def call(*arguments):
            home = {"PUBSUBFLOW_HOME": str(tmp_path / "home")}
            return await anyio.to_thread.run_sync(lambda: server.call(*arguments, **home))

        yield call


@pytest.fixture
async def client(url):
    async with Client(url) as client:
        yield client


def until(check):
    return Signal().wait_until(check, poll_seconds=0.05)


async def waits(client, run, task, words):
    """Wait until a task of a run says that it waits for this."""

    async def said():
        found = (await client.task(run, task)).waits_for or ""
        return found if words in found else None

    return await until(said)


async def test_pods_from_their_creation_to_their_end_as_people_see_them(api, client, psf):
    # There is no room in the quota, then none on a node, then none on its disk.
    api.quota, api.node.room, api.node.breaks = 0, 0, 1
    run = await client.trigger("jobs")
    reason = await waits(client, run, "count", "exceeded quota")
    assert reason.startswith("kubernetes: not started yet: pods ")
    assert "exceeded quota" in (await psf("runs", "show", run)).out
    assert "exceeded quota" in (await psf("runs", "explain", run)).out
    api.quota = None
    await waits(client, run, "count", "no node takes its pod: 0/1 nodes are available")
    api.node.room = None
    api.wake()

    # The second task waits for an event, and its pod is gone meanwhile.
    async def deferred():
        return (await client.task(run, "waits")).state == "deferred" and not api.items["pods"]

    await until(deferred)
    await client.emit([{"dataset": "s3://lake/news"}])
    await client.wait(run)
    tasks = {each.task_id: each async for each in client.tasks(run)}
    assert {each.state for each in tasks.values()} == {"success"}
    # What failed before its first line is no attempt.
    assert {each.attempt for each in tasks.values()} == {1}
    await api.until(lambda: api.items == {"pods": {}, "secrets": {}})
    output = await psf("tasks", "logs", run, "count")
    assert "counting" in output.out
    assert "no space left on device" in output.out
    assert "waited 42" in (await psf("tasks", "logs", run, "waits")).out

    # A run that is cancelled leaves no pod.
    run = await client.trigger("stays")

    async def begun():
        return "held" in [each.message async for each in client.logs(run, "held")]

    await until(begun)
    assert (await psf("runs", "cancel", run, "--yes")).code == 0
    await client.wait(run)
    assert (await client.task(run, "held")).state == "cancelled"
    await api.until(lambda: api.items == {"pods": {}, "secrets": {}})
