"""The Compose file works: its processes, with its commands and environment, run a DAG."""

import signal
import socket

import pytest

from pubsubflow.client import Client
from support.signals import Signal

pytestmark = pytest.mark.anyio
DRAIN_SECONDS = 0.3


async def test_the_services_of_the_compose_file_run_dags_and_workers_come_and_go(composed):
    composed.start_nats()
    composed.start("worker", PUBSUBFLOW__WORKER__DRAIN_SECONDS=str(DRAIN_SECONDS))
    composed.set_up()
    composed.start("daemon")
    composed.until_healthy("daemon")
    assert composed.logged("worker", "bus.streams_replicated")["replicas"] == 3
    token = (composed.home("daemon") / "admin-token").read_text(encoding="utf-8").strip()
    async with Client(f"http://127.0.0.1:{composed.port}", token=token) as client:
        run = await client.trigger("quick")
        assert (await client.wait(run, timeout_seconds=60)).state == "success"
        gate, log = composed.folder / "gate", composed.folder / "starts"
        run = await client.trigger("held", params={"gate": str(gate), "log": str(log)})
        await until_lines(log, 1)
        (worker,) = await workers_of(client)
        assert list(worker.queues) == ["default"]
        assert (worker.host, worker.pid) == (socket.gethostname(), composed.running["worker"].pid)
        assert worker.slots > 0
        assert worker.version == (await client.info()).version
        await hand_over(composed, log)
        gate.touch()
        assert (await client.wait(run, timeout_seconds=60)).state == "success"
        # It was handed back: no failure, and no attempt that counts.
        assert (await client.task(run, "hold")).attempt == 1


async def hand_over(composed, log):
    """Have a second worker start, and the first one stopped, as by a supervisor."""
    composed.start("worker", as_name="worker-2")
    first = composed.running["worker"]
    first.send_signal(signal.SIGTERM)
    await until_lines(log, 2)
    assert first.wait(30) == 0, composed.log("worker")
    # It gave back what it ran, and said goodbye: nothing waits for it to be missed.
    assert composed.logged("worker", "worker.drain_timed_out")["killed"] == 1
    assert composed.logged("worker", "worker.stopped")["announced"]


async def workers_of(client):
    """Return the workers once there are any: the next heartbeat makes one known."""

    async def read():
        return (await client.info()).workers

    return await Signal().wait_until(read, poll_seconds=0.2)


async def until_lines(path, count):
    def written():
        return path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= count

    await Signal().wait_until(written, poll_seconds=0.05)
