"""One round: servers, daemons, load, faults at random moments, then rest and the account."""

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
from fault_checks import check
from fault_daemon import Order
from fault_daemons import MARK, Member, await_no_process, is_marked, start_all, stop_all
from fault_load import EXECUTIONS, RUNS, Load
from fault_notes import Notes
from fault_state import drained, read_state, settled

from pubsubflow.bus import BusSettings
from pubsubflow.daemon import ROLES
from pubsubflow.embedded import EmbeddedServers, PostgresAddress
from pubsubflow.embedded.home import Home
from pubsubflow.embedded.settings import DATABASE, PORT, SUPERUSER

DAGS = Path(__file__).parent / "dags"
SETTLE_SECONDS = 90
DRAIN_SECONDS = 30
AWAY_SECONDS = 10
STALL_SECONDS = 15
"""Longer than any lease: others take over, and then the one that stood still comes back."""
ALL = frozenset(ROLES)
WORKER = frozenset({"worker"})
MANAGER = frozenset({"manager"})
CONTROL = ALL - WORKER
REST = ALL - MANAGER


class Fault(msgspec.Struct, frozen=True):
    """Something that dies.

    Attributes:
        one: Roles of the daemons that are there when nobody else could do the work of what dies.
        two: Roles of the daemons when another one can.
        strike: Kills it.
        embedded: In the first case the servers are the daemon's own and die with it.
    """

    one: tuple[frozenset[str], ...]
    two: tuple[frozenset[str], ...]
    strike: Callable[["Stage"], None]
    embedded: bool = False


class Stage(msgspec.Struct, kw_only=True):
    """What a round plays on.

    Attributes:
        mark: Every process of the round has it in its environment.
        servers: Ours; None when the daemon has its own.
        struck: When something was killed, seconds since 1970.
    """

    mark: str
    members: list[Member]
    notes: Notes
    chance: random.Random
    dsn: str
    nats: BusSettings
    servers: EmbeddedServers | None = None
    struck: list[float] = []


class Account(msgspec.Struct, kw_only=True):
    """What a round showed.

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


class Absence(msgspec.Struct):
    """What a round showed in which a server was away.

    Attributes:
        accepted: Whether all posts were accepted meanwhile.
        refusals: HTTP status and `Retry-After` of all others.
        members: The daemons, with their logs.
    """

    account: Account
    accepted: bool
    refusals: list[tuple[int, str | None]]
    members: list[Member]


def _kill_last_runner(stage: Stage):
    """Kill the process that ran a task just now."""
    runners = (note.pid for note in reversed(stage.notes.read()))
    os.kill(next(pid for pid in runners if is_marked(pid, stage.mark)), signal.SIGKILL)


def _kill_second(stage: Stage):
    stage.members[-1].kill()


def _kill_any(stage: Stage):
    stage.chance.choice(stage.members).kill()


def _kill_nats(stage: Stage):
    os.kill(stage.servers.nats_pid, signal.SIGKILL)


def _kill_postgres(stage: Stage):
    os.kill(stage.servers.postgres_pid, signal.SIGKILL)


FAULTS = {
    "runner": Fault((ALL,), (ALL, ALL), _kill_last_runner),
    "worker": Fault((CONTROL, WORKER), (ALL, WORKER), _kill_second),
    "manager": Fault((REST, MANAGER), (ALL, CONTROL), _kill_second),
    "daemon": Fault((ALL,), (ALL, ALL), _kill_any, embedded=True),
    "nats": Fault((ALL,), (ALL, ALL), _kill_nats),
    "postgres": Fault((ALL,), (ALL, ALL), _kill_postgres),
}
"""What dies, and who is there."""


@asynccontextmanager
async def open_stage(
    fault: Fault, daemons: str, folder: Path, seed: int, *, repair: anyio.Event | None = None
) -> AsyncIterator[Stage]:
    """Start servers and daemons, and end all of them afterwards without a trace.

    Args:
        fault: Says who is there.
        daemons: "one" or "two".
        folder: For logs and notes.
        seed: Of every choice in the round.
        repair: Servers that die are started again from this event on; None for at once.
    """
    mark = uuid4().hex
    notes = Notes(folder / "notes")
    environ = os.environ | {MARK: mark, "FAULT_NOTES": str(notes.path)}
    chance = random.Random(seed)
    try:
        with TemporaryDirectory(prefix="psf-fault-") as home:
            if fault.embedded and daemons == "one":
                stage = _stage_with_own_servers(
                    Path(home), folder, notes, environ, chance, fault.one[0]
                )
                async with _playing(stage):
                    yield stage
                return
            async with EmbeddedServers(Path(home)) as servers:
                roles = fault.one if daemons == "one" else fault.two
                stage = _stage_with_servers(servers, roles, folder, notes, environ, chance)
                async with _playing(stage, repair):
                    yield stage
    finally:
        with anyio.CancelScope(shield=True):
            await await_no_process(mark)


def _stage_with_own_servers(home, folder, notes, environ, chance, roles) -> Stage:
    secrets = Home(home).secrets()
    address = PostgresAddress(
        str(home / "postgres" / "data"), PORT, SUPERUSER, secrets.postgres_password, DATABASE
    )
    order = Order(parent=os.getpid(), home=str(home), roles=roles, dags=str(DAGS))
    return Stage(
        mark=environ[MARK],
        members=[Member("daemon", order, environ, folder)],
        notes=notes,
        chance=chance,
        dsn=address.dsn,
        nats=BusSettings(token=secrets.nats_token),
    )


def _stage_with_servers(
    servers: EmbeddedServers, roles: Sequence[frozenset[str]], folder, notes, environ, chance
) -> Stage:
    members = []
    for number, played in enumerate(roles):
        order = Order(
            parent=os.getpid(),
            home=str(folder / f"home-{number}"),
            roles=played,
            dags=str(DAGS),
            nats_url=servers.nats.url,
            nats_token=servers.nats.token,
            postgres_url=servers.postgres.dsn,
        )
        members.append(Member(f"daemon-{number}", order, environ, folder))
    return Stage(
        mark=environ[MARK],
        members=members,
        notes=notes,
        chance=chance,
        dsn=servers.postgres.dsn,
        nats=BusSettings(url=servers.nats.url, token=servers.nats.token),
        servers=servers,
    )


@asynccontextmanager
async def _playing(stage: Stage, repair: anyio.Event | None = None) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        if stage.servers is not None:
            group.start_soon(_keep_servers, stage.servers, repair)
        await start_all(stage.members, group)
        if stage.servers is None:
            port = (Path(stage.members[0].order.home) / "nats.port").read_text().strip()
            stage.nats = msgspec.structs.replace(stage.nats, url=f"nats://127.0.0.1:{port}")
        yield
        await stop_all(stage.members)
        group.cancel_scope.cancel()


async def _keep_servers(servers: EmbeddedServers, repair: anyio.Event | None):
    if repair is not None:
        await repair.wait()
    await servers.run(anyio.Event())


async def play(fault: str, daemons: str, *, moments: int, seed: int, folder: Path) -> Account:
    """Play a round in which something is killed at so many random moments, and check it."""
    started = time.monotonic()
    async with open_stage(FAULTS[fault], daemons, folder, seed) as stage:
        load = Load(stage.members, stage.chance)
        for _ in range(moments):
            await _strike_under_load(stage, load, FAULTS[fault])
        account = await settle(stage, load, fault, daemons, seed)
    assert account.runs >= moments * RUNS
    return msgspec.structs.replace(account, seconds=round(time.monotonic() - started, 3))


async def play_absence(fault: str, daemons: str, *, seed: int, folder: Path) -> Absence:
    """Play a round in which a server is away for `AWAY_SECONDS`, and check it."""
    started = time.monotonic()
    repair = anyio.Event()
    async with open_stage(FAULTS[fault], daemons, folder, seed, repair=repair) as stage:
        load = Load(stage.members, stage.chance)
        moment = stage.chance.randrange(1, EXECUTIONS)
        async with anyio.create_task_group() as group:
            group.start_soon(load.post)
            await stage.notes.reach(moment)
            FAULTS[fault].strike(stage)
            stage.struck.append(time.time())
            await anyio.sleep(AWAY_SECONDS)
            accepted = len(load.ids) == len(load.events)
            repair.set()
        account = await settle(stage, load, fault, daemons, seed)
    assert account.runs >= RUNS
    account = msgspec.structs.replace(account, seconds=round(time.monotonic() - started, 3))
    return Absence(account, accepted, load.refusals, stage.members)


async def play_stall(fault: str, daemons: str, *, seed: int, folder: Path) -> Account:
    """Play a round in which the daemon that would be killed stands still instead, and goes on."""
    started = time.monotonic()
    async with open_stage(FAULTS[fault], daemons, folder, seed) as stage:
        load = Load(stage.members, stage.chance)
        moment = stage.chance.randrange(1, EXECUTIONS)
        async with anyio.create_task_group() as group:
            group.start_soon(load.post)
            await stage.notes.reach(moment)
            os.kill(stage.members[-1].pid, signal.SIGSTOP)
            stage.struck.append(time.time())
            await anyio.sleep(STALL_SECONDS)
            os.kill(stage.members[-1].pid, signal.SIGCONT)
        account = await settle(stage, load, f"stalled {fault}", daemons, seed)
    assert account.runs >= RUNS
    return msgspec.structs.replace(account, seconds=round(time.monotonic() - started, 3))


async def settle(stage: Stage, load: Load, fault: str, daemons: str, seed: int) -> Account:
    """Wait until everything that was posted is done, check all of it and draw up the account."""
    await settled(stage.dsn, SETTLE_SECONDS)
    settled_seconds = time.time() - stage.struck[-1]
    await drained(stage.nats, DRAIN_SECONDS)
    state = await read_state(stage.dsn)
    notes = stage.notes.read()
    check(state, load, notes)
    return Account(
        fault=fault,
        daemons=daemons,
        seed=seed,
        kills=len(stage.struck),
        posted=len(load.ids),
        runs=len(state.runs),
        tasks=sum(len(run.tasks) for run in state.runs.values()),
        executions=len(notes),
        repeated=stage.notes.repeated(),
        unanswered=sum(n for status, n in load.answers.items() if status not in (200, 202)),
        longest_pause_seconds=round(stage.notes.longest_pause(stage.struck[0]), 3),
        settled_seconds=round(settled_seconds, 3),
    )


async def _strike_under_load(stage: Stage, load: Load, fault: Fault):
    """Post one load, and strike at a random moment in the middle of it."""
    for member in stage.members:
        await member.ready.wait()
    moment = stage.notes.count() + stage.chance.randrange(1, EXECUTIONS)
    async with anyio.create_task_group() as group:
        group.start_soon(load.post)
        await stage.notes.reach(moment)
        fault.strike(stage)
        stage.struck.append(time.time())
