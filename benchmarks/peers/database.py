"""PostgreSQL for the peers: the same server with the same settings, fsync on, for each of them."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil

from benchmarks.peers.ports import free_port, listens
from benchmarks.peers.processes import Group
from pubsubflow.embedded.binaries import CACHE, executable_by, find_postgres
from pubsubflow.embedded.os_account import choose_account

SETTINGS = {"max_connections": "300", "shared_buffers": "256MB"}
"""What differs from PostgreSQL's defaults."""
_SHOWN = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "max_connections",
    "max_wal_size",
    "jit",
)
_READY_SECONDS = 60
_NAME = "postgres"


class Database:
    """PostgreSQL of pubsubflow's wheel on a loopback port.

    Args:
        port: Port on 127.0.0.1; user `postgres` needs no password.
        group: The server's processes.
    """

    def __init__(self, port: int, group: Group) -> None:
        self._port = port
        self._group = group

    def url(self, scheme: str = "postgresql") -> str:
        """Return the address of the database, with a scheme that a driver wants."""
        return f"{scheme}://{_NAME}:peer@127.0.0.1:{self._port}/{_NAME}"

    def processes(self) -> list[psutil.Process]:
        """Return the server and its backends."""
        return self._group.processes()


def settings_of(dsn: str | None) -> dict[str, str]:
    """Return the settings of a server that decide what a commit costs; none of no server."""
    return asyncio.run(_settings(dsn)) if dsn else {}


async def _settings(dsn: str) -> dict[str, str]:
    connection = await asyncpg.connect(dsn)
    try:
        return {name: await connection.fetchval(f"SHOW {name}") for name in _SHOWN}
    finally:
        await connection.close()


@contextmanager
def database(folder: Path) -> Iterator[Database]:
    """Run a server on new data in an existing folder, during the block."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    account, install = choose_account(data.with_suffix(".new")), find_postgres()
    user = account.uid if account else None
    if account:
        install = executable_by(account, install, CACHE)
        os.chown(data, account.uid, account.gid)
    # Started in the data folder: the account may have no access to the folders above it.
    initdb = [install.program("initdb"), "-D", ".", "--auth=trust", "--encoding=UTF8", "--no-sync"]
    initdb += [f"--username={_NAME}"]
    subprocess.run(initdb, cwd=data, user=user, check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    options = {"port": str(port), "unix_socket_directories": "", **SETTINGS}
    command = [str(install.program("postgres")), "-D", "."]
    command += [f"-c{name}={value}" for name, value in options.items()]
    group = Group(folder)
    group.start(_NAME, command, cwd=data, user=user)
    try:
        group.wait_for(lambda: listens(port), _READY_SECONDS)
        yield Database(port, group)
    finally:
        group.stop()
