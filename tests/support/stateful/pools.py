"""Random workload of tasks and runs that compete for slots; the database checks every commit."""

from contextlib import suppress
from datetime import UTC, datetime

import asyncpg

from pubsubflow.errors import InvalidInput, NotFound, StoreUnavailable
from pubsubflow.model.limits.keys import KeyPart
from pubsubflow.model.limits.rates import RateLimitSpec
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import (
    CancelRun,
    ClearTasks,
    DeletePool,
    FireTimers,
    MarkTasks,
    SetPool,
    StartRun,
)
from pubsubflow.model.wire.messages import Outcome, TaskError, encode
from pubsubflow.model.wire.waits import Wait, WaitSet
from pubsubflow.store.read.timers import Timers
from support.harness import ManagerHarness, Order
from support.specs import dag, task
from support.stateful.workload import RandomWorkload

CHECKS = """
-- What each limit has and uses, after what is committed and what this transaction has done.
CREATE VIEW bound AS
SELECT wait_queue.id AS wait_queue, named.name, greatest(1, -size.size) AS weight,
       coalesce(nullif(greatest(0, size.size), 0), pool.slots) AS slots,
       (SELECT coalesce(sum(
            greatest(1, -other.capacities[array_position(other.limits, named.name)])
        ), 0)
        FROM slot JOIN wait_queue AS other ON other.id = slot.wait_queue
        WHERE slot.held AND named.name = ANY(other.limits)) AS used
FROM wait_queue
CROSS JOIN unnest(wait_queue.limits) WITH ORDINALITY AS named (name, place)
JOIN unnest(wait_queue.capacities) WITH ORDINALITY AS size (size, place) USING (place)
LEFT JOIN pool ON named.name IN ('pool:' || pool.name, pool.name);

CREATE TABLE start (at timestamptz, rate text);

CREATE FUNCTION check_slot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'slot' THEN
        INSERT INTO start SELECT clock_timestamp(), named FROM wait_queue
        CROSS JOIN unnest(limits) AS named
        WHERE id = NEW.wait_queue AND named LIKE 'rate:%' AND NEW.held AND NOT OLD.held;
        INSERT INTO violation SELECT format('%s: %s of %s slots used', name, used, slots)
        FROM bound WHERE wait_queue = NEW.wait_queue AND NEW.held AND NOT OLD.held AND used > slots
                     AND EXISTS (SELECT FROM slot WHERE held AND slot.position = NEW.position);
        INSERT INTO violation SELECT format('%s was passed over for %s', slot, NEW)
        FROM slot WHERE wait_queue = NEW.wait_queue AND NEW.held AND NOT OLD.held AND NOT held
                    AND (-priority, position) < (-NEW.priority, NEW.position);
    END IF;
    INSERT INTO violation SELECT format('%s waits for nothing', slot)
    FROM slot WHERE NOT held AND NOT EXISTS (
        SELECT FROM bound WHERE bound.wait_queue = slot.wait_queue AND used + weight > slots
    ) AND NOT EXISTS (  -- a rate limit, which has a timer
        SELECT FROM bound JOIN timer ON bound.name = 'rate:' || timer.key
        WHERE bound.wait_queue = slot.wait_queue AND timer.kind = 'rate_limit'
    ) AND NOT EXISTS (  -- a task that gathers slots
        SELECT FROM wait_queue AS own JOIN wait_queue AS other ON own.limits && other.limits
        WHERE own.id = slot.wait_queue AND other.waiting > 0 AND -1 > ANY(other.capacities)
    );
    INSERT INTO violation SELECT format('%s has no queue', slot)
    FROM slot WHERE NOT EXISTS (SELECT FROM wait_queue WHERE wait_queue.id = slot.wait_queue);
    INSERT INTO violation SELECT format('%s counts wrong: %s', wait_queue, counted)
    FROM wait_queue LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE held) AS used, count(*) FILTER (WHERE NOT held) AS waiting
        FROM slot WHERE slot.wait_queue = wait_queue.id
    ) AS counted ON true
    WHERE (wait_queue.used, wait_queue.waiting) <> (counted.used, counted.waiting);
    INSERT INTO violation SELECT format('%s is a task in state %s', slot, task_live.state)
    FROM slot LEFT JOIN task_live USING (run, node, map_index)
    WHERE slot.held <> coalesce(task_live.state IN ('queued', 'running'), false)
       OR slot.held = coalesce(task_live.state = 'ready', true);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_slot AFTER INSERT OR UPDATE OR DELETE ON slot
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_slot();
-- No run starts over the limit of a tag of its DAG.
CREATE TABLE dag_tag (dag_id text, tag text);
CREATE FUNCTION check_active() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO violation SELECT format('%s: %s of %s runs active', name, active.runs, slots)
    FROM pool CROSS JOIN LATERAL (
        SELECT count(*) AS runs, bool_or(run.id = NEW.id) AS has_started
        FROM run JOIN dag ON dag.id = run.dag JOIN dag_tag USING (dag_id)
        WHERE run.state = 'running' AND pool.name = 'runs:tag:' || dag_tag.tag
    ) AS active
    WHERE active.has_started AND active.runs > slots
      AND (TG_OP = 'INSERT' OR OLD.state <> 'running');
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_active AFTER INSERT OR UPDATE OF state ON run
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_active();
CREATE CONSTRAINT TRIGGER check_pool AFTER INSERT OR UPDATE OR DELETE ON pool
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_slot();
"""
OUTCOMES = [Outcome.SUCCESS] * 8 + [Outcome.FAILED] * 3 + [Outcome.CRASHED] + [Outcome.DEFERRED] * 2
GO = "go"
TAGS = ("tag:heavy", "tag:night")
RUN_TAGS = tuple(f"runs:{tag}" for tag in TAGS)
POOLS = ("p", "q", *TAGS, *RUN_TAGS)
RATE = RateLimitSpec("r", 40, 1.0, 3)
KEY = {"concurrency_key": "k", "concurrency_limit": 2}
TENANT = {
    "concurrency_key": "{{ params.tenant }}",
    "key_parts": (KeyPart(path=("params", "tenant")),),
    "concurrency_limit": 2,
}


class PoolsWorkload(RandomWorkload):
    """DAGs whose tasks need slots, and the random actions on them."""

    def __init__(self, harness: ManagerHarness, admin: asyncpg.Connection, seed: int) -> None:
        super().__init__(harness, admin, seed)
        self._dags = [self._dag(number) for number in range(5)]
        self._runs: list[str] = []
        self._old_results: list[tuple[Order, object]] = []

    def _dag(self, number: int):
        chance = self.chance
        tasks = []
        for index in range(chance.randint(1, 3)):
            after = [f"t{index - 1}"] if index and chance.random() < 0.6 else []
            tasks.append(
                task(
                    f"t{index}",
                    *after,
                    pool=chance.choice(["p", "p", "q", None]),
                    priority=chance.randint(0, 2),
                    **chance.choice([KEY, TENANT, {}, {}, {}]),
                    pool_slots=chance.choice([1, 1, 1, 2]),
                    rate_limit=chance.choice([RATE, None, None, None]),
                    retry=RetryPolicy(chance.randint(0, 1)),
                    over=[chance.randint(2, 4)] if chance.random() < 0.4 else [],
                )
            )
        return dag(
            f"dag{number}",
            *tasks,
            max_active_runs=chance.randint(1, 4),
            max_active_tasks=chance.choice([None, None, 1, 3]),
            params={"tenant": "k"},
            tags=chance.choice([(), ("heavy",), ("heavy", "night"), ("other",)]),
            priority=chance.randint(0, 1),
        )

    async def prepare(self) -> None:
        await self.harness.load(*self._dags)
        tags = [(each.dag_id, tag) for each in self._dags for tag in each.tags]
        await self._admin.executemany("INSERT INTO dag_tag VALUES ($1, $2)", tags)

    def actions(self):
        return {
            self._start: 14,
            self._work: 45,
            self._resend_old_result: 4,
            self._go: 5,
            self._cancel: 3,
            self._clear: 7,
            self._mark: 5,
            self._set_pool: 8,
            self._remove_pool: 3,
            self._fire_timers: 6,
            self.kill_connections: 1,
        }

    async def _start(self) -> None:
        dag_id = self.chance.choice(self._dags).dag_id
        params = {"tenant": self.chance.choice("klm")}
        self._runs.append(await self.call(StartRun(dag_id, params)))

    async def _cancel(self) -> None:
        if self._runs:
            with suppress(InvalidInput):  # it has ended
                await self.call(CancelRun(self.chance.choice(self._runs)))

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
            await self.call(call)

    async def _mark(self) -> None:
        if not self._runs:
            return
        names = tuple(self.chance.choices(["t0", "t0.1", "t1", "t2"], k=self.chance.randint(0, 2)))
        call = MarkTasks(
            self.chance.choice(self._runs),
            self.chance.choice(["success", "failed", *["skipped"] * bool(names)]),
            names,
            downstream=self.chance.random() < 0.3,
        )
        with suppress(InvalidInput, NotFound):  # nothing to mark
            await self.call(call)

    async def _set_pool(self) -> None:
        await self.call(SetPool(self.chance.choice(POOLS), self.chance.randint(0, 3)))

    async def _remove_pool(self) -> None:
        with suppress(NotFound):
            await self.call(DeletePool(self.chance.choice(POOLS)))

    async def _fire_timers(self) -> None:
        with suppress(StoreUnavailable):
            upcoming = await Timers(self.harness.database).upcoming()
            due = tuple(timer for timer in upcoming if timer.due_at <= datetime.now(UTC))
            await self.harness.call(FireTimers(due), manager=self.any_manager())

    async def _go(self) -> None:
        with suppress(StoreUnavailable):
            await self.harness.post(GO)

    async def _go_on(self) -> None:
        """Go on with what waits for the event, and with what waits for a rate limit."""
        await self._go()
        await self._fire_timers()

    async def _work(self) -> None:
        """Act as a worker on an order that it has received."""
        if self.harness.orders:
            order = self.harness.orders.pop(self.chance.randrange(len(self.harness.orders)))
            outcome = self.chance.choice(OUTCOMES)
            error = TaskError("E", "no") if outcome is not Outcome.SUCCESS else None
            wait_set = b""
            if outcome is Outcome.DEFERRED:
                key = str(len(order.message.journal or ()))
                wait_set = encode(WaitSet(key, "it", (Wait("event", f"x://{GO}"),)))
            self._send(order, order.result(outcome, error=error, wait_set=wait_set))

    def _send(self, order: Order, result) -> None:
        self._old_results.append((order, result))
        self.harness.answer(order, [result])

    async def _resend_old_result(self) -> None:
        """Send an old result once more."""
        if self._old_results:
            order, result = self.chance.choice(self._old_results)
            self.harness.answer(order, [result])

    async def drain(self) -> None:
        await self.call(SetPool("p", 2))
        await self.call(SetPool("q", 2))
        for name in (*TAGS, *RUN_TAGS):
            with suppress(NotFound):
                await self.call(DeletePool(name) if "heavy" in name else SetPool(name, 2))
        await self.answer_everything(
            lambda order: [order.result(worker="good")],
            calls=self.harness.managers[0],
            before_sweep=self._go_on,
        )
