"""The embedded servers: starting, using and stopping them."""

import os
import signal
import stat
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import psutil
import pytest

from pubsubflow.embedded import EmbeddedServers, HomeOwner, read_owner
from pubsubflow.embedded.server_log import MAX_BYTES, ServerLog
from support.embedded import TIMEOUT_SECONDS, ended, jetstream, left_behind, next_fact, postgres

pytestmark = pytest.mark.anyio


async def test_both_servers_are_ready_on_entry(new_home):
    async with EmbeddedServers(new_home) as servers:
        async with postgres(servers) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        async with jetstream(servers) as stream:
            await stream.add_stream(name="S", subjects=["s.>"])
            assert (await stream.publish("s.a", b"x")).seq == 1


async def test_data_address_and_secrets_survive_a_restart(home):
    async with EmbeddedServers(home) as servers:
        before = servers.nats, servers.postgres
        async with postgres(servers) as connection:
            await connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
        async with jetstream(servers) as stream:
            await stream.add_stream(name="S", subjects=["s.>"])
            await stream.publish("s.a", b"x")
    async with EmbeddedServers(home) as servers:
        assert (servers.nats, servers.postgres) == before
        async with postgres(servers) as connection:
            assert await connection.fetchval("SELECT answer FROM t") == 42
        async with jetstream(servers) as stream:
            assert (await stream.stream_info("S")).state.messages == 1


async def test_servers_listen_on_loopback_and_a_private_socket_alone(home):
    async with EmbeddedServers(home) as servers:
        processes = [psutil.Process(servers.nats_pid), psutil.Process(servers.postgres_pid)]
        listening = [
            [peer.laddr.ip for peer in process.net_connections("inet") if peer.status == "LISTEN"]
            for process in processes
        ]
        assert listening == [["127.0.0.1"], []]


async def test_servers_get_no_variables_of_the_caller(home, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c no_such_setting=1")
    monkeypatch.setenv("GOMAXPROCS", "7")
    async with EmbeddedServers(home) as servers:
        nats = psutil.Process(servers.nats_pid).environ()
        assert nats.keys() == {"PATH", "LC_ALL", "TZ", "GOMAXPROCS"}
        assert nats["GOMAXPROCS"] == "1"
        assert "PGOPTIONS" not in psutil.Process(servers.postgres_pid).environ()


async def test_wrong_secrets_are_refused(home):
    async with EmbeddedServers(home) as servers:
        at = servers.postgres
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                host=at.host, user=at.user, password="wrong", database=at.database
            )
        host, _, port = servers.nats.url.removeprefix("nats://").partition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            assert (await stream.receive()).startswith(b"INFO ")
            await stream.send(b'CONNECT {"auth_token": "wrong"}\r\nPING\r\n')
            assert await stream.receive() == b"-ERR 'Authorization Violation'\r\n"


async def test_a_new_cluster_has_our_database_and_no_other(new_home):
    async with EmbeddedServers(new_home) as servers, postgres(servers) as connection:
        names = await connection.fetch("SELECT datname FROM pg_database ORDER BY datname")
        assert [each["datname"] for each in names] == ["pubsubflow", "template0", "template1"]
        assert await connection.fetchval("SELECT current_setting('scram_iterations')") == "1"
        await connection.execute("CREATE DATABASE other TEMPLATE pubsubflow")


async def test_nobody_else_can_read_the_home(new_home):
    async with EmbeddedServers(new_home):
        found = [path for path in (new_home, *new_home.rglob("*")) if not path.is_socket()]
        open_to_others = [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert len(found) > 100
    assert open_to_others == []


async def test_postgres_keeps_what_it_acknowledges(home):
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "jit": "off",
        "deadlock_timeout": "100ms",
        "TimeZone": "UTC",
        "server_encoding": "UTF8",
    }
    async with EmbeddedServers(home) as servers, postgres(servers) as connection:
        rows = await connection.fetch(
            "SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY($1)",
            list(wanted),
        )
        assert {row["name"]: row["value"] for row in rows} == wanted


async def test_a_stream_takes_more_than_a_thousand_consumers(home):
    async with EmbeddedServers(home) as servers, jetstream(servers) as stream:
        await stream.add_stream(name="S", subjects=["s.>"])
        async with anyio.create_task_group() as group:
            for number in range(1001):
                group.start_soon(
                    partial(stream.add_consumer, "S", name=f"c{number}", mem_storage=True)
                )
        assert (await stream.stream_info("S")).state.consumer_count == 1001


async def test_an_asked_for_port_is_used_and_kept(home, free_tcp_port):
    async with EmbeddedServers(home, nats_port=free_tcp_port) as servers:
        assert servers.nats.url == f"nats://127.0.0.1:{free_tcp_port}"
    async with EmbeddedServers(home) as servers:
        assert servers.nats.url == f"nats://127.0.0.1:{free_tcp_port}"


async def test_a_remembered_port_that_is_taken_is_replaced(home):
    async with EmbeddedServers(home) as servers:
        port = int(servers.nats.url.rpartition(":")[2])
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port),
        EmbeddedServers(home) as servers,
    ):
        assert servers.nats.url != f"nats://127.0.0.1:{port}"
        async with jetstream(servers) as stream:
            await stream.account_info()


async def test_a_home_of_any_length_works(tmp_path):
    home = tmp_path.joinpath(*["a-long-folder-name"] * 12)
    async with EmbeddedServers(home) as servers:
        link = Path(servers.postgres.host)
        assert len(str(link)) < 90
        assert stat.S_IMODE(link.parent.stat().st_mode) == 0o700
        async with postgres(servers) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    assert not link.parent.exists()


async def test_a_busy_client_does_not_hold_up_the_stop(home):
    async with EmbeddedServers(home) as servers:
        at = servers.postgres
        connection = await asyncpg.connect(
            host=at.host, user=at.user, password=at.password, database=at.database
        )
        async with anyio.create_task_group() as group:
            group.start_soon(_sleep_in_postgres, connection)
            async with postgres(servers) as observer:
                await _until_asleep(observer)
            group.start_soon(servers.__aexit__, None, None, None)
            with anyio.fail_after(20):
                assert await ended(servers.postgres_pid)


async def _sleep_in_postgres(connection):
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        await connection.execute("SELECT pg_sleep(600)")


async def _until_asleep(observer):
    with anyio.fail_after(TIMEOUT_SECONDS):
        while not await observer.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        ):
            await anyio.lowlevel.checkpoint()


async def test_cancelled_start_leaves_nobody_behind(new_home):
    with anyio.move_on_after(0.15):
        async with EmbeddedServers(new_home):
            await anyio.sleep_forever()
    assert not left_behind(new_home)
    assert read_owner(new_home) is None
    async with EmbeddedServers(new_home) as servers, postgres(servers) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_cancelled_body_stops_the_servers(home):
    with anyio.CancelScope() as scope:
        async with EmbeddedServers(home) as servers:
            pids = servers.nats_pid, servers.postgres_pid
            scope.cancel()
            await anyio.sleep_forever()
    assert not any(map(psutil.pid_exists, pids))


async def test_owner_tells_who_holds_the_home_and_where_it_answers(new_home):
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert read_owner(new_home) is None
    async with EmbeddedServers(new_home, now=lambda: noon) as servers:
        assert read_owner(new_home) == HomeOwner(pid=os.getpid(), started_at=noon)
        servers.announce("http://127.0.0.1:8080")
        owner = read_owner(new_home)
        assert owner
        assert owner.url == "http://127.0.0.1:8080"
    assert read_owner(new_home) is None


@pytest.mark.parametrize("name", ["nats", "postgres"])
async def test_a_killed_server_is_started_again_at_its_old_address(home, facts, name):
    async with EmbeddedServers(home) as servers, anyio.create_task_group() as group:
        stopping = anyio.Event()
        before = servers.nats, servers.postgres
        async with postgres(servers) as connection, jetstream(servers) as stream:
            await connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
            await stream.add_stream(name="S", subjects=["s.>"])
            await stream.publish("s.a", b"x")
        await group.start(servers.run, stopping)
        victim = getattr(servers, f"{name}_pid")
        os.kill(victim, signal.SIGKILL)
        died = await next_fact(facts, "embedded.server_exited")
        assert (died["server"], died["pid"], died["exit"]) == (name, victim, "SIGKILL")
        restarted = await next_fact(facts, "embedded.server_restarted")
        assert restarted["pid"] == getattr(servers, f"{name}_pid") != victim
        assert (servers.nats, servers.postgres) == before
        async with postgres(servers) as connection, jetstream(servers) as stream:
            assert await connection.fetchval("SELECT answer FROM t") == 42
            assert (await stream.stream_info("S")).state.messages == 1
        stopping.set()


async def test_postgres_is_started_again_although_a_backend_was_busy(home, facts):
    async with EmbeddedServers(home) as servers, anyio.create_task_group() as group:
        stopping = anyio.Event()
        await group.start(servers.run, stopping)
        at = servers.postgres
        connection = await asyncpg.connect(
            host=at.host, user=at.user, password=at.password, database=at.database
        )
        group.start_soon(_sleep_in_postgres, connection)
        async with postgres(servers) as observer:
            await _until_asleep(observer)
        os.kill(servers.postgres_pid, signal.SIGKILL)
        await next_fact(facts, "embedded.server_restarted")
        stopping.set()


async def test_a_server_that_keeps_dying_is_started_ever_later(home, facts):
    async with EmbeddedServers(home) as servers, anyio.create_task_group() as group:
        stopping = anyio.Event()
        await group.start(servers.run, stopping)
        pauses = []
        for _ in range(3):
            os.kill(servers.nats_pid, signal.SIGKILL)
            died_at = anyio.current_time()
            await next_fact(facts, "embedded.server_restarted")
            pauses.append(anyio.current_time() - died_at)
        assert pauses[1] >= 0.1
        assert pauses[2] >= 0.2
        stopping.set()


async def test_a_server_that_cannot_start_again_is_tried_until_it_can(home, facts):
    async with EmbeddedServers(home) as servers, anyio.create_task_group() as group:
        stopping = anyio.Event()
        await group.start(servers.run, stopping)
        store, aside = home / "nats" / "jetstream", home / "nats" / "aside"
        store.rename(aside)
        store.write_text("in the way")
        os.kill(servers.nats_pid, signal.SIGKILL)
        refusal = await next_fact(facts, "embedded.restart_failed")
        assert "NATS did not start" in refusal["error"]
        store.unlink()
        aside.rename(store)
        await next_fact(facts, "embedded.server_restarted")
        stopping.set()


async def test_a_log_is_cut_while_its_server_writes_on(tmp_path):
    journal = ServerLog(tmp_path / "server.log")
    descriptor = journal.open()
    os.write(descriptor, b"old\n" * (MAX_BYTES // 4 + 1))
    journal.rotate()
    os.write(descriptor, b"new\n")
    os.close(descriptor)
    assert journal.path.read_bytes() == b"new\n"
    assert (tmp_path / "server.log.1").stat().st_size > MAX_BYTES
