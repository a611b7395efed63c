"""A crash of Postgres right after the witness was published: nothing was restored."""

import os
import signal

import anyio
import pytest

from pubsubflow.bus import STREAM_STATE, Bus, BusSettings, read_last
from pubsubflow.embedded import EmbeddedServers
from pubsubflow.errors import Unavailable
from pubsubflow.manager.epochs import EpochGuard
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.database import Database
from pubsubflow.store.migrate import migrate
from pubsubflow.store.servers.settings import PostgresSettings

pytestmark = pytest.mark.anyio

WRITE = "SELECT pg_logical_emit_message(true, 'test', '')"


async def check_again(guard, database):
    """Compare the database with the witness, once it is back."""
    while True:
        try:
            async with database.connection() as connection:
                await guard.check(connection)
            if guard.checked:
                return
        except Unavailable:
            await anyio.sleep(0.02)


async def test_numbers_that_a_crash_takes_back_are_no_restore(tmp_path, fresh_home):
    """Those of heartbeats, whose commits wait for no disk, and of what was under way."""
    home = fresh_home(tmp_path / "home")
    async with EmbeddedServers(home) as servers, anyio.create_task_group() as group:
        await group.start(servers.run, anyio.Event())
        nats = BusSettings(url=servers.nats.url, token=servers.nats.token)
        url = servers.postgres.dsn
        async with Bus.connect(nats) as bus, Database.open(PostgresSettings(url=url)) as database:
            await bus.ensure_streams()
            await migrate(database)
            guard = EpochGuard(bus)
            try:
                async with database.connection() as under_way, database.connection() as connection:
                    await guard.check(connection)
                    await connection.execute("SET synchronous_commit = off")
                    for _ in range(20):
                        await connection.execute(WRITE)
                    await under_way.execute("BEGIN")
                    await under_way.execute(WRITE)
                    await connection.execute("RESET synchronous_commit")
                    await guard.testify(connection)
                    await bus.flush()
                    os.kill(servers.postgres_pid, signal.SIGKILL)
            except Unavailable:
                pass
            assert await read_last(bus, STREAM_STATE, Subjects.WITNESS) is not None
            with anyio.fail_after(60):
                await check_again(guard, database)
            assert guard.number == 0
        group.cancel_scope.cancel()
