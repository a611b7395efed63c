"""Random workload of DAGs: senders, workers that fail, new versions, connections that break."""

from collections import defaultdict
from contextlib import suppress

import asyncpg
import msgspec

from pubsubflow.errors import InvalidInput, StoreUnavailable
from pubsubflow.model.runs.states import RUN_TRANSITIONS, TASK_TRANSITIONS
from pubsubflow.model.schedule.checks import CHECK_PREFIX
from pubsubflow.model.spec import DagSpec, RetryPolicy
from pubsubflow.model.wire.commands import (
    CancelRun,
    RequeueOrphans,
    SetPaused,
    SettleHeldEvents,
    StartRun,
    SweepChecks,
)
from pubsubflow.model.wire.messages import (
    NO_NODE,
    Outcome,
    ResultMessage,
    StartedMessage,
    TaskError,
    WorkerLostMessage,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from support.harness import ManagerHarness, Order, chain_of, fence_of, post
from support.reference.checks import RELEASES, finding
from support.specs import check, dag, task, uri
from support.stateful.workload import RandomWorkload

SOURCES = ["s0", "s1", "s2"]
SHARED = ["(s0 & s1) | (s0 & s2)", "(s0 | s1) & (s1 | s2)"]  # one event at several inputs
OUTCOMES = [Outcome.SUCCESS] * 16 + [Outcome.FAILED] * 2 + [Outcome.CRASHED] * 2 + [Outcome.SKIPPED]
CHECKED = ["s0", "d0"]
HELD = "SELECT event_id FROM held_event WHERE discarded_at IS NULL ORDER BY random() LIMIT 3"
WAITING = "SELECT count(*) FROM check_result WHERE outcome = 'waiting'"
RUNNING = """
SELECT worker, run, node, map_index, attempt, delivery FROM task_live
WHERE state = 'running' AND worker IS NOT NULL
ORDER BY run, node, map_index
"""
CHECKS = """
CREATE TABLE violation (what text);
CREATE TABLE allowed (kind text, source text, target text);
CREATE TABLE dag_limit (dag_id text, runs int);
CREATE FUNCTION check_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.state <> NEW.state AND NOT EXISTS (
        SELECT FROM allowed WHERE (kind, source, target) = ('run', OLD.state, NEW.state)
    ) THEN
        INSERT INTO violation VALUES (format('run %s: %s to %s', OLD.id, OLD.state, NEW.state));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER check_run AFTER UPDATE ON run FOR EACH ROW EXECUTE FUNCTION check_run();
CREATE FUNCTION check_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (OLD.state <> NEW.state OR (OLD.attempt, OLD.delivery) <> (NEW.attempt, NEW.delivery))
       AND NOT EXISTS (
        SELECT FROM allowed WHERE (kind, source, target) = ('task', OLD.state, NEW.state)
    ) THEN
        INSERT INTO violation
        VALUES (format('task of run %s: %s to %s', OLD.run, OLD.state, NEW.state));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER check_task AFTER UPDATE ON task_live FOR EACH ROW EXECUTE FUNCTION check_task();
CREATE FUNCTION check_dag_state() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    active int := (SELECT count(*) FROM run WHERE dag = NEW.dag AND state = 'running');
    live int := (SELECT count(*) FROM run_live WHERE dag = NEW.dag);
    queued int := (SELECT count(*) FROM run_queue WHERE dag = NEW.dag);
    most int := (SELECT runs FROM dag_limit JOIN dag USING (dag_id) WHERE dag.id = NEW.dag);
BEGIN
    IF active > most THEN
        INSERT INTO violation VALUES (format('DAG %s has %s active runs', NEW.dag, active));
    END IF;
    IF (active, live, queued) <> (NEW.active, NEW.active, NEW.queued) THEN
        INSERT INTO violation VALUES (format('DAG state %s says %s, not %s %s %s',
            NEW.dag, NEW, active, live, queued));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER check_dag_state AFTER UPDATE OF active, queued ON dag_state
    FOR EACH ROW EXECUTE FUNCTION check_dag_state();
"""


async def watch(admin: asyncpg.Connection) -> None:
    """Have the database check every transition and every count, by triggers."""
    await admin.execute(CHECKS)
    await admin.execute(RELEASES)
    rows = [
        (kind, str(old), str(new))
        for kind, table in (("run", RUN_TRANSITIONS), ("task", TASK_TRANSITIONS))
        for old, after in table.items()
        for new in after
    ]
    await admin.executemany("INSERT INTO allowed VALUES ($1, $2, $3)", rows)


class ManagerWorkload(RandomWorkload):
    """Random DAGs, and the random actions on them; with an odd seed, datasets have checks."""

    burst = 25

    def __init__(self, harness: ManagerHarness, admin: asyncpg.Connection, seed: int) -> None:
        super().__init__(harness, admin, seed)
        self.checks = _checks() if seed % 2 else []
        self.conditions: dict[str, str] = {}
        self.posted: set[str] = set()
        self.unsure: set[str] = set()
        self.answers: dict[str, list] = defaultdict(list)
        self.runs: dict[str, set[str]] = defaultdict(set)
        self._specs: list[DagSpec] = [self._dag(number) for number in range(6)]
        self.last_nodes = {spec.dag_id: len(spec.tasks) - 1 for spec in self._specs}
        self._old_results: list[ResultMessage] = []
        self._names = 0

    def _dag(self, number: int) -> DagSpec:
        chance = self.chance
        names = SOURCES + [f"d{before}" for before in range(number)]
        names = chance.sample(names, chance.randint(1, 3))
        condition = dict(enumerate(SHARED)).get(number)
        condition = condition or self._condition(names, chance.randint(1, 4))
        self.conditions[f"dag{number}"] = condition
        kind = "empty" if chance.random() < 0.15 else "async"
        tasks = []
        for index in range(chance.randint(1, 4)):
            after = [f"t{index - 1}"] if index else []
            retry = RetryPolicy(chance.randint(0, 2))
            over = [2] if chance.random() < 0.15 and kind != "empty" else []
            tasks.append(task(f"t{index}", *after, kind=kind, retry=retry, over=over))
        if kind != "empty" and chance.random() < 0.25:
            # All but the first in one group over three elements.
            for each in tasks[1:]:
                each |= {"over": [3], "map_group": "g"}
        tasks[-1]["outlets"] = (f"x://d{number}",)
        limit = chance.randint(1, 3)
        return dag(f"dag{number}", *tasks, on=condition, max_active_runs=limit)

    def _condition(self, names: list[str], leaves: int) -> str:
        if leaves == 1:
            return self.chance.choice(names)
        left = self.chance.randint(1, leaves - 1)
        sides = self._condition(names, left), self._condition(names, leaves - left)
        return f"({sides[0]} {self.chance.choice('&|')} {sides[1]})"

    async def prepare(self) -> None:
        limits = [(spec.dag_id, spec.max_active_runs) for spec in self._specs]
        await self._admin.executemany("INSERT INTO dag_limit VALUES ($1, $2)", limits)
        if self.checks:
            checked = [(uri(name),) for name in CHECKED]
            await self._admin.executemany("INSERT INTO checked VALUES ($1)", checked)
        await self.harness.load(*self._specs, *self.checks)

    def actions(self):
        with_checks = {self._settle: 5, self._sweep_checks: 3} if self.checks else {}
        return with_checks | {
            self._post: 25,
            self._work: 45,
            self._resend_old_result: 6,
            self._post_again: 4,
            self._start: 4,
            self._pause: 3,
            self._unpause: 4,
            self._cancel: 2,
            self._requeue_orphans: 6,
            self._new_version: 1,
            self.kill_connections: 1,
        }

    def _some_dag(self) -> str:
        return self.chance.choice(self._specs).dag_id

    def _any_dag(self) -> str:
        return self.chance.choice([*self._specs, *self.checks]).dag_id

    async def _post(self) -> None:
        """Post one to three events, each with a name of its own, some with a key."""
        count = self.chance.randint(1, 3)
        for _ in range(count):
            self._names += 1
            name = f"e{self._names}"
            self.posted.add(name)
            keys = (name,) if self.chance.random() < 0.5 else (None,)
            await self._send(self.chance.choice(SOURCES), name, keys)

    async def _post_again(self) -> None:
        if self._names:
            name = f"e{self.chance.randint(1, self._names)}"
            if name in self.answers:  # it had a key; whatever comes under it now is the first
                await self._send(self.chance.choice(SOURCES), name, (name,))

    async def _send(self, dataset: str, name: str, keys) -> None:
        call = post(dataset, keys=keys, extra={"name": name})
        if keys != (None,):
            (recorded,) = await self.call(call)
            self.answers[name].append(recorded)
            return
        try:
            await self.harness.call(call, manager=self.any_manager())
        except StoreUnavailable:
            self.posted.discard(name)
            self.unsure.add(name)

    async def _start(self) -> None:
        key = f"m{self.chance.randint(1, 30)}"
        dag_id = self._some_dag()
        run_id = await self.call(StartRun(dag_id, run_key=key))
        self.runs[f"{dag_id} {key}"].add(run_id)

    async def _pause(self) -> None:
        await self.call(SetPaused(self._any_dag(), paused=True))

    async def _unpause(self) -> None:
        await self.call(SetPaused(self._any_dag(), paused=False))

    async def _cancel(self) -> None:
        if self.harness.received:
            run_id = self.chance.choice(self.harness.received).info.run_id
            with suppress(InvalidInput):  # it has ended, or is just changing
                await self.call(CancelRun(run_id))

    async def _requeue_orphans(self) -> None:
        """Have tasks run again that a worker has, or has ended: a false alarm must do no harm."""
        with suppress(StoreUnavailable):  # its connection was killed
            rows = await self.harness.rows(RUNNING)
            chosen = self.chance.sample(rows, min(len(rows), 3))
            await self.call(RequeueOrphans(tuple((row[0], tuple(row)[1:]) for row in chosen)))

    async def _settle(self) -> None:
        """Release or discard some events that are held, or check them again."""
        with suppress(StoreUnavailable):  # its connection was killed
            rows = await self.harness.rows(HELD)
            events = tuple(row["event_id"] for row in rows)
            action = self.chance.choice(["release", "discard", "run-again", "run-again"])
            await self.call(SettleHeldEvents(action, events, "ann"))

    async def _sweep_checks(self) -> None:
        with suppress(StoreUnavailable):
            rows = await self.harness.rows("SELECT id FROM dag WHERE dag_id LIKE 'check:%'")
            await self.call(SweepChecks(tuple(row["id"] for row in rows)))

    async def _new_version(self) -> None:
        index = self.chance.randrange(len(self._specs))
        spec = self._specs[index]
        self._names += 1
        self._specs[index] = msgspec.structs.replace(spec, description=f"{self._names}")
        with suppress(StoreUnavailable):  # its connection was killed
            await self.harness.load(self._specs[index])

    async def _work(self) -> None:
        """Act as a worker on an order that it has received."""
        orders = self.harness.orders
        if not orders:
            return
        order = orders.pop(self.chance.randrange(len(orders)))
        self._names += 1
        roll = self.chance.random()
        if roll < 0.05:
            order.delivery.nak()  # its worker died before it reported
        elif roll < 0.10:  # NATS gave it to two workers
            both = self._results(order, f"w{self._names}a") + self._results(
                order, f"w{self._names}b"
            )
            self._send_results(order, self.chance.sample(both, len(both)))
        elif roll < 0.25:  # it runs for long
            self._report_start(order)
            orders.append(order)
        else:
            if roll < 0.35:
                self._report_start(order)
            results = self._results(order, f"w{self._names}")
            if self.chance.random() < 0.2:
                self.chance.shuffle(results)
            self._send_results(order, results)

    def _report_start(self, order: Order) -> None:
        started = StartedMessage(*fence_of(order.message), f"w{self._names}", 1.0)
        self._publish(Subjects.STARTED, started)

    def _results(self, order: Order, worker: str) -> list:
        """Return a worker's messages about an order and the chain after it, until it dies."""
        messages: list = []
        chain = order.message.chain
        for index in range(len(chain) + 1):
            outcome = self.chance.choice(OUTCOMES)
            goes_on = outcome is Outcome.SUCCESS and index < len(chain)
            goes_on = goes_on and self.chance.random() < 0.9
            error = TaskError("E", "no", final=self.chance.random() < 0.1)
            messages.append(
                order.result(
                    outcome,
                    worker=worker,
                    chain=index,
                    then=chain[index] if goes_on else NO_NODE,
                    value=_value(order) if outcome is Outcome.SUCCESS else None,
                    error=None if outcome is Outcome.SUCCESS else error,
                )
            )
            if not goes_on:
                break
            if self.chance.random() < 0.07:
                messages.append(WorkerLostMessage(worker))
                break
        return messages

    def _send_results(self, order: Order, messages: list) -> None:
        for message in messages:
            if isinstance(message, WorkerLostMessage):
                self._publish(Subjects.WORKER_LOST, message)
                continue
            times = 2 if self.chance.random() < 0.1 else 1
            for _ in range(times):
                self.harness.answer(order, [message])
            self._old_results.append(message)

    async def _resend_old_result(self) -> None:
        """Send an old result once more, perhaps with another outcome."""
        if self._old_results:
            result = self.chance.choice(self._old_results)
            self._publish(Subjects.RESULT, result)

    def _publish(self, kind: str, message) -> None:
        self._names += 1
        subject = Subjects.inbound(kind, getattr(message, "run", 0))
        self.harness.worker_bus.publish_durable_nowait(
            subject, encode(message), message_id=f"n{self._names}", on_done=lambda: None
        )

    async def drain(self) -> None:
        for spec in [*self._specs, *self.checks]:
            await self.call(SetPaused(spec.dag_id, paused=False))
        await self.answer_everything(_end)
        # What was cancelled in a queue is found by the sweep; what it releases makes runs.
        while self.checks and await self.harness.value(WAITING):
            await self._sweep_checks()
            await self.answer_everything(_end)


def _checks() -> list[DagSpec]:
    return [
        check("both", "s0", max_active_runs=2),
        check("also", "s*0", max_active_runs=16),
        check("quiet", "s1", blocking=False),
        check("emitted", "d0"),
    ]


def _value(order: Order) -> dict | None:
    """Return the result of a task: only those of checks have one."""
    return finding(order.info.run_id) if order.info.dag_id.startswith(CHECK_PREFIX) else None


def _end(order: Order) -> list[ResultMessage]:
    value = _value(order)
    if value is None:
        return chain_of(order, worker="good")
    return [order.result(worker="good", value=value)]
