"""Postgres as two servers: a primary, and a synchronous standby that a script promotes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import asyncpg
import psutil
from anyio import to_thread

from pubsubflow.embedded import server_exec
from pubsubflow.embedded.binaries import find_postgres
from pubsubflow.embedded.os_account import choose_account
from support.servers import find_free_ports
from support.signals import Signal

PASSWORD = "sesame-open"
USER = DATABASE = "pubsubflow"
READY_SECONDS = 60
_SETTINGS = """
unix_socket_directories = ''
shared_buffers = '32MB'
dynamic_shared_memory_type = mmap
wal_level = replica
max_wal_senders = 4
hot_standby = on
wal_receiver_status_interval = 1
max_connections = 120
fsync = off
io_method = sync
huge_pages = off
ssl = off
"""
_ACCESS = "host all all all scram-sha-256\nhost replication all all scram-sha-256\n"


class PostgresNode:
    """One server of the pair, on a TCP port; under an account other than root. It ends with us.

    Args:
        folder: Every account must be able to reach it.
        port: Where it listens.
        host: Likewise.
        prefix: Of its command: puts it into a network of its own.
    """

    def __init__(
        self, folder: Path, port: int, *, host: str = "127.0.0.1", prefix: Sequence[str] = ()
    ):
        self.port = port
        self._host = host
        self._prefix = prefix
        self.data = folder / f"data-{port}"
        self.log = folder / f"{port}.log"
        self._account = choose_account(self.data)
        self.process: subprocess.Popen | None = None

    @property
    def address(self):
        return f"{self._host}:{self.port}"

    @property
    def dsn(self):
        return self.dsn_of(DATABASE)

    def dsn_of(self, database):
        return f"postgres://{USER}:{PASSWORD}@{self.address}/{database}"

    def create(self):
        """Make an empty cluster."""
        password = self.data.parent / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run(
            *("initdb", f"--pgdata={self.data}", f"--username={USER}", f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--no-sync", "--no-instructions", "--locale=C"),
        )
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
        (self.data / "pg_hba.conf").write_text(_ACCESS)

    def copy(self, primary: "PostgresNode"):
        """Become a standby: a base backup that follows its primary."""
        source = f"{primary.dsn_of('')}?application_name=standby"
        self._run(
            *("pg_basebackup", f"--pgdata={self.data}", f"--dbname={source}", "--no-sync"),
            *("--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf"),
        )

    def start(self):
        account = self._account
        ids = (-1, -1) if account is None else (account.uid, account.gid)
        begin = (os.getpid(), *ids, signal.SIGKILL.value, -1, find_postgres().program("postgres"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*self._prefix, sys.executable, "-I", "-S", server_exec.__file__),
                    *(*map(str, begin), "-D", self.data, "-p", str(self.port)),
                    *("-c", f"listen_addresses={self._host}"),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
            )

    async def until_ready(self):
        with anyio.fail_after(READY_SECONDS):
            while True:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    await self.fetch("SELECT 1", database="postgres")
                except (OSError, asyncpg.CannotConnectNowError):
                    await anyio.sleep(0.02)
                else:
                    return

    async def fetch(self, query: str, *arguments, database=DATABASE):
        """Run one query, on a connection of its own; return the first value."""
        connection = await asyncpg.connect(self.dsn_of(database))
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    def family(self):
        found = psutil.Process(self.process.pid)
        return [found, *found.children(recursive=True)]

    def kill(self):
        """Kill all its processes at once, as a machine that loses its power."""
        family = self.family()
        for each in family:
            each.send_signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(family, timeout=20)

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def _run(self, program, *arguments):
        subprocess.run(
            [find_postgres().program(program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
            **self._as_account(),
        )

    def _as_account(self):
        account = self._account
        if account is None:
            return {"cwd": "/"}
        return {"cwd": "/", "user": account.uid, "group": account.gid, "extra_groups": []}


class PostgresPair:
    """A primary and its standby; a context manager. Commits wait for the standby.

    Args:
        make: Makes a server, of a folder and a port.
    """

    def __init__(self, make: Callable[[Path, int], PostgresNode] = PostgresNode):
        self._folder = Path(tempfile.mkdtemp(prefix="psf-pair-"))
        self._folder.chmod(0o777)  # each account makes its own folder there
        self.primary, self.standby = (make(self._folder, port) for port in find_free_ports(2))

    @property
    def url(self):
        """The URL with both hosts, the standby first."""
        places = f"{self.standby.address},{self.primary.address}"
        return f"postgres://{USER}:{PASSWORD}@{places}/{DATABASE}"

    async def __aenter__(self):
        try:
            await to_thread.run_sync(self.primary.create)
            self.primary.start()
            await self.primary.until_ready()
            await self.primary.fetch(f"CREATE DATABASE {DATABASE}", database="postgres")
            await to_thread.run_sync(self.standby.copy, self.primary)
            self.standby.start()
            await self.standby.until_ready()
            await self.synchronise()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        for node in (self.standby, self.primary):
            node.end()
        shutil.rmtree(self._folder)

    async def synchronise(self, names: str = "*"):
        """Have commits wait for the standby; with no names they do not."""
        await self.primary.fetch(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await self.primary.fetch("SELECT pg_reload_conf()")
        query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        if names:
            await Signal().wait_until(lambda: self.primary.fetch(query), poll_seconds=0.02)

    async def fail_over(self):
        """Promote the standby of a primary that is gone: what an operator's script does."""
        assert await self.standby.fetch("SELECT pg_promote(true, 60)")
        self.primary, self.standby = self.standby, self.primary

    async def rejoin(self):
        """Make the server that was the primary the standby of the one that was promoted."""
        self.standby.end()
        await to_thread.run_sync(shutil.rmtree, self.standby.data)
        await to_thread.run_sync(self.standby.copy, self.primary)
        self.standby.start()
        await self.standby.until_ready()
        await self.synchronise()
