"""Real servers for tests: one NATS and Postgres for the session, a fresh database for each test."""

import asyncio
import itertools
import os
import sys
from pathlib import Path
from urllib.parse import quote

import asyncpg
import msgspec
import pytest
import structlog
from hypothesis import settings

from pubsubflow.bus import Bus, BusSettings
from pubsubflow.embedded import EmbeddedServers, PostgresAddress
from pubsubflow.store.database import Database
from pubsubflow.store.servers.settings import PostgresSettings
from support.homes import HomeTemplate, shared_folder
from support.loops import RememberingPolicy, check_loops

_numbers = itertools.count(1)
# A thousand processes are started here: they should not compile all modules each, whatever images
# of containers set.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Tasks of tests read and write folders that are of the tests' own account, also where that is root.
os.environ.setdefault("PUBSUBFLOW__WORKER__RUN_AS", "")
# Ready means here that all DAGs are known, however slow the machine.
os.environ.setdefault("PUBSUBFLOW__LOADER__SLOW_SECONDS", "30")
# A busy machine is not a failure: no test of ours is measured against a clock.
settings.register_profile("untimed", deadline=None)
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("untimed")
asyncio.set_event_loop_policy(RememberingPolicy())
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


def pytest_configure(config):
    """Generate the same examples in every `make test`, and new ones in `make soak`."""
    if config.getoption("markexpr") != "soak":
        settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Fail the test that closes what the loop, with which others go on, still listens to."""
    result = yield
    check_loops()
    return result


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """The same, of its fixtures."""
    check_loops()


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def fresh_home(tmp_path_factory):
    """Make a home that is as new; see support/homes.py."""
    template = HomeTemplate(shared_folder(tmp_path_factory.getbasetemp()))
    template.prepare()
    return template.copy


@pytest.fixture(scope="session")
def home(tmp_path_factory, fresh_home) -> Path:
    return fresh_home(tmp_path_factory.mktemp("servers") / "home")


def dsn(address: PostgresAddress, database: str | None = None) -> str:
    return (
        f"postgres://{quote(address.user)}:{quote(address.password)}@/"
        f"{database or address.database}?host={quote(address.host)}&port={address.port}"
    )


@pytest.fixture(scope="session")
async def servers(home, anyio_backend):
    async with EmbeddedServers(home) as running:
        connection = await asyncpg.connect(dsn(running.postgres))
        # Durability is what the faults' tests look at, on servers of their own.
        # Hundreds of databases, one a test, would keep autovacuum busy for nothing.
        for setting in ("fsync", "full_page_writes", "synchronous_commit", "autovacuum"):
            await connection.execute(f"ALTER SYSTEM SET {setting} = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("CREATE DATABASE template_psf TEMPLATE pubsubflow")
        await connection.close()
        yield running


@pytest.fixture
async def postgres(servers):
    """Settings for a database of the test's own, migrated."""
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(dsn(servers.postgres))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template_psf")
    finally:
        await connection.close()
    # Tests hold locks for as long as they look at what waits for them.
    return PostgresSettings(url=dsn(servers.postgres, name), lock_seconds=60)


@pytest.fixture
async def database(postgres):
    async with Database.open(postgres) as opened:
        yield opened


@pytest.fixture
async def nats(servers):
    """Settings for the session's NATS, with its streams as new."""
    settings = BusSettings(url=servers.nats.url, token=servers.nats.token)
    async with Bus.connect(settings) as connected:
        for stream in ("PSF_IN", "PSF_TASK", "PSF_EVT", "PSF_STATE"):
            await connected.request(f"$JS.API.STREAM.DELETE.{stream}", b"", 5)
    return settings


@pytest.fixture
async def bus(nats):
    async with Bus.connect(nats) as connected:
        await connected.ensure_streams()
        yield connected


@pytest.fixture
def other_bus_settings(nats):
    return msgspec.structs.replace(nats, name="other")
