"""Rounds on a cluster: one fault after the other under a steady load, each checked."""

import time
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import msgspec

from support.cluster.environment import Cluster, open_cluster
from support.cluster.faults import FAULTS, ClusterFault
from support.cluster.network import Loopback, Namespaces
from support.faults.load import Load
from support.faults.series import Series

BEFORE_SECONDS = 2
AFTER_SECONDS = 3
PATIENCE_SECONDS = 2
"""A client that gets no answer for so long asks another daemon."""
CLIENTS = 2
_DELAY = """
SELECT max(delay) FROM (
    SELECT extract(epoch FROM run.ended_at - max(event.recorded_at))::float8 AS delay
    FROM run JOIN run_event ON run_event.run = run.id JOIN event ON event.id = run_event.event
    WHERE run.ended_at > to_timestamp($1)
    GROUP BY run.id
) AS delays
"""


class Step(msgspec.Struct, frozen=True):
    """One fault, and what it did.

    Attributes:
        takeover_seconds: Longest time in which no task of all began, though there were events.
        elected_seconds: How much of it had gone when NATS had elected the last leader in it.
        slowest_run_seconds: From an event to the end of its run, at most.
        settled_seconds: From the fault until all that was posted was done.
        healthy_seconds: From then on, until the replicas of all streams were up to date.
        runs: How many there were.
    """

    fault: str
    takeover_seconds: float
    elected_seconds: float
    slowest_run_seconds: float
    settled_seconds: float
    healthy_seconds: float
    runs: int


class ClusterReport(msgspec.Struct, kw_only=True):
    """Result of a round.

    Attributes:
        separate: Whether each machine had a network of its own.
        executions: Of tasks.
        repeated: Executions that were not the first of their attempt.
        unanswered: Posts that were refused or got no answer; all of them were sent again.
        epochs: How often a manager found that the database may lack something: never, hopefully.
    """

    separate: bool
    seed: int
    steps: list[Step]
    posted: int
    runs: int
    executions: int
    repeated: int
    unanswered: int
    epochs: int
    seconds: float


class ClusterSeries(Series):
    """Plays one fault after the other and measures each.

    Args:
        cluster: The servers and daemons.
    """

    def __init__(self, cluster: Cluster):
        super().__init__(cluster)
        self.cluster = cluster
        self.played: list[Step] = []
        self.load = Load(
            cluster.members,
            cluster.chance,
            patience_seconds=PATIENCE_SECONDS,
            token=cluster.token,
        )

    async def play(self, name: str):
        """Play one fault, wait until all is at rest, and check everything since the beginning."""
        began, runs = time.time(), self.runs
        await self.step(name, partial(self._under_load, FAULTS[name]))
        at_rest = time.monotonic()
        await self.cluster.nats_cluster.until_healthy()
        pause_began, pause_ended = self.cluster.executions.pause(self.cluster.injected_at[0])
        elected = [
            moment - pause_began
            for moment in self.cluster.nats_cluster.elections()
            if pause_began < moment < pause_ended
        ]
        step = Step(
            fault=name,
            takeover_seconds=round(pause_ended - pause_began, 3),
            elected_seconds=round(max(elected, default=0.0), 3),
            slowest_run_seconds=round(await self._read(_DELAY, began) or 0.0, 3),
            settled_seconds=self.settled_seconds,
            healthy_seconds=round(time.monotonic() - at_rest, 3),
            runs=self.runs - runs,
        )
        print(step, flush=True)
        self.played.append(step)

    async def _under_load(self, fault: ClusterFault):
        mended = anyio.Event()
        async with anyio.create_task_group() as group:
            for _ in range(CLIENTS):
                group.start_soon(self._post_until, mended)
            await anyio.sleep(BEFORE_SECONDS)
            self.cluster.injected_at.append(time.time())
            await fault.inject(self.cluster)
            mended.set()

    async def _post_until(self, mended: anyio.Event):
        while not mended.is_set():
            await self.load.post_steadily(1)
        await self.load.post_steadily(AFTER_SECONDS)

    async def _read(self, query: str, *arguments):
        connection = await asyncpg.connect(self.cluster.dsn)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def report_cluster(self, seed: int) -> ClusterReport:
        """Return what was played."""
        whole = self.report("three", seed)
        return ClusterReport(
            separate=self.cluster.network.separate,
            seed=seed,
            steps=self.played,
            posted=whole.posted,
            runs=whole.runs,
            executions=whole.executions,
            repeated=whole.repeated,
            unanswered=whole.unanswered,
            epochs=await self._read("SELECT number FROM store_epoch"),
            seconds=whole.seconds,
        )


async def run_cluster(
    network_type: type[Loopback] | type[Namespaces],
    *,
    seed: int,
    folder: Path,
    names: tuple[str, ...] = (),
) -> ClusterReport:
    """Play a round: each fault once, in an order that the seed gives.

    Args:
        network_type: Where the machines are.
        seed: Of every choice.
        folder: For logs and notes.
        names: Of the faults, in place of all that the network allows.
    """
    async with open_cluster(network_type, folder, seed) as cluster:
        series = ClusterSeries(cluster)
        able = [
            name for name, fault in FAULTS.items() if network_type.separate or not fault.separate
        ]
        for name in names or cluster.chance.sample(able, len(able)):
            await series.play(name)
        return await series.report_cluster(seed)
