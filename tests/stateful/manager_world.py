"""A small world that misbehaves: DAGs, senders, workers, connections that break."""

import random
from collections import defaultdict
from contextlib import suppress
from functools import partial

import anyio
import asyncpg
import msgspec
from core_rig import Order, Rig, chain_of, post
from dag_specs import dag, task

from pubsubflow.errors import InvalidInput, StoreUnavailable
from pubsubflow.manager import Sweeper, SweeperSettings
from pubsubflow.model.runs.states import RUN_TRANSITIONS, TASK_TRANSITIONS
from pubsubflow.model.spec import DagSpec, RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, SetPaused, StartRun
from pubsubflow.model.wire.messages import (
    NO_NODE,
    GoneMessage,
    Outcome,
    ResultMessage,
    StartedMessage,
    TaskError,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects

SOURCES = ["s0", "s1", "s2"]
SHARED = ["(s0 & s1) | (s0 & s2)", "(s0 | s1) & (s1 | s2)"]  # one event in several places
OUTCOMES = [Outcome.SUCCESS] * 16 + [Outcome.FAILED] * 2 + [Outcome.CRASHED] * 2 + [Outcome.SKIPPED]
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
CREATE FUNCTION check_gate() RETURNS trigger LANGUAGE plpgsql AS $$
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
        INSERT INTO violation VALUES (format('gate %s says %s, not %s %s %s',
            NEW.dag, NEW, active, live, queued));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER check_gate AFTER UPDATE OF active, queued ON gate
    FOR EACH ROW EXECUTE FUNCTION check_gate();
"""
KILL = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def watch(admin: asyncpg.Connection) -> None:
    """Let the database itself check every transition and every count."""
    await admin.execute(CHECKS)
    rows = [
        (kind, str(old), str(new))
        for kind, table in (("run", RUN_TRANSITIONS), ("task", TASK_TRANSITIONS))
        for old, after in table.items()
        for new in after
    ]
    await admin.executemany("INSERT INTO allowed VALUES ($1, $2, $3)", rows)


class World:
    """Random DAGs, and everything that happens to them."""

    def __init__(self, rig: Rig, admin: asyncpg.Connection, seed: int) -> None:
        self.rig = rig
        self.chance = random.Random(seed)
        self.conditions: dict[str, str] = {}
        self.posted: set[str] = set()
        self.unsure: set[str] = set()
        self.answers: dict[str, list] = defaultdict(list)
        self.runs: dict[str, set[str]] = defaultdict(set)
        self._admin = admin
        self._killing = anyio.Lock()
        self._specs: list[DagSpec] = [self._dag(number) for number in range(6)]
        self.last_nodes = {spec.dag_id: len(spec.tasks) - 1 for spec in self._specs}
        self._ghosts: list[ResultMessage] = []
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
        for place in range(chance.randint(1, 4)):
            after = [f"t{place - 1}"] if place else []
            retry = RetryPolicy(chance.randint(0, 2))
            over = [2] if chance.random() < 0.15 and kind != "empty" else []
            tasks.append(task(f"t{place}", *after, kind=kind, retry=retry, over=over))
        tasks[-1]["outlets"] = (f"x://d{number}",)
        limit = chance.randint(1, 3)
        return dag(f"dag{number}", *tasks, on=condition, max_active_runs=limit)

    def _condition(self, names: list[str], leaves: int) -> str:
        if leaves == 1:
            return self.chance.choice(names)
        left = self.chance.randint(1, leaves - 1)
        sides = self._condition(names, left), self._condition(names, leaves - left)
        return f"({sides[0]} {self.chance.choice('&|')} {sides[1]})"

    async def play(self, steps: int) -> None:
        """Do that many things, many of them side by side; then let everything come to its end."""
        limits = [(spec.dag_id, spec.max_active_runs) for spec in self._specs]
        await self._admin.executemany("INSERT INTO dag_limit VALUES ($1, $2)", limits)
        await self.rig.load(*self._specs)
        while steps > 0:
            burst = min(steps, self.chance.randint(1, 25))
            steps -= burst
            async with anyio.create_task_group() as group:
                for _ in range(burst):
                    group.start_soon(self._anything())
        await self._come_to_an_end()

    def _anything(self):
        happenings = {
            self._post: 25,
            self._work: 45,
            self._haunt: 6,
            self._post_again: 4,
            self._start: 4,
            self._pause: 3,
            self._unpause: 4,
            self._cancel: 2,
            self._new_version: 1,
            self._kill: 1,
        }
        return self.chance.choices(list(happenings), list(happenings.values()))[0]

    def _manager(self) -> int:
        return self.chance.randrange(len(self.rig.managers))

    def _some_dag(self) -> str:
        return self.chance.choice(self._specs).dag_id

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
            (recorded,) = await self._patiently(call)
            self.answers[name].append(recorded)
            return
        try:
            await self.rig.call(call, manager=self._manager())
        except StoreUnavailable:
            self.posted.discard(name)
            self.unsure.add(name)

    async def _patiently(self, call):
        """Ask again, as a client does, while the answer is to try again."""
        while True:
            try:
                return await self.rig.call(call, manager=self._manager())
            except StoreUnavailable:
                await anyio.sleep(0.05)  # a client's pause

    async def _start(self) -> None:
        key = f"m{self.chance.randint(1, 30)}"
        dag_id = self._some_dag()
        run_id = await self._patiently(StartRun(dag_id, run_key=key))
        self.runs[f"{dag_id} {key}"].add(run_id)

    async def _pause(self) -> None:
        await self._patiently(SetPaused(self._some_dag(), paused=True))

    async def _unpause(self) -> None:
        await self._patiently(SetPaused(self._some_dag(), paused=False))

    async def _cancel(self) -> None:
        if self.rig.seen:
            run_id = self.chance.choice(self.rig.seen).info.run_id
            with suppress(InvalidInput):  # it has ended, or is just changing
                await self._patiently(CancelRun(run_id))

    async def _new_version(self) -> None:
        place = self.chance.randrange(len(self._specs))
        spec = self._specs[place]
        self._names += 1
        self._specs[place] = msgspec.structs.replace(spec, description=f"{self._names}")
        with suppress(StoreUnavailable):  # its connection was killed
            await self.rig.load(self._specs[place])

    async def _kill(self) -> None:
        async with self._killing:
            await self._admin.fetchval(KILL)

    async def _work(self) -> None:
        """Let a worker do something with an order it holds."""
        orders = self.rig.orders
        if not orders:
            return
        order = orders.pop(self.chance.randrange(len(orders)))
        self._names += 1
        fate = self.chance.random()
        if fate < 0.05:
            order.delivery.nak()  # its worker died before it said anything
        elif fate < 0.10:  # NATS gave it to two workers
            both = self._told(order, f"w{self._names}a") + self._told(order, f"w{self._names}b")
            self._publish(order, self.chance.sample(both, len(both)))
        else:
            if fate < 0.2:
                self._tell(Subjects.STARTED, StartedMessage(*_fence(order), f"w{self._names}", 1.0))
            results = self._told(order, f"w{self._names}")
            if self.chance.random() < 0.2:
                self.chance.shuffle(results)
            self._publish(order, results)

    def _told(self, order: Order, worker: str) -> list:
        """Return what a worker tells of an order and of the chain after it, until it dies."""
        told: list = []
        chain = order.message.chain
        for place in range(len(chain) + 1):
            outcome = self.chance.choice(OUTCOMES)
            goes_on = outcome is Outcome.SUCCESS and place < len(chain)
            goes_on = goes_on and self.chance.random() < 0.9
            error = TaskError("E", "no", final=self.chance.random() < 0.1)
            told.append(
                order.result(
                    outcome,
                    worker=worker,
                    chain=place,
                    then=chain[place] if goes_on else NO_NODE,
                    error=None if outcome is Outcome.SUCCESS else error,
                )
            )
            if not goes_on:
                break
            if self.chance.random() < 0.07:
                told.append(GoneMessage(worker))
                break
        return told

    def _publish(self, order: Order, told: list) -> None:
        for message in told:
            if isinstance(message, GoneMessage):
                self._tell(Subjects.GONE, message)
                continue
            times = 2 if self.chance.random() < 0.1 else 1
            for _ in range(times):
                self.rig.answer(order, [message])
            self._ghosts.append(message)

    async def _haunt(self) -> None:
        """Send an old result once more, perhaps with another outcome."""
        if self._ghosts:
            ghost = self.chance.choice(self._ghosts)
            self._tell(Subjects.RESULT, ghost)

    def _tell(self, kind: str, message) -> None:
        self._names += 1
        subject = Subjects.inbound(kind, getattr(message, "run", 0))
        self.rig.hand.publish_durable_nowait(
            subject, encode(message), message_id=f"n{self._names}", on_done=lambda: None
        )

    async def _come_to_an_end(self) -> None:
        """Let workers and servers behave from now on, until nothing is left to do."""
        rig = self.rig
        for spec in self._specs:
            await self._patiently(SetPaused(spec.dag_id, paused=False))
        settings = SweeperSettings(undelivered_seconds=0.5, worker_seconds=0.5)
        sweeper = Sweeper(database=rig.database, bus=rig.bus, settings=settings)
        next_sweep = anyio.current_time() + 0.3
        rig.automatic = partial(chain_of, worker="good")
        while rig.orders:
            order = rig.orders.pop()
            rig.answer(order, chain_of(order, "good"))
        with anyio.fail_after(60):
            while True:
                changed = rig.changed
                if not await rig.value(
                    "SELECT (SELECT count(*) FROM run_live) + (SELECT count(*) FROM run_queue)"
                ):
                    break
                if anyio.current_time() > next_sweep:
                    await sweeper.sweep()
                    next_sweep = anyio.current_time() + 0.3
                with anyio.move_on_after(0.1):
                    await changed.wait()


def _fence(order: Order) -> tuple[int, int, int, int, int]:
    message = order.message
    return message.run, message.node, message.map_index, message.attempt, message.delivery
