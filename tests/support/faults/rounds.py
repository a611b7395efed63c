"""Fault rounds: servers, daemons, load, faults at random moments, then checks and a report."""

import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import anyio
import anyio.abc
import msgspec

from pubsubflow.bus import BusSettings
from pubsubflow.daemon import ROLES
from pubsubflow.embedded import EmbeddedServers, PostgresAddress
from pubsubflow.embedded.home import Home
from pubsubflow.embedded.settings import DATABASE, PORT, SUPERUSER
from support.faults.checks import check
from support.faults.daemon import DaemonOptions
from support.faults.daemons import (
    MARK,
    DaemonProcess,
    await_no_process,
    is_marked,
    start_all,
    stop_all,
)
from support.faults.executions import ExecutionLog
from support.faults.load import EXECUTIONS, RUNS, Load
from support.faults.state import read_state, until_drained, until_idle

DAGS = Path(__file__).parents[2] / "faults" / "dags"
SETTLE_SECONDS = 90
DRAIN_SECONDS = 30
AWAY_SECONDS = 10
STALL_SECONDS = 15
"""Longer than any lease: others take over before the stalled one continues."""
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


class Environment(msgspec.Struct, kw_only=True):
    """Servers and daemons of a round.

    Attributes:
        mark: Every process of the round has it in its environment.
        servers: Ours; None when the daemon has its own.
        injected_at: When something was killed, seconds since 1970.
    """

    mark: str
    members: list[DaemonProcess]
    executions: ExecutionLog
    chance: random.Random
    dsn: str
    nats: BusSettings
    servers: EmbeddedServers | None = None
    injected_at: list[float] = []


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


class RoundReport(msgspec.Struct, kw_only=True):
    """Result of a round.

    Attributes:
        repeated: Executions that were not the first of their attempt.
        unanswered: Posts that were refused or got no answer; all of them were sent again.
        longest_pause_seconds: For how long nothing was executed, after the first kill.
        settled_seconds: From the last kill until everything was done.
        seconds: The whole round.
    """

    fault: str
    daemons: str
    seed: int
    kills: int
    posted: int
    runs: int
    tasks: int
    executions: int
    repeated: int
    unanswered: int
    longest_pause_seconds: float
    settled_seconds: float
    seconds: float = 0.0


class OutageReport(msgspec.Struct):
    """Result of a round in which a server was away.

    Attributes:
        accepted: Whether all posts were accepted meanwhile.
        refusals: HTTP status and `Retry-After` of all others.
        members: The daemons, with their logs.
    """

    report: RoundReport
    accepted: bool
    refusals: list[tuple[int, str | None]]
    members: list[DaemonProcess]


def _kill_last_runner(environment: Environment):
    """Kill the process that ran a task just now."""
    runners = (execution.pid for execution in reversed(environment.executions.read()))
    os.kill(next(pid for pid in runners if is_marked(pid, environment.mark)), signal.SIGKILL)


def _kill_second(environment: Environment):
    environment.members[-1].kill()


def _kill_any(environment: Environment):
    environment.chance.choice(environment.members).kill()


def _kill_nats(environment: Environment):
    os.kill(environment.servers.nats_pid, signal.SIGKILL)


def _kill_postgres(environment: Environment):
    os.kill(environment.servers.postgres_pid, signal.SIGKILL)


FAULTS = {
    "runner": Fault((ALL,), (ALL, ALL), _kill_last_runner),
    "worker": Fault((CONTROL, WORKER), (ALL, WORKER), _kill_second),
    "manager": Fault((REST, MANAGER), (ALL, CONTROL), _kill_second),
    "daemon": Fault((ALL,), (ALL, ALL), _kill_any, embedded=True),
    "nats": Fault((ALL,), (ALL, ALL), _kill_nats),
    "postgres": Fault((ALL,), (ALL, ALL), _kill_postgres),
}
"""What is killed, and which daemons run."""


@asynccontextmanager
async def open_environment(
    fault: Fault,
    daemons: str,
    folder: Path,
    seed: int,
    *,
    repair: anyio.Event | None = None,
    around: Surroundings = Surroundings(),  # noqa: B008 - frozen
) -> AsyncIterator[Environment]:
    """Start servers and daemons, and end all of them afterwards without a trace.

    Args:
        fault: Names the daemons.
        daemons: "one" or "two".
        folder: For logs and notes.
        seed: Of every choice in the round.
        repair: Servers that die are started again from this event on; None for at once.
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
                async with _running(environment, repair):
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
    )


@asynccontextmanager
async def _running(
    environment: Environment, repair: anyio.Event | None = None
) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        if environment.servers is not None:
            group.start_soon(_keep_servers, environment.servers, repair)
        await start_all(environment.members, group)
        if environment.servers is None:
            port = (Path(environment.members[0].options.home) / "nats.port").read_text().strip()
            environment.nats = msgspec.structs.replace(
                environment.nats, url=f"nats://127.0.0.1:{port}"
            )
        yield
        await stop_all(environment.members)
        group.cancel_scope.cancel()


async def _keep_servers(servers: EmbeddedServers, repair: anyio.Event | None):
    if repair is not None:
        await repair.wait()
    await servers.run(anyio.Event())


async def run_round(
    fault: str, daemons: str, *, moments: int, seed: int, folder: Path
) -> RoundReport:
    """Run a round in which something is killed at that many random moments, and check it."""
    started = time.monotonic()
    async with open_environment(FAULTS[fault], daemons, folder, seed) as environment:
        load = Load(environment.members, environment.chance)
        for _ in range(moments):
            await _inject_under_load(environment, load, FAULTS[fault])
        report = await finish_round(environment, load, fault, daemons, seed)
    assert report.runs >= moments * RUNS
    return msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))


async def run_outage(fault: str, daemons: str, *, seed: int, folder: Path) -> OutageReport:
    """Run a round in which a server is away for `AWAY_SECONDS`, and check it."""
    started = time.monotonic()
    repair = anyio.Event()
    async with open_environment(FAULTS[fault], daemons, folder, seed, repair=repair) as environment:
        load = Load(environment.members, environment.chance)
        moment = environment.chance.randrange(1, EXECUTIONS)
        async with anyio.create_task_group() as group:
            group.start_soon(load.post)
            await environment.executions.reach(moment)
            FAULTS[fault].inject(environment)
            environment.injected_at.append(time.time())
            # On a busy machine the load may be posted by now, and only its tasks still run.
            group.start_soon(load.post_steadily, 1)
            await anyio.sleep(AWAY_SECONDS)
            accepted = len(load.ids) == len(load.events)
            repair.set()
        report = await finish_round(environment, load, fault, daemons, seed)
    assert report.runs >= RUNS
    report = msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))
    return OutageReport(report, accepted, load.refusals, environment.members)


async def run_stall(fault: str, daemons: str, *, seed: int, folder: Path) -> RoundReport:
    """Run a round in which the daemon that would be killed is stopped instead, and continued."""
    started = time.monotonic()
    async with open_environment(FAULTS[fault], daemons, folder, seed) as environment:
        load = Load(environment.members, environment.chance)
        moment = environment.chance.randrange(1, EXECUTIONS)
        async with anyio.create_task_group() as group:
            group.start_soon(load.post)
            await environment.executions.reach(moment)
            os.kill(environment.members[-1].pid, signal.SIGSTOP)
            environment.injected_at.append(time.time())
            await anyio.sleep(STALL_SECONDS)
            os.kill(environment.members[-1].pid, signal.SIGCONT)
        report = await finish_round(environment, load, f"stalled {fault}", daemons, seed)
    assert report.runs >= RUNS
    return msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))


async def finish_round(
    environment: Environment, load: Load, fault: str, daemons: str, seed: int
) -> RoundReport:
    """Wait until everything that was posted is done, check all of it and return the report."""
    await until_idle(environment.dsn, SETTLE_SECONDS)
    settled_seconds = time.time() - environment.injected_at[-1]
    await until_drained(environment.nats, DRAIN_SECONDS)
    state = await read_state(environment.dsn)
    executions = environment.executions.read()
    check(state, load, executions)
    return RoundReport(
        fault=fault,
        daemons=daemons,
        seed=seed,
        kills=len(environment.injected_at),
        posted=len(load.ids),
        runs=len(state.runs),
        tasks=sum(len(run.tasks) for run in state.runs.values()),
        executions=len(executions),
        repeated=environment.executions.repeated(),
        unanswered=sum(n for status, n in load.answers.items() if status not in (200, 202)),
        longest_pause_seconds=round(
            environment.executions.longest_pause(environment.injected_at[0]), 3
        ),
        settled_seconds=round(settled_seconds, 3),
    )


async def _inject_under_load(environment: Environment, load: Load, fault: Fault):
    """Post one load, and inject the fault at a random moment in the middle of it."""
    for member in environment.members:
        await member.ready.wait()
    moment = environment.executions.count() + environment.chance.randrange(1, EXECUTIONS)
    async with anyio.create_task_group() as group:
        group.start_soon(load.post)
        await environment.executions.reach(moment)
        fault.inject(environment)
        environment.injected_at.append(time.time())
