"""Real managers on real servers under a clock of our own; notes of what they did in which order.

The order that counts is the log's and that in which gates were locked: every transaction notes, as
its last statement, what it decided about; the numbers of these notes agree with the locks' order.
Only a transaction that began before a subscription was made may pass the DAG by.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import anyio
import asyncpg
import msgspec
from dag_specs import loaded
from reference import Event, Run
from reference_dag import Reference

from pubsubflow.bus import STREAM_TASK, Bus, Puller
from pubsubflow.errors import StoreUnavailable
from pubsubflow.manager import Manager
from pubsubflow.manager.batch import Fold
from pubsubflow.model.schedule.condition_state import decode_cell
from pubsubflow.model.schedule.conditions import describe_schedule, ticks
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.commands import PostEvents, Replay, SetPaused, StartRun, Timer, TimersDue
from pubsubflow.model.wire.messages import (
    Emit,
    NewEvent,
    Outcome,
    ResultMessage,
    TaskMessage,
    decode_task,
    encode,
)  # fmt: skip
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import Database

NOTES = """
CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what jsonb NOT NULL);
CREATE FUNCTION note_version() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO note (what) VALUES (jsonb_build_object('dag', new.dag, 'version', new.version,
                                                       'since', new.since));
    RETURN NULL;
END $$;
CREATE TRIGGER note_version AFTER INSERT OR UPDATE OF version ON gate
    FOR EACH ROW EXECUTE FUNCTION note_version();
"""
PATIENCE = 60
_decode_spec = msgspec.msgpack.Decoder(DagSpec).decode


class NotingFold(Fold):
    """Notes in its own transaction what it did, and tells when it has committed."""

    def __init__(self, news, **given):
        super().__init__(**given)
        self._news = news

    def committed(self, folded):
        super().committed(folded)
        self._news()

    async def fold(self, items, transaction):
        asked = {
            timer.number: timer
            for item in items
            if isinstance(item.what, TimersDue)
            for timer in item.what.timers
        }
        there = set()
        seen = await transaction._connection.fetchval("SELECT coalesce(max(id), 0) FROM note")
        if asked:
            query = "SELECT id FROM timer WHERE id = ANY($1) ORDER BY id FOR UPDATE"
            there = {row[0] for row in await transaction._connection.fetch(query, list(asked))}
        folded = await super().fold(items, transaction)
        ledger = folded.ledger
        what = {
            "now": ledger.now.timestamp(),
            "seen": seen,
            "gates": list(ledger.gates),
            "calls": [
                [item.what.dag_id, *_call(item)]
                for item in items
                if isinstance(item.what, SetPaused | Replay | StartRun) and item.error is None
            ],
            "timers": [
                [timer.kind, timer.dag, timer.node or 0, timer.cell or ""]
                for number, timer in asked.items()
                if number in there
            ],
            "events": [event.number for event in ledger.logged],
            "ended": [
                [run.version.dag, run.facts.run_id]
                for run in ledger.runs.values()
                if run.outcome is not None
            ],
        }
        if any(what[kind] for kind in ("calls", "timers", "events", "ended")):
            await transaction._connection.execute("INSERT INTO note (what) VALUES ($1)", what)
        return folded


def _call(item) -> tuple:
    if isinstance(item.what, SetPaused):
        return ("pause", item.what.paused)
    return ("replay",) if isinstance(item.what, Replay) else ("start", item.answer)


class World:
    """Two managers and a worker moved by hand; every scenario has DAGs and datasets of its own."""

    def __init__(self, postgres, database, bus, hand, group):
        self.postgres, self.database, self.bus, self.hand = postgres, database, bus, hand
        self.group = group
        self.time = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        self.managers: list[Manager] = []
        self.stops: list[anyio.Event] = []
        self.orders: list[TaskMessage] = []
        self.catalog = Catalog(database, now=self.now)
        self.changed = anyio.Event()
        self.told = 0
        self.last_note = 0

    def now(self) -> datetime:
        self.time += timedelta(microseconds=1)  # no two moments are the same
        return self.time

    def news(self) -> None:
        """Somebody has committed, or a task has arrived."""
        self.changed.set()
        self.changed = anyio.Event()

    async def start(self, place: int) -> None:
        fold = NotingFold(self.news, now=self.now)
        manager = Manager(database=self.database, bus=self.bus, fold=fold)
        self.stops[place : place + 1] = [anyio.Event()]
        self.managers[place : place + 1] = [manager]
        await self.group.start(manager.run, self.stops[place])

    async def restart(self, place: int) -> None:
        self.stops[place].set()
        await self.start(place)

    async def call(self, place: int, call):
        with anyio.fail_after(PATIENCE):
            return await self.managers[place % len(self.managers)].call(call)

    async def rows(self, query: str, *arguments):
        async with self.database.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def break_connections(self) -> None:
        """Kill what the managers talk through, wherever they are in their transactions."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name = 'pubsubflow' AND query NOT LIKE '%lock_catalog%'"
            )
        finally:
            await connection.close()

    def take(self, delivery) -> None:
        delivery.ack()
        self.orders.append(decode_task(delivery.data))
        self.news()

    def answer(self, order: TaskMessage, outcome: Outcome, emits: tuple[Emit, ...] = ()) -> None:
        """Send a result; nobody waits for it."""
        self.told += 1
        now = time.time()
        result = ResultMessage(
            order.run, order.node, order.map_index, order.attempt, order.delivery, "w", outcome,
            now, now, emits=emits,
        )  # fmt: skip
        self.hand.publish_durable_nowait(
            Subjects.inbound(Subjects.RESULT, order.run), encode(result),
            message_id=f"hand.{self.told}", on_done=lambda: None,
        )  # fmt: skip


@asynccontextmanager
async def open_world(postgres, nats):
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.open(postgres))
        bus = await stack.enter_async_context(Bus.connect(nats))
        hand = await stack.enter_async_context(Bus.connect(nats))
        await bus.ensure_streams()
        async with database.connection() as connection:
            await connection.execute(NOTES)
        group = await stack.enter_async_context(anyio.create_task_group())
        world = World(postgres, database, bus, hand, group)
        for place in range(2):
            await world.start(place)
        stopping = anyio.Event()
        puller = Puller(
            hand,
            stream=STREAM_TASK,
            durable="default-async",
            filter_subject="psf.task.default.async.>",
            deliver=partial(_deliver, world),
        )
        puller.credit(10_000)
        world.puller = puller
        await group.start(puller.run, stopping)
        try:
            yield world
        finally:
            stopping.set()
            for stop in world.stops:
                stop.set()


def _deliver(world: World, delivery) -> None:
    world.puller.credit(1)
    world.take(delivery)


class Scenario:
    """One scenario's DAGs and datasets in the world, and what the reference makes of its notes."""

    def __init__(self, world: World, name: str):
        self.world, self.name = world, name
        self.numbers: dict[str, int] = {}
        self.files: dict[str, DagSpec] = {}
        self.posted: set[str] = set()
        self.met: Counter[str] = Counter()
        self.after = 0

    async def save(self, *specs: DagSpec) -> None:
        while True:
            try:
                await self.world.catalog.save([loaded(spec) for spec in specs])
            except StoreUnavailable:
                continue
            break
        self.files.update((spec.dag_id, spec) for spec in specs)
        rows = await self.rows(
            "SELECT id, dag_id FROM dag WHERE dag_id = ANY($1)", list(self.files)
        )
        self.numbers = {row["dag_id"]: row["id"] for row in rows}

    async def rows(self, query: str, *arguments):
        while True:
            try:
                return await self.world.rows(query, *arguments)
            except StoreUnavailable:
                continue

    @property
    def dags(self) -> list[int]:
        return list(self.numbers.values())

    async def post(self, place: int, events: Iterable[NewEvent], key: str | None) -> None:
        events = tuple(events)
        keys = tuple(key and f"{self.name}.{key}.{n}" for n in range(len(events)))
        recorded = await self.world.call(place, PostEvents(events, keys))
        self.posted.update(str(each.event_id) for each in recorded)

    async def due(self) -> tuple[Timer, ...]:
        rows = await self.rows(
            "SELECT due_at, kind, dag, run, node, map_index, attempt, cell, id FROM timer"
            " WHERE dag = ANY($1) AND due_at <= $2 ORDER BY due_at, id",
            self.dags, self.world.time,
        )  # fmt: skip
        return tuple(Timer(*row) for row in rows)

    async def fire_timers(self, places: Iterable[int], seconds: float = 0) -> None:
        self.world.time += timedelta(seconds=seconds)
        due = await self.due()
        if due:
            async with anyio.create_task_group() as group:
                for place in places:
                    group.start_soon(self.world.call, place, TimersDue(due))

    async def live(self) -> set[int]:
        rows = await self.rows("SELECT run FROM run_live WHERE dag = ANY($1)", self.dags)
        return {row["run"] for row in rows}

    async def finish(self) -> None:
        """Let every task fail and every timer that is due fire, until nothing moves."""
        with anyio.fail_after(PATIENCE):
            answered: set = set()
            while True:
                changed = self.world.changed
                live = await self.live()
                for order in self.world.orders:
                    fence = (order.run, order.node, order.attempt, order.delivery)
                    if order.run in live and fence not in answered:
                        answered.add(fence)
                        self.world.answer(order, Outcome.FAILED)
                due = await self.due()
                if due:
                    await self.world.call(0, TimersDue(due))
                elif not live:
                    break
                with anyio.move_on_after(1):  # a result may be folded between the two looks
                    await changed.wait()
        self.world.orders.clear()

    async def pass_by(self, order_count: int, dice: random.Random, emits, *, twice: bool) -> None:
        live = await self.live()
        mine = [order for order in self.world.orders if order.run in live]
        dice.shuffle(mine)
        for order in mine[:order_count]:
            outcome = Outcome.FAILED if dice.random() < 0.1 else Outcome.SUCCESS
            for _ in range(2 if twice else 1):
                self.world.answer(order, outcome, emits)

    async def check(self) -> None:
        """Compare what the managers did with what the reference says of the same order."""
        references, now = await self.retold()
        logged = await self.rows(
            "SELECT event_id FROM event JOIN dataset ON dataset.id = event.dataset"
            " WHERE starts_with(uri, $1) AND source = 'api'", f"x://{self.name}/",
        )  # fmt: skip
        assert sorted(str(row["event_id"]) for row in logged) == sorted(self.posted)
        for dag, reference in references.items():
            found, wanted = await self.found(dag), told(reference)
            for kind, there in wanted.items():
                assert found[kind] == there, story(reference, difference(found[kind], there))
            await self.check_fates(dag, reference)
            self.met.update(key.split(":")[0] for key in reference.runs)
            self.met.update(run.kind for run in reference.runs.values() if run.kind == "replay")
            self.met.update(fate for fates in reference.fates.values() for fate in fates)
            assert reference.overdue(now) == [], story(reference, "overdue")

    async def retold(self) -> tuple[dict[int, Reference], float]:
        events = {
            row["id"]: Event(
                row["id"], str(row["event_id"]), row["uri"], row["extra"], row["partition"],
                min(row["time"], row["recorded_at"]).timestamp(),
            )
            for row in await self.rows(
                "SELECT event.*, dataset.uri FROM event JOIN dataset ON dataset.id = event.dataset"
                " WHERE starts_with(uri, $1)", f"x://{self.name}/",
            )
        }  # fmt: skip
        keys = {
            str(row["run_id"]): row["run_key"]
            for row in await self.rows(
                "SELECT run_id, run_key FROM run WHERE dag = ANY($1)", self.dags
            )
        }
        references: dict[int, Reference] = {}
        log: list[Event] = []
        for row in await self.rows(
            "SELECT id, what FROM note WHERE id > $1 ORDER BY id", self.after
        ):
            what = row["what"]
            if "version" in what:
                if what["dag"] in self.dags:
                    await self.versioned(references, what, log)
                    references[what["dag"]].born = row["id"]
                continue
            for dag, reference in references.items():
                retell(self, what, dag, reference, events, keys)
            log += [events[number] for number in sorted(what["events"]) if number in events]
        return references, self.world.time.timestamp()

    async def versioned(self, references: dict, what: dict, log: list[Event]) -> None:
        row = (await self.rows("SELECT spec FROM dag_version WHERE id = $1", what["version"]))[0]
        spec, dag = _decode_spec(row["spec"]), what["dag"]
        if dag not in references:
            references[dag] = Reference(spec.schedule, since=what["since"])
            references[dag].log = list(log)
            references[dag].story = [describe_schedule(spec.schedule)]
        else:
            references[dag].change(spec.schedule)
            references[dag].story.append(describe_schedule(spec.schedule))
        references[dag].hold = spec.on_pause == "hold"
        references[dag].refuses = refuses if spec.params_from else (lambda _: False)

    async def found(self, dag: int) -> dict:
        """Return what the store holds about a DAG, in the reference's words."""
        runs: dict[str, set] = {
            row["run_key"]: set()
            for row in await self.rows(
                "SELECT run_key FROM run WHERE dag = $1 AND kind <> 'manual'", dag
            )
        }
        for row in await self.rows(
            "SELECT run_key, event, place FROM run_event JOIN run ON run.id = run_event.run"
            " WHERE dag = $1", dag,
        ):  # fmt: skip
            if row["run_key"] in runs:
                runs[row["run_key"]].add((row["event"], row["place"]))
        pending = {
            (row["cell"], row["place"], row["event"])
            for row in await self.rows("SELECT * FROM pending WHERE dag = $1", dag)
        }
        cells = await self.rows("SELECT key, state FROM cell WHERE dag = $1", dag)
        counts: dict[tuple[str, int], int] = {}
        for cell, place, _ in pending:
            counts[cell, place] = counts.get((cell, place), 0) + 1
        said = {
            (row["key"], place): state.count
            for row in cells
            for place, state in enumerate(decode_cell(row["state"]).places)
            if state.count
        }
        assert said == counts
        forming = {row["key"] for row in cells if decode_cell(row["state"]).forming}
        return {"runs": runs, "pending": pending, "forming": forming}

    async def check_fates(self, dag: int, reference: Reference) -> None:
        found = {
            (row["event"], row["place"], row["cell"]): row["fate"]
            for row in await self.rows("SELECT * FROM event_fate WHERE dag = $1", dag)
        }
        assert found.keys() == reference.fates.keys(), story(
            reference, difference(found.keys(), reference.fates.keys())
        )
        for key, fate in found.items():
            assert fate in reference.fates[key], story(reference, f"{key} {fate}")


def story(reference: Reference, what: str) -> str:
    """Tell what happened to one DAG, and how it stands with the reference."""
    happened = [each for each in reference.story if isinstance(each, str) or any(each[1:])]
    return "\n".join(
        [what, *map(str, happened), f"ids: {ids(reference)}", f"fates: {reference.fates}"]
    )


def difference(found, wanted) -> str:
    if isinstance(found, dict):
        found, wanted = ({(k, *sorted(v)) for k, v in each.items()} for each in (found, wanted))
    return f"found besides: {found - wanted}\nmissing: {wanted - found}"


def ids(reference: Reference) -> dict:
    return {event.number: event.event_id[-6:] for event in reference.log}


def refuses(events: list[Event]) -> bool:
    return bool(events) and "v" not in events[0].extra


def told(reference: Reference) -> dict:
    return {
        "runs": {
            key: {(event.number, place) for event, place in run.consumed}
            for key, run in reference.runs.items()
        },
        "pending": {
            (cell.key, place, event.number)
            for cell in reference.cells.values()
            for place, events in cell.pending.items()
            for event, _ in events
        },
        "forming": {cell.key for cell in reference.cells.values() if cell.forming},
    }


def retell(scenario, what: dict, dag: int, reference: Reference, events, keys) -> None:
    """Tell a reference one transaction: calls, timers, events, then what ended."""
    now = what["now"]
    calls = [call[1:] for call in what["calls"] if scenario.numbers.get(call[0]) == dag]
    timers = [(kind, slot, cell) for kind, owner, slot, cell in what["timers"] if owner == dag]
    told = [events[number] for number in sorted(what["events"]) if number in events]
    ended = [keys[run] for owner, run in what["ended"] if owner == dag]
    if calls or timers or told or ended:
        reference.story.append((round(now % 10_000, 1), calls, timers, told, ended))
    for call in calls:
        tell_call(reference, call, keys, now)
    for timer in timers:
        tell_timer(reference, *timer, now)
    knew = dag in what["gates"] or what["seen"] >= reference.born
    for event in told:
        reference.event(event, now, subscribed=knew)
    reference.settle(ended)


def tell_call(reference: Reference, call: list, keys: dict, now: float) -> None:
    match call:
        case ["pause", paused]:
            reference.pause(paused=paused, now=now)
        case ["replay"]:
            reference.replay(now)
        case ["start", run]:
            reference.coming.append(Run(keys[run], kind="manual"))


def tell_timer(reference: Reference, kind: str, slot: int, cell: str, now: float) -> None:
    match kind:
        case "tick":
            part = next((part for part in reference.parts(ticks) if part.slot == slot), None)
            if part is not None:
                step = part.timetable.seconds
                reference.tick(slot, now // step * step, now)
        case "late":
            reference.late(cell, slot, now)
        case "flush":
            reference.flush(cell, now)
        case "subscribe":
            reference.catch_up(now)


def scenario_name() -> str:
    return f"s{uuid4().hex[:8]}"
