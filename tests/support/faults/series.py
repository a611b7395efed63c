"""Series of rounds on servers and daemons that are started once: the short campaigns."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

from support.faults.checks import check
from support.faults.deliveries import DATASET, kill_deliverer
from support.faults.environment import (
    ALL,
    CONTROL,
    MANAGER,
    WORKER,
    Environment,
    Fault,
    open_environment,
)
from support.faults.load import Load
from support.faults.outages import SERVERS, check_outage, take_away_under_load
from support.faults.posts import DATASET as POSTED
from support.faults.posts import Posts, check_posts, kill_under_posts
from support.faults.restore import (
    back_up_under_load,
    check_logs,
    of_known_runs,
    restore_under_load,
)
from support.faults.rounds import (
    DRAIN_SECONDS,
    FAULTS,
    SETTLE_SECONDS,
    kill_under_load,
    stall_under_load,
)
from support.faults.state import State, read_state, until_drained, until_idle
from support.faults.waits import (
    WAITS_DAG,
    begin_waits,
    check_waits,
    resume_waits,
    wait_through,
    without_waits,
)

PART = 0.35
"""Of a round's load, what each step has."""
WAITS = 40
KILLS = Fault((ALL - WORKER - MANAGER, MANAGER, WORKER), (ALL, CONTROL, WORKER), lambda _: None)
"""A manager and a worker that have a daemon of their own, beside another or alone."""
PAIR = Fault((), (ALL, ALL), lambda _: None)
OTHERS = (DATASET, POSTED)
"""Datasets of events that are not the load's."""


class SeriesReport(msgspec.Struct, kw_only=True):
    """Result of a series.

    Attributes:
        steps: What was done, and the seconds from the last fault of it until all was at rest.
        executions: Of tasks of the load.
        repeated: Executions that were not the first of their attempt.
        unanswered: Posts that were refused or got no answer; all of them were sent again.
    """

    daemons: str
    seed: int
    steps: list[tuple[str, float]]
    posted: int
    runs: int
    executions: int
    repeated: int
    unanswered: int
    seconds: float


class Series:
    """Does one thing after the other to the daemons and servers of a round, and checks each.

    Args:
        environment: The servers and daemons.
    """

    def __init__(self, environment: Environment):
        self.environment = environment
        self.load = Load(environment.members, environment.chance, part=PART)
        self._started = time.monotonic()
        self._steps: list[tuple[str, float]] = []
        self._runs = self._executions = 0

    async def step(self, name: str, work: Callable[[], Awaitable[Any]]):
        """Do something, wait until all is at rest, and check everything since the beginning."""
        environment = self.environment
        environment.injected_at.clear()
        for member in environment.members:
            await member.ready.wait()
            member.mark_log()
        self.load.refusals.clear()
        began = time.time()
        try:
            await work()
            await until_idle(environment.dsn, SETTLE_SECONDS)
            since = max((began, *environment.injected_at))
            self._steps.append((name, round(time.time() - since, 3)))
            await until_drained(environment.nats, DRAIN_SECONDS)
            await self._check()
        except BaseException as error:
            error.add_note(f"at the step: {name}; before it: {self._steps}")
            raise

    @property
    def runs(self) -> int:
        """How many runs there were at the last check."""
        return self._runs

    @property
    def settled_seconds(self) -> float:
        """How long the last step took to come to rest, after its last fault."""
        return self._steps[-1][1]

    async def kill(self, *kinds: str):
        """Kill one after the other under load, in an order that the seed gives."""
        for kind in self.environment.chance.sample(sorted(kinds), len(kinds)):
            kill = partial(kill_under_load, self.environment, self.load, FAULTS[kind])
            await self.step(f"kill {kind}", kill)

    async def _check(self):
        state = _without_others(without_waits(await read_state(self.environment.dsn)))
        executions = [
            each for each in self.environment.executions.read() if each.dag_id != WAITS_DAG
        ]
        if self.load.forgotten:
            executions = of_known_runs(executions, state)
        check(state, self.load, executions)
        self._runs, self._executions = len(state.runs), len(executions)

    def report(self, daemons: str, seed: int) -> SeriesReport:
        return SeriesReport(
            daemons=daemons,
            seed=seed,
            steps=self._steps,
            posted=len(self.load.ids),
            runs=self._runs,
            executions=self._executions,
            repeated=self.environment.executions.repeated(),
            unanswered=sum(n for code, n in self.load.answers.items() if code not in (200, 202)),
            seconds=round(time.monotonic() - self._started, 3),
        )


async def run_kills(seed: int, folder: Path) -> SeriesReport:
    """Kill each kind of process that is ours, two parts while tasks wait, and restore Postgres."""
    daemons = "one" if seed % 2 else "two"
    async with open_environment(KILLS, daemons, folder, seed) as environment:
        series = Series(environment)
        await series.kill(*FAULTS.keys() - SERVERS)
        parts = environment.chance.sample(sorted(FAULTS.keys() - {"runner"}), 2)
        await series.step(f"kill {parts} while tasks wait", partial(_kill_in_waits, series, parts))
        await series.step("restore", partial(_restore, series, folder / "backup"))
        return series.report(daemons, seed)


async def run_own_servers(seed: int, folder: Path) -> SeriesReport:
    """Kill a daemon and its servers under load, posts and waits, and again while tasks go on."""
    async with open_environment(FAULTS["daemon"], "one", folder, seed) as environment:
        series = Series(environment)
        await series.step("kill it twice", partial(_kill_whole, series))
        return series.report("one", seed)


async def _kill_whole(series: Series):
    environment = series.environment
    posts = Posts(environment.members[0], environment.chance)
    run_id = await begin_waits(environment, WAITS)
    async with anyio.create_task_group() as group:
        group.start_soon(series.load.post)
        group.start_soon(kill_under_posts, environment, posts)
    assert posts.answers[0], "no post was under way when the daemon was killed"
    await resume_waits(environment, "daemon", WAITS)
    await environment.members[0].ready.wait()
    await until_idle(environment.dsn, SETTLE_SECONDS)
    await check_waits(environment.dsn, run_id, WAITS)
    await check_posts(environment.dsn, posts)


async def _kill_in_waits(series: Series, kinds: list[str]):
    environment = series.environment
    run_id = await wait_through(environment, (kinds[0], kinds[1]), WAITS)
    await until_idle(environment.dsn, SETTLE_SECONDS)
    await check_waits(environment.dsn, run_id, WAITS)


async def _restore(series: Series, backup: Path):
    environment = series.environment
    await back_up_under_load(environment, series.load, backup)
    assert await restore_under_load(environment, series.load, backup)
    await check_logs(environment)


async def run_absences(seed: int, folder: Path) -> SeriesReport:
    """Take each server away, kill each, kill the daemon that delivers, and stall one of two."""
    async with open_environment(PAIR, "two", folder, seed) as environment:
        series = Series(environment)
        # First: daemons that have lost a connection shortly before do not say it again.
        for server in SERVERS:
            take_away = partial(take_away_under_load, environment, series.load, server)
            await series.step(f"{server} away", take_away)
            await check_outage(server, series.load, environment.members)
        await series.kill(*SERVERS)
        await series.step("kill the deliverer", partial(kill_deliverer, environment))
        await series.step("stall", partial(stall_under_load, environment, series.load))
        return series.report("two", seed)


def _without_others(state: State) -> State:
    events = {key: each for key, each in state.events.items() if each[1] not in OTHERS}
    return msgspec.structs.replace(state, events=events)
