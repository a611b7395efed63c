"""Random workload: weighted actions against managers, many at once, until nothing is left to do."""

import random
from contextlib import suppress

import anyio
import asyncpg

from pubsubflow.errors import StoreUnavailable
from pubsubflow.manager import Sweeper, SweeperSettings
from support.harness import LIVE_RUNS, ManagerHarness

KILL = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
SWEEP_SECONDS = 0.3
SWEEPER = SweeperSettings(undelivered_seconds=0.5, worker_seconds=0.5)


class RandomWorkload:
    """Actions of users, workers and failing connections, chosen by a seed.

    Attributes:
        burst: At most so many actions run side by side.
    """

    burst = 20

    def __init__(self, harness: ManagerHarness, admin: asyncpg.Connection, seed: int) -> None:
        self.harness = harness
        self.chance = random.Random(seed)
        self._admin = admin
        self._killing = anyio.Lock()

    def actions(self) -> dict:
        """Return the actions, each with its weight."""
        raise NotImplementedError

    async def play(self, steps: int) -> None:
        """Carry out that many actions, and then wait until nothing is left to do."""
        await self.prepare()
        actions = self.actions()
        while steps > 0:
            # What comes alone is decided by remembered rows.
            alone = self.chance.random() < 0.7
            burst = 1 if alone else min(steps, self.chance.randint(1, self.burst))
            steps -= burst
            async with anyio.create_task_group() as group:
                for _ in range(burst):
                    group.start_soon(self.chance.choices([*actions], [*actions.values()])[0])
        await self.drain()

    async def prepare(self) -> None:
        """Load the DAGs."""

    async def drain(self) -> None:
        """End the load; workers answer every order, until no run is live."""

    async def call(self, command):
        """Call a manager again, as a client does, while it answers that Postgres is away."""
        while True:
            with suppress(StoreUnavailable):
                return await self.harness.call(command, manager=self.any_manager())
            await anyio.sleep(0.05)  # a client's pause

    def any_manager(self) -> int:
        return self.chance.randrange(len(self.harness.managers))

    async def kill_connections(self) -> None:
        # One at a time: asyncpg allows one statement a connection.
        async with self._killing:
            await self._admin.fetchval(KILL)

    async def answer_everything(self, results_of, *, calls=None, before_sweep=None) -> None:
        """Answer every order by `results_of` and sweep, until no run is live."""
        harness = self.harness
        sweeper = Sweeper(
            database=harness.database, bus=harness.bus, commands=calls, settings=SWEEPER
        )
        next_sweep = anyio.current_time() + SWEEP_SECONDS
        harness.automatic = results_of
        while harness.orders:
            order = harness.orders.pop()
            harness.answer(order, results_of(order))

        async def done():
            nonlocal next_sweep
            if not await harness.value(LIVE_RUNS):
                return True
            if anyio.current_time() > next_sweep:
                if before_sweep is not None:
                    await before_sweep()
                await sweeper.sweep()
                next_sweep = anyio.current_time() + SWEEP_SECONDS
            return False

        await harness.signal.wait_until(done, seconds=300, poll_seconds=0.1)
