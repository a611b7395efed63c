"""Environments of fault rounds: servers, and daemons as child processes, which all end with it."""

import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import anyio
import anyio.abc
import msgspec

from pubsubflow.bus import BusSettings
from pubsubflow.embedded import EmbeddedServers, PostgresAddress
from pubsubflow.embedded.home import Home
from pubsubflow.embedded.settings import DATABASE, PORT, SUPERUSER
from pubsubflow.roles import ROLES
from support.faults.daemon import DaemonOptions
from support.faults.daemons import MARK, DaemonProcess, await_no_process, start_all, stop_all
from support.faults.executions import ExecutionLog
from support.faults.reference import CONDITIONS
from support.faults.state import until_known

DAGS = Path(__file__).parents[2] / "faults" / "dags"
DAG_IDS = (*CONDITIONS, "waits")
KNOWN_SECONDS = 120
ALL = frozenset(ROLES)
WORKER = frozenset({"worker"})
MANAGER = frozenset({"manager"})
CONTROL = ALL - WORKER
REST = ALL - MANAGER


class Fault(msgspec.Struct, frozen=True):
    """Something that dies.

    Attributes:
        one: Roles of the daemons when no other could do the work of the one that dies.
        two: Roles of the daemons when another one could.
        inject: Kills something.
        embedded: In the first case the servers are the daemon's own and die with it.
    """

    one: tuple[frozenset[str], ...]
    two: tuple[frozenset[str], ...]
    inject: Callable[["Environment"], None]
    embedded: bool = False


class Repair:
    """Starts servers again that die, but while it is told to leave them.

    Args:
        servers: Those of a round.
    """

    def __init__(self, servers: EmbeddedServers):
        self._servers = servers
        self._stopping, self._stopped, self._go_on = anyio.Event(), anyio.Event(), anyio.Event()

    async def run(self):
        while True:
            await self._servers.run(self._stopping)
            self._stopped.set()
            await self._go_on.wait()

    @asynccontextmanager
    async def off(self) -> AsyncIterator[None]:
        """Leave servers that die in the block away until its end."""
        self._stopped, self._go_on = anyio.Event(), anyio.Event()
        self._stopping.set()
        await self._stopped.wait()
        try:
            yield
        finally:
            self._stopping = anyio.Event()
            self._go_on.set()


class Environment(msgspec.Struct, kw_only=True):
    """Servers and daemons of a round.

    Attributes:
        mark: Every process of the round has it in its environment.
        servers: Ours; None when the daemon has its own.
        repair: Starts them again.
        injected_at: When something was killed, seconds since 1970.
    """

    mark: str
    members: list[DaemonProcess]
    executions: ExecutionLog
    chance: random.Random
    dsn: str
    nats: BusSettings
    servers: EmbeddedServers | None = None
    repair: Repair | None = None
    injected_at: list[float] = []

    def last(self, role: str) -> DaemonProcess:
        """Return the last daemon that has a role: of several, the one that has the fewest."""
        return next(each for each in reversed(self.members) if role in each.options.roles)


class Surroundings(msgspec.Struct, frozen=True):
    """What a round has around it, beside the usual.

    Attributes:
        dags: The folder of its DAGs.
        disk: Where the homes of daemons with servers of their own lie; None for the usual place.
        open_files: How many files such a daemon may open, if that is limited.
        environ: Variables of all processes.
    """

    dags: Path = DAGS
    disk: Path | None = None
    open_files: int | None = None
    environ: dict[str, str] = {}


@asynccontextmanager
async def open_environment(
    fault: Fault,
    daemons: str,
    folder: Path,
    seed: int,
    *,
    around: Surroundings = Surroundings(),  # noqa: B008 - frozen
) -> AsyncIterator[Environment]:
    """Start servers and daemons, and end all of them afterwards without a trace.

    Args:
        fault: Names the daemons.
        daemons: "one" or "two".
        folder: For logs and notes.
        seed: Of every choice in the round.
        around: What is around the daemon of a fault that is embedded, with one daemon.
    """
    mark = uuid4().hex
    executions = ExecutionLog(folder / "notes")
    environ = os.environ | around.environ | {MARK: mark, "FAULT_NOTES": str(executions.path)}
    chance = random.Random(seed)
    try:
        with TemporaryDirectory(prefix="psf-fault-", dir=around.disk) as home:
            if fault.embedded and daemons == "one":
                environment = _with_own_servers(
                    Path(home), folder, executions, environ, chance, fault.one[0], around
                )
                async with _running(environment):
                    yield environment
                return
            async with EmbeddedServers(Path(home)) as servers:
                roles = fault.one if daemons == "one" else fault.two
                environment = _with_servers(servers, roles, folder, executions, environ, chance)
                async with _running(environment):
                    yield environment
    finally:
        with anyio.CancelScope(shield=True):
            await await_no_process(mark)


def _with_own_servers(home, folder, executions, environ, chance, roles, around) -> Environment:
    secrets = Home(home).secrets()
    address = PostgresAddress(
        str(home / "postgres" / "data"), PORT, SUPERUSER, secrets.postgres_password, DATABASE
    )
    options = DaemonOptions(
        parent=os.getpid(),
        home=str(home),
        roles=roles,
        dags=str(around.dags),
        open_files=around.open_files,
    )
    return Environment(
        mark=environ[MARK],
        members=[DaemonProcess("daemon", options, environ, folder)],
        executions=executions,
        chance=chance,
        dsn=address.dsn,
        nats=BusSettings(token=secrets.nats_token),
    )


def _with_servers(
    servers: EmbeddedServers, roles: Sequence[frozenset[str]], folder, executions, environ, chance
) -> Environment:
    members = []
    for number, each in enumerate(roles):
        options = DaemonOptions(
            parent=os.getpid(),
            home=str(folder / f"home-{number}"),
            roles=each,
            dags=str(DAGS),
            nats_url=servers.nats.url,
            nats_token=servers.nats.token,
            postgres_url=servers.postgres.dsn,
            key_file=str(folder / "keys"),
        )
        members.append(DaemonProcess(f"daemon-{number}", options, environ, folder))
    return Environment(
        mark=environ[MARK],
        members=members,
        executions=executions,
        chance=chance,
        dsn=servers.postgres.dsn,
        nats=BusSettings(url=servers.nats.url, token=servers.nats.token),
        servers=servers,
        repair=Repair(servers),
    )


@asynccontextmanager
async def _running(environment: Environment) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        if environment.repair is not None:
            group.start_soon(environment.repair.run)
        await start_all(environment.members, group)
        if environment.servers is None:
            port = (Path(environment.members[0].options.home) / "nats.port").read_text().strip()
            environment.nats = msgspec.structs.replace(
                environment.nats, url=f"nats://127.0.0.1:{port}"
            )
        if any("scheduler" in member.options.roles for member in environment.members):
            await until_known(environment.dsn, DAG_IDS, KNOWN_SECONDS)
        yield
        await stop_all(environment.members)
        group.cancel_scope.cancel()
