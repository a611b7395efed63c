"""Both servers on one home, as the daemon sees them."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.embedded.binaries import CACHE
from pubsubflow.embedded.child import describe_exit
from pubsubflow.embedded.home import Home, HomeOwner
from pubsubflow.embedded.nats_server import NatsAddress, NatsServer
from pubsubflow.embedded.postgres_server import PostgresAddress, PostgresServer
from pubsubflow.errors import ConfigError

log = structlog.get_logger(__name__)

_LONG_LIFE_SECONDS = 30.0  # a server that lived so long had no trouble of its own
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_UPKEEP_SECONDS = 60.0
_STOP_SECONDS = 20.0  # above what a server's own limits add up to

_T = TypeVar("_T")


class _Server(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    async def start(self) -> None: ...

    async def wait(self) -> int: ...

    async def stop(self) -> None: ...

    def upkeep(self) -> None: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


class EmbeddedServers:
    """NATS and Postgres of one home: started on entry, stopped on exit.

    ::

        async with EmbeddedServers(home) as servers:
            await group.start(servers.run, stopping)
            connect(servers.nats.url, servers.nats.token)

    Enter it on the daemon's main thread: the servers die with the thread that started them.

    Args:
        home: The folder that holds everything; made when missing.
        nats_port: Port for NATS; when None a free one, kept across restarts.
        cache: Where root keeps copies of binaries, should Postgres' account need them.
        now: The time, with a zone.
    """

    name = "embedded"

    def __init__(
        self,
        home: Path,
        *,
        nats_port: int | None = None,
        cache: Path = CACHE,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._home = Home(home)
        self._asked_nats_port = nats_port
        self._cache = cache
        self._now = now
        self._owner: HomeOwner | None = None
        self._nats: NatsServer | None = None
        self._postgres: PostgresServer | None = None

    @property
    def nats(self) -> NatsAddress:
        """Where NATS listens, the same for as long as the home is held."""
        return _entered(self._nats).address

    @property
    def postgres(self) -> PostgresAddress:
        """Where Postgres listens, the same for as long as the home is held."""
        return _entered(self._postgres).address

    @property
    def nats_pid(self) -> int | None:
        """Process id of NATS, None while it does not run."""
        return _entered(self._nats).pid

    @property
    def postgres_pid(self) -> int | None:
        """Process id of the postmaster, None while it does not run."""
        return _entered(self._postgres).pid

    async def __aenter__(self) -> Self:
        """Take the home, start both servers side by side and wait until they are ready.

        Raises:
            ConfigError: Something is in the way; the text says what to do.
        """
        self._owner = HomeOwner(pid=os.getpid(), started_at=self._now())
        await self._home.hold(self._owner)
        try:
            secrets = self._home.secrets()
            self._nats = NatsServer(self._home, secrets.nats_token, self._asked_nats_port)
            self._postgres = PostgresServer(self._home, secrets.postgres_password, self._cache)
            await _start(self._nats, self._postgres)
        except BaseException:
            await self._leave()
            raise
        log.info(
            "embedded.started",
            home=str(self._home.path),
            nats_pid=self._nats.pid,
            postgres_pid=self._postgres.pid,
            nats_url=self._nats.address.url,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop both servers and give the home up, also under cancellation."""
        await self._leave()
        log.info("embedded.stopped", home=str(self._home.path))

    def announce(
        self, url: str, *, token: str | None = None, certificate: Path | None = None
    ) -> None:
        """Tell `read_owner` where this daemon's HTTP answers.

        Args:
            url: Such as ``"http://127.0.0.1:8080"``.
            token: With which commands of the home's owner ask there.
            certificate: File of the certificate that it shows.

        Raises:
            ConfigError: The home cannot be written.
        """
        owner = msgspec.structs.replace(
            _entered(self._owner),
            url=url,
            token=token,
            certificate=None if certificate is None else str(certificate.absolute()),
        )
        self._home.sign(owner)

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start again, at its old address, whichever server dies; until stopping is set.

        The servers themselves are stopped when the context is left, after all who use them.
        """
        servers = (_entered(self._nats), _entered(self._postgres))
        async with anyio.create_task_group() as group:
            for server in servers:
                group.start_soon(_keep_alive, server, name=f"keep {server.name} alive")
            group.start_soon(_look_after, *servers, name="upkeep")
            task_status.started()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _leave(self) -> None:
        try:
            with anyio.move_on_after(_STOP_SECONDS, shield=True):
                async with anyio.create_task_group() as group:
                    for server in (self._nats, self._postgres):
                        if server:
                            group.start_soon(server.stop)
        finally:
            self._home.let_go()


async def _start(*servers: _Server) -> None:
    """Start servers side by side; of several complaints the first is told."""
    try:
        async with anyio.create_task_group() as group:
            for server in servers:
                group.start_soon(server.start)
    except BaseExceptionGroup as failures:
        refused, rest = failures.split(ConfigError)
        if refused is None or rest is not None:
            raise
        raise _first(refused) from None


def _first(group: BaseExceptionGroup[ConfigError]) -> ConfigError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _keep_alive(server: _Server) -> None:
    """Start a server again whenever it ends; sooner if it lived long."""
    pause = 0.0
    while True:
        since = anyio.current_time()
        pid, code = server.pid, await server.wait()
        log.error("server.died", server=server.name, pid=pid, exit=describe_exit(code))
        if anyio.current_time() - since >= _LONG_LIFE_SECONDS:
            pause = 0.0
        pause = await _start_again(server, pause)


async def _start_again(server: _Server, pause: float) -> float:
    """Start a server until it stays; give the pause in seconds before the next time."""
    while True:
        await anyio.sleep(pause)
        pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        try:
            await server.start()
        except ConfigError as error:
            log.error(  # noqa: TRY400 - the error is one line that says what to do
                "server.restart_failed", server=server.name, error=str(error), retry_seconds=pause
            )
        else:
            log.info("server.restarted", server=server.name, pid=server.pid)
            return pause


async def _look_after(*servers: _Server) -> None:
    while True:
        await anyio.sleep(_UPKEEP_SECONDS)
        for server in servers:
            server.upkeep()


def _entered(value: _T | None) -> _T:
    if value is None:
        raise RuntimeError("the servers are not started: enter the context first")
    return value
