"""Frozen processes: one is stopped by SIGSTOP under a steady load, and goes on later."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import msgspec
import psutil

from support.faults.checks import check
from support.faults.environment import (
    ALL,
    CONTROL,
    REST,
    WORKER,
    Environment,
    Fault,
    open_environment,
)
from support.faults.executions import Execution
from support.faults.load import Load
from support.faults.rounds import DRAIN_SECONDS, SETTLE_SECONDS
from support.faults.state import read_state, until_drained, until_idle

BEFORE_SECONDS = 3
AFTER_SECONDS = 6
FROZEN_SECONDS = 15
"""Longer than any lease."""
SERVER_SECONDS = 9
"""Longer than workers may be silent, and shorter than a server may hang."""

_DELAYS = """
SELECT extract(epoch FROM run.ended_at - max(event.recorded_at))::float8 AS delay
FROM run JOIN run_event ON run_event.run = run.id JOIN event ON event.id = run_event.event
GROUP BY run.id
"""


class Frozen(msgspec.Struct, frozen=True):
    """A kind of process that is frozen.

    Attributes:
        roles: Of the daemons.
        find: Returns the process: the last daemon, or of it, unless it says otherwise.
        seconds: How long.
        lost: How many workers may be declared lost, as they are frozen themselves.
    """

    roles: tuple[frozenset[str], ...]
    find: Callable[[Environment], int]
    seconds: float = FROZEN_SECONDS
    lost: int = 0


class FrozenReport(msgspec.Struct, kw_only=True):
    """Result of a round.

    Attributes:
        p99_seconds: From an event to the end of the run that it made.
        lost: Workers that were declared lost.
        repeated: Executions that were not the first of their attempt.
    """

    kind: str
    seed: int
    runs: int
    p50_seconds: float
    p99_seconds: float
    worst_seconds: float
    lost: int
    repeated: int


def _last_daemon(environment: Environment) -> int:
    return environment.members[-1].pid


def _first_manager(environment: Environment) -> int:
    ranks = {each.pid: each.logged("manager.ranked") for each in environment.members}
    return next(pid for pid, facts in ranks.items() if facts and facts[-1]["rank"] == 0)


def _zygote(environment: Environment) -> int:
    children = psutil.Process(environment.members[-1].pid).children()
    return next(each.pid for each in children if "pubsubflow.runner.zygote" in each.cmdline())


def _runner(environment: Environment) -> int:
    last: Execution = environment.executions.read()[-1]
    return last.pid


def _nats(environment: Environment) -> int:
    return environment.servers.nats_pid


def _postgres(environment: Environment) -> int:
    return environment.servers.postgres_pid


KINDS = {
    "manager": Frozen((ALL, CONTROL), _last_daemon),
    "first manager": Frozen((REST, CONTROL, CONTROL), _first_manager),
    "worker": Frozen((ALL, WORKER), _last_daemon, lost=1),
    "daemon": Frozen((ALL, ALL), _last_daemon, lost=1),
    "zygote": Frozen((ALL, WORKER), _zygote),
    "runner": Frozen((ALL, WORKER), _runner),
    "nats": Frozen((ALL, WORKER), _nats, SERVER_SECONDS),
    "postgres": Frozen((ALL, WORKER), _postgres, SERVER_SECONDS),
}


async def run_frozen(kind: str, *, seed: int, folder: Path) -> FrozenReport:
    """Freeze a process under a steady load; nothing is lost, and no living worker declared gone."""
    frozen = KINDS[kind]
    fault = Fault((), frozen.roles, lambda _: None)
    async with open_environment(fault, "two", folder, seed) as environment:
        load = Load(environment.members[:1], environment.chance)
        whole = BEFORE_SECONDS + frozen.seconds + AFTER_SECONDS
        async with anyio.create_task_group() as group:
            group.start_soon(load.post_steadily, whole)
            await anyio.sleep(BEFORE_SECONDS)
            send = partial(os.kill, frozen.find(environment))
            send(signal.SIGSTOP)
            environment.injected_at.append(time.time())
            try:
                await anyio.sleep(frozen.seconds)
            finally:
                send(signal.SIGCONT)
        await until_idle(environment.dsn, SETTLE_SECONDS)
        await until_drained(environment.nats, DRAIN_SECONDS)
        check(await read_state(environment.dsn), load, environment.executions.read())
        delays = await read_delays(environment.dsn)
        warnings = [fact for each in environment.members for fact in each.logged("worker.lost")]
        return FrozenReport(
            kind=kind,
            seed=seed,
            runs=len(delays),
            p50_seconds=round(delays[len(delays) // 2], 3),
            p99_seconds=round(delays[int(len(delays) * 0.99)], 3),
            worst_seconds=round(delays[-1], 3),
            lost=len({fact["worker"] for fact in warnings}),
            repeated=environment.executions.repeated(),
        )


async def read_delays(dsn: str) -> list[float]:
    connection = await asyncpg.connect(dsn)
    try:
        return sorted(row["delay"] for row in await connection.fetch(_DELAYS))
    finally:
        await connection.close()
