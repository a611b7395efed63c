"""Fault rounds: load, faults at random moments, then checks and a report."""

import os
import signal
import time
from pathlib import Path

import anyio
import msgspec

from support.faults.checks import check
from support.faults.daemons import is_marked
from support.faults.environment import (
    ALL,
    CONTROL,
    MANAGER,
    REST,
    WORKER,
    Environment,
    Fault,
    open_environment,
)
from support.faults.load import Load
from support.faults.state import read_state, until_drained, until_idle

SETTLE_SECONDS = 180
DRAIN_SECONDS = 90
STALL_SECONDS = 15
"""Longer than any lease: others take over before the stalled one continues."""


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


def _kill_last_runner(environment: Environment):
    """Kill the process that ran a task just now."""
    runners = (execution.pid for execution in reversed(environment.executions.read()))
    os.kill(next(pid for pid in runners if is_marked(pid, environment.mark)), signal.SIGKILL)


def _kill_worker(environment: Environment):
    environment.last("worker").kill()


def _kill_manager(environment: Environment):
    environment.last("manager").kill()


def _kill_any(environment: Environment):
    environment.chance.choice(environment.members).kill()


def _kill_nats(environment: Environment):
    os.kill(environment.servers.nats_pid, signal.SIGKILL)


def _kill_postgres(environment: Environment):
    os.kill(environment.servers.postgres_pid, signal.SIGKILL)


FAULTS = {
    "runner": Fault((ALL,), (ALL, ALL), _kill_last_runner),
    "worker": Fault((CONTROL, WORKER), (ALL, WORKER), _kill_worker),
    "manager": Fault((REST, MANAGER), (ALL, CONTROL), _kill_manager),
    "daemon": Fault((ALL,), (ALL, ALL), _kill_any, embedded=True),
    "nats": Fault((ALL,), (ALL, ALL), _kill_nats),
    "postgres": Fault((ALL,), (ALL, ALL), _kill_postgres),
}
"""What is killed, and which daemons run."""


async def run_round(
    fault: str, daemons: str, *, moments: int, seed: int, folder: Path
) -> RoundReport:
    """Run a round in which something is killed at that many random moments, and check it."""
    started = time.monotonic()
    async with open_environment(FAULTS[fault], daemons, folder, seed) as environment:
        load = Load(environment.members, environment.chance)
        for _ in range(moments):
            await kill_under_load(environment, load, FAULTS[fault])
        report = await finish_round(environment, load, fault, daemons, seed)
    assert report.runs >= moments * load.runs
    return msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))


async def run_stall(fault: str, daemons: str, *, seed: int, folder: Path) -> RoundReport:
    """Run a round in which the daemon that would be killed is stopped instead, and continued."""
    started = time.monotonic()
    async with open_environment(FAULTS[fault], daemons, folder, seed) as environment:
        load = Load(environment.members, environment.chance)
        await stall_under_load(environment, load)
        report = await finish_round(environment, load, f"stalled {fault}", daemons, seed)
    assert report.runs >= load.runs
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


async def kill_under_load(environment: Environment, load: Load, fault: Fault):
    """Post one load, and inject the fault at a random moment in the middle of it."""
    for member in environment.members:
        await member.ready.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(load.post)
        await reach_a_moment(environment, load)
        fault.inject(environment)
        environment.injected_at.append(time.time())


async def stall_under_load(environment: Environment, load: Load):
    """Post one load, and stop the last daemon for `STALL_SECONDS` from a random moment on."""
    async with anyio.create_task_group() as group:
        group.start_soon(load.post)
        await reach_a_moment(environment, load)
        pid = environment.members[-1].pid
        os.kill(pid, signal.SIGSTOP)
        environment.injected_at.append(time.time())
        await anyio.sleep(STALL_SECONDS)
        os.kill(pid, signal.SIGCONT)


async def reach_a_moment(environment: Environment, load: Load):
    """Return at a random moment in the middle of a load, which is being posted."""
    moment = environment.executions.count() + environment.chance.randrange(1, load.executions)
    with anyio.fail_after(SETTLE_SECONDS):
        await environment.executions.reach(moment)
