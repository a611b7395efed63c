"""Errors of the embedded servers: one line, with the remedy."""

import os
import shutil
from pathlib import Path

import anyio
import psutil
import pytest

from pubsubflow.embedded import EmbeddedServers, read_owner
from pubsubflow.errors import ConfigError
from support.embedded import as_ordinary_user, holder, left_behind

pytestmark = pytest.mark.anyio


async def refusal(home, **options):
    with pytest.raises(ConfigError) as caught:
        async with EmbeddedServers(home, **options):
            pass
    assert not left_behind(home)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
async def made_home(home):
    async with EmbeddedServers(home):
        pass
    return home


async def test_a_home_that_another_process_holds(home):
    async with holder(home) as daemon:
        with pytest.raises(ConfigError) as caught:
            async with EmbeddedServers(home):
                pass
        assert f"held by process {daemon.process.pid} since" in str(caught.value)
        assert f"kill {daemon.process.pid}" in str(caught.value)
        assert "--home" in str(caught.value)
        assert read_owner(home).pid == daemon.process.pid


async def test_a_home_that_this_process_holds(home):
    async with EmbeddedServers(home) as servers:
        with pytest.raises(ConfigError, match=f"held by process {os.getpid()}"):
            async with EmbeddedServers(home):
                pass
        assert psutil.pid_exists(servers.nats_pid)


async def test_a_home_of_a_newer_version(made_home):
    (made_home / "VERSION").write_text("999\n")
    assert "has layout 999" in await refusal(made_home)


async def test_a_home_whose_version_is_nonsense(made_home):
    (made_home / "VERSION").write_text("soup\n")
    assert "'soup', not a number" in await refusal(made_home)


async def test_a_home_that_is_a_file(new_home):
    new_home.write_text("")
    assert "cannot be used" in await refusal(new_home)


async def test_damaged_secrets(made_home):
    (made_home / "secrets").write_text("{}")
    assert "secrets is damaged" in await refusal(made_home)


async def test_a_home_that_cannot_be_written(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    async with holder(locked / "home", prefix=as_ordinary_user()) as daemon:
        error = (await daemon.process.stderr.receive()).decode()
    assert "is denied" in error
    assert "Traceback" not in error


async def test_a_home_of_another_user(new_home):
    new_home.mkdir()
    if prefix := as_ordinary_user():
        async with holder(new_home, prefix=prefix) as daemon:
            error = (await daemon.process.stderr.receive()).decode()
        assert "belongs to user 0" in error
    else:
        assert "belongs to user 0" in await refusal(Path("/"))


async def test_a_port_that_is_taken(home):
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        text = await refusal(home, nats_port=port)
    assert text == f"port {port} of 127.0.0.1 is taken: free it, or name another with --nats-port"


async def test_postgres_that_exits_at_once_is_quoted(made_home):
    (made_home / "postgres" / "data" / "global" / "pg_control").unlink()
    text = await refusal(made_home)
    assert "Postgres did not start (exit code 2)" in text
    assert "global/pg_control" in text
    assert "postgres.log" in text


async def test_nats_that_exits_at_once_is_quoted(made_home):
    store = made_home / "nats" / "jetstream"
    shutil.rmtree(store)
    store.write_text("in the way")
    text = await refusal(made_home)
    assert "NATS did not start (exit code 1)" in text
    assert "not a directory" in text


async def test_data_of_another_postgres(made_home):
    (made_home / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    assert "was made by PostgreSQL 9" in await refusal(made_home)


async def test_of_two_that_start_at_once_one_holds_the_home(new_home):
    pids, settled = [], anyio.Event()

    async def contend():
        async with holder(new_home) as daemon:
            pids.append(daemon.pids)
            if len(pids) == 2:
                settled.set()
            await settled.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(contend)
        group.start_soon(contend)
    assert pids.count(None) == 1
