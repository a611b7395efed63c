"""A daemon in a process of its own, and the command line as a user calls it."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from msgspec import Struct

from pubsubflow.cli.daemon_process import hosted_daemon

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
    """Run a command as a user does; `typed` is what comes from stdin, if anything."""
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
    with hosted_daemon(DAGS, home=daemon_home, port=0) as url:
        yield url


@pytest.fixture
def psf(daemon_url, daemon_home):
    """Call a command that finds the daemon by its home."""

    def call_there(*arguments, **environ):
        return call(*arguments, PUBSUBFLOW_HOME=str(daemon_home), **environ)

    return call_there


@pytest.fixture
def anywhere():
    """Call a command with nothing set."""
    return call


@pytest.fixture
async def bare_database(servers):
    """The address of a database without tables."""
    name = f"bare_{next(_numbers)}"
    connection = await asyncpg.connect(servers.postgres.dsn)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return servers.postgres.dsn.replace("/pubsubflow?", f"/{name}?")
