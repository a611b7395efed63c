"""A daemon in a child process, and commands run as a user runs them."""

import itertools
from pathlib import Path

import asyncpg
import pytest

from pubsubflow.cli.daemon_process import child_daemon
from support.command_server import CommandServer

DAGS = Path(__file__).with_name("dags")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def call():
    """Run a command in a child process; `typed` is its stdin."""
    with CommandServer() as server:
        yield server.call


@pytest.fixture(scope="session")
def daemon_home(tmp_path_factory, fresh_home):
    return fresh_home(tmp_path_factory.mktemp("cli") / "home")


@pytest.fixture(scope="session")
def daemon_url(daemon_home):
    with child_daemon(DAGS, home=daemon_home, port=0) as url:
        yield url


@pytest.fixture
def psf(daemon_url, daemon_home, call):
    """Run a command with the daemon's home folder in the environment."""

    def call_there(*arguments, **environ):
        return call(*arguments, PUBSUBFLOW_HOME=str(daemon_home), **environ)

    return call_there


@pytest.fixture
def anywhere(call):
    """Run a command without any variable set."""
    return call


@pytest.fixture
async def bare_database(servers):
    """The URL of a database without tables."""
    name = f"bare_{next(_numbers)}"
    connection = await asyncpg.connect(servers.postgres.dsn)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return servers.postgres.dsn.replace("/pubsubflow?", f"/{name}?")
