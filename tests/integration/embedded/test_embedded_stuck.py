"""Servers that run and do nothing: the watchdog finds them, and they are started again."""

import os
import shutil
import signal
import subprocess

import anyio
import anyio.lowlevel
import pytest

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.config import Config
from pubsubflow.embedded import EmbeddedServers, check_space
from pubsubflow.embedded import home as home_module
from pubsubflow.embedded.watchdog import watch_server
from pubsubflow.errors import ConfigError
from pubsubflow.processes import open_processes
from pubsubflow.roles import ROLES
from support.embedded import jetstream, next_fact, postgres

pytestmark = pytest.mark.anyio

SMALL_DISK = "1400m"
IN = "psf.in.event.0"


class Server:
    """A server that does as a test says."""

    name = "scripted"

    def __init__(self):
        self.pid = 1
        self.reachable = True
        self.reason = None
        self.ended = []
        self.changed = anyio.Event()

    async def answers(self):
        return self.reachable

    def fault(self):
        return self.reason

    async def end(self, *, hangs):
        self.ended.append(hangs)
        self.pid += 1
        self.reachable, self.reason = True, None
        self.changed.set()


@pytest.fixture
async def scripted():
    server = Server()
    stalled = [0.0]
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: watch_server(server, lambda: stalled[0], probe_seconds=0))
        yield server, stalled
        group.cancel_scope.cancel()


async def ended(server):
    with anyio.fail_after(10):
        await server.changed.wait()
    server.changed = anyio.Event()
    return server.ended[-1]


async def test_a_server_that_misses_its_probes_is_ended_by_force(scripted):
    server, _ = scripted
    server.reachable = False
    assert await ended(server)


async def test_a_server_that_has_to_start_again_is_ended_in_order(scripted):
    server, stalled = scripted
    server.reason = "its disk was full"
    assert not await ended(server)
    stalled[0] = 60.0
    assert not await ended(server)


async def test_a_server_that_starts_is_left_alone(scripted):
    server, stalled = scripted
    server.pid, server.reachable, stalled[0] = None, False, 60.0
    for _ in range(100):  # so often it could have been probed meanwhile
        await anyio.lowlevel.checkpoint()
    assert server.ended == []


@pytest.mark.parametrize("name", ["nats", "postgres"])
async def test_a_server_that_hangs_is_started_again(home, facts, name):
    async with EmbeddedServers(home) as servers, anyio.create_task_group() as group:
        stopping = anyio.Event()
        await group.start(servers.run, stopping)
        async with postgres(servers) as connection:
            await connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
        victim = getattr(servers, f"{name}_pid")
        os.kill(victim, signal.SIGSTOP)
        stuck = await next_fact(facts, "embedded.server_stuck", seconds=60)
        assert (stuck["server"], stuck["pid"]) == (name, victim)
        await next_fact(facts, "embedded.server_restarted")
        async with postgres(servers) as connection, jetstream(servers) as stream:
            assert await connection.fetchval("SELECT answer FROM t") == 42
            await stream.account_info()
        stopping.set()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a small disk of its own, which only root can mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path):
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


async def test_a_jetstream_whose_disk_was_full_stores_again(small_disk, facts):
    """It would refuse everything until it is started anew, however much space there is."""
    async with EmbeddedServers(small_disk / "home") as servers, anyio.create_task_group() as group:
        settings = BusSettings(url=servers.nats.url, token=servers.nats.token)
        async with Bus.connect(settings) as bus:
            await bus.ensure_streams()
            stopping = anyio.Event()
            servers.watch_streams(lambda: bus.stalled_seconds)
            await group.start(servers.run, stopping)
            await bus.publish_durable(IN, b"before")
            fill(small_disk / "fill")
            with anyio.move_on_after(3):
                await bus.publish_durable(IN, bytes(100_000), message_id="full")
                raise AssertionError("it was stored on a full disk")
            (small_disk / "fill").unlink()
            with anyio.fail_after(60):
                await bus.publish_durable(IN, bytes(100_000), message_id="full")
            assert bus.stalled_seconds == 0
            stats = await bus.read_consumer_stats("PSF_IN", "managers")
            assert stats.pending == 2
            await next_fact(facts, "embedded.server_stuck")
        stopping.set()


async def test_a_disk_that_is_too_small_is_named_before_anything_is_written(new_home, monkeypatch):
    usage = shutil.disk_usage(new_home.parent)._replace(free=600 << 20)
    monkeypatch.setattr(home_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError) as refused:
        async with open_processes(Config(home=new_home), roles=ROLES, dags=None, embedded=True):
            pass
    assert f"the disk of home {new_home} has 600 MiB free, and a new home needs 1024" in str(
        refused.value
    )
    assert "--home" in str(refused.value)
    assert not new_home.exists()


async def test_a_home_with_data_starts_on_little_space(home, monkeypatch):
    async with EmbeddedServers(home):
        pass
    usage = shutil.disk_usage(home)._replace(free=100 << 20)
    monkeypatch.setattr(home_module.shutil, "disk_usage", lambda _: usage)
    check_space(home)
    async with EmbeddedServers(home) as servers:
        settings = BusSettings(url=servers.nats.url, token=servers.nats.token)
        async with Bus.connect(settings) as bus:
            await bus.ensure_streams()
            await bus.publish_durable(IN, b"x")
