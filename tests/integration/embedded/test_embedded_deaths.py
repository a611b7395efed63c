"""The daemon dies in the worst way, and the servers with it; the next one finds all in order."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import psutil
import pytest

import pubsubflow
from pubsubflow.embedded import EmbeddedServers, nats_server, read_owner
from pubsubflow.errors import ConfigError
from support.embedded import as_ordinary_user, ended, holder, postgres

pytestmark = pytest.mark.anyio

TIED = """
import json, os, signal, sys, time
from pathlib import Path
from pubsubflow.embedded.child import Child
child = Child.spawn(["/bin/sleep", "600"], cwd=Path("/"), output=2,
                    death_signal=signal.SIGTERM, parent_death=sys.argv[1])
print(child.pid, flush=True)
time.sleep(600)
"""


async def test_servers_die_with_a_killed_daemon(home):
    async with holder(home) as daemon:
        pids = daemon.pids["nats"], daemon.pids["postgres"]
        assert read_owner(home).pid == daemon.process.pid
        await daemon.kill()
        assert await ended(*pids)
    assert read_owner(home) is None


async def test_a_successor_starts_at_once_and_finds_the_data(home):
    async with EmbeddedServers(home) as servers, postgres(servers) as connection:
        before = servers.nats, servers.postgres
        await connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    async with holder(home) as daemon:
        await daemon.kill()
        async with EmbeddedServers(home) as servers, postgres(servers) as connection:
            assert (servers.nats, servers.postgres) == before
            assert await connection.fetchval("SELECT answer FROM t") == 42


async def test_a_successor_waits_for_servers_that_are_still_dying(home):
    async with holder(home) as daemon:
        os.kill(daemon.pids["nats"], signal.SIGSTOP)  # takes no signal but SIGKILL
        await daemon.kill()
        async with anyio.create_task_group() as group:
            entered = anyio.Event()
            group.start_soon(_enter, home, entered)
            assert await ended(daemon.pids["postgres"])
            with anyio.move_on_after(0.5):
                await entered.wait()
            assert not entered.is_set()
            os.kill(daemon.pids["nats"], signal.SIGCONT)
            with anyio.fail_after(10):
                await entered.wait()


async def _enter(home, entered):
    async with EmbeddedServers(home):
        entered.set()


async def test_a_stale_pid_file_is_not_believed(home):
    async with EmbeddedServers(home):
        pass
    mine = os.getpid()  # alive, and not Postgres
    (home / "owner").write_text(json.dumps({"pid": mine, "started_at": "2026-01-01T00:00:00Z"}))
    stale = home / "postgres" / "data" / "postmaster.pid"
    stale.write_text(f"{mine}\n{stale.parent}\n1\n5432\n.\n\n1 1\nready   \n")
    assert read_owner(home) is None
    async with EmbeddedServers(home) as servers, postgres(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_first_start_that_was_killed_is_done_again(new_home):
    async with EmbeddedServers(new_home):
        pass
    (new_home / "postgres" / "data").rename(new_home / "postgres" / "data.new")
    async with EmbeddedServers(new_home) as servers, postgres(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    assert not (new_home / "postgres" / "data.new").exists()


@pytest.fixture
def running():
    """Return a function that finds children that are, or are about to be, one of some programs.

    Other tests' servers are children of this process, too, from before this test.
    """
    before = set(psutil.Process().children())

    def find(*programs):
        found = [each for each in psutil.Process().children() if each not in before]
        return [
            each
            for each in found
            if any(f"/bin/{name}" in str(each.cmdline()) for name in programs)
        ]

    return find


@pytest.mark.parametrize(
    ("program", "text"),
    [("nats-server", "NATS did not start"), ("initdb", "initdb did not start")],
)
async def test_a_process_that_dies_while_the_rest_is_imported_is_named(
    new_home, running, program, text, monkeypatch
):
    ready, killed = nats_server._is_ready, threading.Event()

    async def ready_after_the_kill(*server):  # NATS may be ready before Postgres is launched
        return killed.is_set() and await ready(*server)

    monkeypatch.setattr(nats_server, "_is_ready", ready_after_the_kill)

    def kill():
        (process,) = running(program)
        process.kill()
        killed.set()

    with pytest.raises(ConfigError, match=text):
        async with EmbeddedServers(new_home, meanwhile=kill):
            pass
    assert running("nats-server", "initdb", "postgres") == []
    async with EmbeddedServers(new_home) as servers, postgres(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_postgres_that_dies_while_the_rest_is_imported_is_named(home, running):
    def kill():
        (process,) = running("postgres")
        process.kill()

    with pytest.raises(ConfigError, match="Postgres did not start"):
        async with EmbeddedServers(home, meanwhile=kill):
            pass
    assert running("nats-server", "postgres") == []


async def test_what_fails_while_they_get_ready_stops_both(home, running):
    started = []

    def fail():
        started.extend(running("nats-server", "postgres"))
        raise LookupError("no such library")

    with pytest.raises(ExceptionGroup) as failed:
        async with EmbeddedServers(home, meanwhile=fail):
            pass
    assert failed.group_contains(LookupError, match="no such library")
    assert len(started) == 2
    assert not any(each.is_running() for each in started)
    assert read_owner(home) is None


async def test_an_ordinary_user_needs_no_root(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    prefix = as_ordinary_user()
    if prefix:
        os.chown(home, 65534, 65534)
    async with holder(home, prefix=prefix) as daemon:
        pids = daemon.pids["nats"], daemon.pids["postgres"]
        owner = home.stat().st_uid
        assert owner != 0
        assert [psutil.Process(pid).uids().real for pid in pids] == [owner, owner]
        await daemon.kill()
        assert await ended(*pids)


@pytest.mark.parametrize("mode", ["kernel", "pipe"])
async def test_the_child_of_a_killed_parent_ends(mode):
    child, parent = await _tied(mode)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    assert await ended(child)


async def _tied(mode):
    env = {**os.environ, "PYTHONPATH": str(Path(pubsubflow.__file__).parents[1])}
    parent = await anyio.open_process(
        [sys.executable, "-c", TIED, mode], env=env, stdin=subprocess.DEVNULL
    )
    return int(await parent.stdout.receive()), parent
