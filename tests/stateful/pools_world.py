"""A world in which tasks compete for slots: the database itself watches every commit."""

import random
from contextlib import suppress

import anyio
import asyncpg
from core_rig import Order, Rig
from dag_specs import dag, task
from manager_world import KILL

from pubsubflow.errors import InvalidInput, NotFound, StoreUnavailable
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.model.runs.waits import Wait, Waiting
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, ClearTasks, RemovePool, SetPool, StartRun
from pubsubflow.model.wire.messages import Outcome, TaskError, encode

CHECKS = """
-- What each limit has and uses, after what is committed and what this transaction has done.
CREATE VIEW bound AS
SELECT line.id AS line, named.name, coalesce(nullif(most.most, 0), pool.slots) AS slots,
       (SELECT count(*) FROM slot JOIN line AS other ON other.id = slot.line
        WHERE slot.held AND named.name = ANY(other.limits)) AS used
FROM line
CROSS JOIN unnest(line.limits) WITH ORDINALITY AS named (name, place)
JOIN unnest(line.most) WITH ORDINALITY AS most (most, place) USING (place)
LEFT JOIN pool ON named.name = 'pool:' || pool.name;

CREATE FUNCTION check_slot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'slot' THEN
        INSERT INTO violation SELECT format('%s: %s of %s slots used', name, used, slots)
        FROM bound WHERE line = NEW.line AND NEW.held AND used > slots
                     AND EXISTS (SELECT FROM slot WHERE held AND slot.position = NEW.position);
        INSERT INTO violation SELECT format('%s was passed over for %s', slot, NEW)
        FROM slot WHERE line = NEW.line AND NEW.held AND NOT held
                    AND (-priority, position) < (-NEW.priority, NEW.position);
    END IF;
    INSERT INTO violation SELECT format('%s waits for nothing', slot)
    FROM slot WHERE NOT held AND NOT EXISTS (
        SELECT FROM bound WHERE bound.line = slot.line AND used >= slots
    );
    INSERT INTO violation SELECT format('%s counts wrong: %s', line, counted)
    FROM line LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE held) AS used, count(*) FILTER (WHERE NOT held) AS waiting
        FROM slot WHERE slot.line = line.id
    ) AS counted ON true
    WHERE (line.used, line.waiting) <> (counted.used, counted.waiting);
    INSERT INTO violation SELECT format('%s is a task in state %s', slot, task_live.state)
    FROM slot LEFT JOIN task_live USING (run, node, map_index)
    WHERE slot.held <> coalesce(task_live.state IN ('queued', 'running'), false)
       OR slot.held = coalesce(task_live.state = 'ready', true);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_slot AFTER INSERT OR UPDATE OR DELETE ON slot
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_slot();
CREATE CONSTRAINT TRIGGER check_pool AFTER INSERT OR UPDATE OR DELETE ON pool
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_slot();
"""
OUTCOMES = [Outcome.SUCCESS] * 8 + [Outcome.FAILED] * 3 + [Outcome.CRASHED] + [Outcome.DEFERRED] * 2
GO = "go"


class PoolsWorld:
    """DAGs whose tasks need slots, and everything that happens to them."""

    def __init__(self, rig: Rig, admin: asyncpg.Connection, seed: int) -> None:
        self.rig = rig
        self.chance = random.Random(seed)
        self._admin = admin
        self._killing = anyio.Lock()
        self._dags = [self._dag(number) for number in range(5)]
        self._runs: list[str] = []
        self._ghosts: list[tuple[Order, object]] = []

    def _dag(self, number: int):
        chance = self.chance
        tasks = []
        for place in range(chance.randint(1, 3)):
            after = [f"t{place - 1}"] if place and chance.random() < 0.6 else []
            tasks.append(
                task(
                    f"t{place}",
                    *after,
                    pool=chance.choice(["p", "p", "q", None]),
                    priority=chance.randint(0, 2),
                    concurrency_key=chance.choice(["k", None, None, None]),
                    retry=RetryPolicy(chance.randint(0, 1)),
                    over=[chance.randint(2, 4)] if chance.random() < 0.4 else [],
                )
            )
        return dag(
            f"dag{number}",
            *tasks,
            max_active_runs=chance.randint(1, 4),
            max_active_tasks=chance.choice([None, None, 1, 3]),
        )

    async def play(self, steps: int) -> None:
        """Do that many things, many of them side by side; then let everything come to its end."""
        await self.rig.load(*self._dags)
        while steps > 0:
            burst = min(steps, self.chance.randint(1, 20))
            steps -= burst
            async with anyio.create_task_group() as group:
                for _ in range(burst):
                    group.start_soon(self._anything())
        await self._come_to_an_end()

    def _anything(self):
        happenings = {
            self._start: 14,
            self._work: 45,
            self._haunt: 4,
            self._go: 5,
            self._cancel: 3,
            self._clear: 7,
            self._set_pool: 6,
            self._remove_pool: 1,
            self._kill: 1,
        }
        return self.chance.choices(list(happenings), list(happenings.values()))[0]

    async def _call(self, call):
        """Ask again, as a client does, while the answer is to try again."""
        manager = self.chance.randrange(len(self.rig.managers))
        while True:
            try:
                return await self.rig.call(call, manager=manager)
            except StoreUnavailable:
                await anyio.sleep(0.05)  # a client's pause

    async def _start(self) -> None:
        self._runs.append(await self._call(StartRun(self.chance.choice(self._dags).dag_id)))

    async def _cancel(self) -> None:
        if self._runs:
            with suppress(InvalidInput):  # it has ended
                await self._call(CancelRun(self.chance.choice(self._runs)))

    async def _clear(self) -> None:
        if not self._runs:
            return
        names = tuple(self.chance.choices(["t0", "t0.1", "t1", "t2"], k=self.chance.randint(0, 2)))
        call = ClearTasks(
            self.chance.choice(self._runs),
            names,
            downstream=self.chance.random() < 0.5,
            only_failed=self.chance.random() < 0.3,
        )
        with suppress(InvalidInput, NotFound):  # nothing to clear
            await self._call(call)

    async def _set_pool(self) -> None:
        await self._call(SetPool(self.chance.choice("pq"), self.chance.randint(0, 3)))

    async def _remove_pool(self) -> None:
        with suppress(NotFound):
            await self._call(RemovePool(self.chance.choice("pq")))

    async def _go(self) -> None:
        with suppress(StoreUnavailable):
            await self.rig.post(GO)

    async def _kill(self) -> None:
        async with self._killing:
            await self._admin.fetchval(KILL)

    async def _work(self) -> None:
        """Let a worker do something with an order it holds."""
        if self.rig.orders:
            order = self.rig.orders.pop(self.chance.randrange(len(self.rig.orders)))
            outcome = self.chance.choice(OUTCOMES)
            error = TaskError("E", "no") if outcome is not Outcome.SUCCESS else None
            waiting = b""
            if outcome is Outcome.DEFERRED:
                key = str(len(order.message.steps or ()))
                waiting = encode(Waiting(key, "it", (Wait("event", f"x://{GO}"),)))
            self._tell(order, order.result(outcome, error=error, waiting=waiting))

    def _tell(self, order: Order, result) -> None:
        self._ghosts.append((order, result))
        self.rig.answer(order, [result])

    async def _haunt(self) -> None:
        """Send an old result once more."""
        if self._ghosts:
            order, result = self.chance.choice(self._ghosts)
            self.rig.answer(order, [result])

    async def _come_to_an_end(self) -> None:
        """Let workers and servers behave from now on, until nothing is left to do."""
        rig = self.rig
        await self._call(SetPool("p", 2))
        await self._call(SetPool("q", 1))
        settings = SweeperSettings(undelivered_seconds=0.5, worker_seconds=0.5)
        sweeper = Sweeper(
            database=rig.database, bus=rig.bus, calls=rig.managers[0], settings=settings
        )
        next_sweep = anyio.current_time() + 0.3
        rig.automatic = lambda order: [order.result(worker="good")]
        while rig.orders:
            order = rig.orders.pop()
            rig.answer(order, [order.result(worker="good")])
        with anyio.fail_after(60):
            while await rig.value(
                "SELECT (SELECT count(*) FROM run_live) + (SELECT count(*) FROM run_queue)"
            ):
                changed = rig.changed
                if anyio.current_time() > next_sweep:
                    await self._go()
                    await sweeper.sweep()
                    next_sweep = anyio.current_time() + 0.3
                with anyio.move_on_after(0.1):
                    await changed.wait()
