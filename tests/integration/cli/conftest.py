"""A daemon in a child process, and commands run as a user runs them."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from msgspec import Struct

from pubsubflow.cli.daemon_process import child_daemon

DAGS = Path(__file__).with_name("dags")
_numbers = itertools.count(1)


class Answer(Struct):
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def call(*arguments, cwd=None, typed=None, **environ):
    """Run a command in a child process; `typed` is its stdin."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PUBSUBFLOW")}
    done = subprocess.run(
        [sys.executable, "-m", "pubsubflow.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        input=typed,
        env={**kept, **environ},
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def daemon_home(tmp_path_factory):
    return tmp_path_factory.mktemp("cli") / "home"


@pytest.fixture(scope="session")
def daemon_url(daemon_home):
    with child_daemon(DAGS, home=daemon_home, port=0) as url:
        yield url


@pytest.fixture
def psf(daemon_url, daemon_home):
    """Run a command with the daemon's home folder in the environment."""

    def call_there(*arguments, **environ):
        return call(*arguments, PUBSUBFLOW_HOME=str(daemon_home), **environ)

    return call_there


@pytest.fixture
def anywhere():
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
