"""Managers on real servers and a clock of the test; each transaction records what it did.

The order that counts is that of the log, and that in which DAGs were locked: every transaction
records, as its last statement, what it decided about; the ids of these records agree with the order
of the locks. Only a transaction that began before a subscription was made may pass the DAG by.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import anyio
import asyncpg
import msgspec

from pubsubflow.bus import STREAM_TASK, Bus
from pubsubflow.errors import StoreUnavailable
from pubsubflow.manager import Manager
from pubsubflow.manager.batch import BatchProcessor
from pubsubflow.model.schedule.condition_state import decode_condition_state
from pubsubflow.model.schedule.conditions import describe_schedule
from pubsubflow.model.source.stored_specs import STORED_SPEC
from pubsubflow.model.spec import DagSpec, DatasetSpec
from pubsubflow.model.wire.commands import (
    FireTimers,
    RecordEvents,
    Replay,
    SetPaused,
    StartRun,
    Timer,
)
from pubsubflow.model.wire.messages import (
    EmittedEvent,
    FiredMessage,
    NewEvent,
    Outcome,
    ResultMessage,
    TaskMessage,
    decode_task,
    encode,
)  # fmt: skip
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import Database, begin_transaction
from support.consumers import start_consumer
from support.harness import fence_of
from support.reference.conditions import Event, Run
from support.reference.dag import Reference
from support.signals import Signal
from support.specs import loaded

RECORDS = """
CREATE TABLE record (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entry jsonb NOT NULL);
CREATE FUNCTION record_version() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO record (entry) VALUES (jsonb_build_object('dag', new.dag, 'version', new.version,
                                                       'since', new.catch_up_from));
    RETURN NULL;
END $$;
CREATE TRIGGER record_version AFTER INSERT OR UPDATE OF version ON dag_state
    FOR EACH ROW EXECUTE FUNCTION record_version();
"""
TIMEOUT_SECONDS = 60
_decode_spec = STORED_SPEC.decode


class RecordingProcessor(BatchProcessor):
    """Records in its own transaction what it did, and notifies when it has committed."""

    def __init__(self, on_commit, **arguments):
        super().__init__(**arguments)
        self._on_commit = on_commit

    def committed(self, batch):
        super().committed(batch)
        self._on_commit()

    async def process(self, items, transaction):
        timers = {
            timer.number: timer
            for item in items
            if isinstance(item.received, FireTimers)
            for timer in item.received.timers
        }
        there = set()
        seen = await transaction._connection.fetchval("SELECT coalesce(max(id), 0) FROM record")
        if timers:
            query = "SELECT id FROM timer WHERE id = ANY($1) ORDER BY id FOR UPDATE"
            there = {row[0] for row in await transaction._connection.fetch(query, list(timers))}
        batch = await super().process(items, transaction)
        calls = [
            [item.received.dag_id, *_described(item)]
            for kind in (StartRun, SetPaused, Replay)  # the order in which they are carried out
            for item in items
            if isinstance(item.received, kind) and item.error is None
        ]
        fired = [
            [timer.kind, timer.dag, timer.node or 0, timer.key or "", timer.due_at.timestamp()]
            for number, timer in timers.items()
            if number in there
        ]
        await self._record(transaction, batch.uow, seen, calls, fired)
        return batch

    async def write(self, prepared, transaction):
        # One statement, which commits by itself: here with its record, so in a transaction.
        async with begin_transaction(transaction._connection):
            seen = await transaction._connection.fetchval("SELECT coalesce(max(id), 0) FROM record")
            await super().write(prepared, transaction)
            await self._record(transaction, prepared.uow, seen, [], [])

    async def _record(self, transaction, uow, seen, calls, timers):
        entry = {
            "now": uow.now.timestamp(),
            "seen": seen,
            "gates": list(uow.schedule.dags),
            "calls": calls,
            "timers": timers,
            "events": [event.id for event in uow.log.recorded],
            "ended": [
                [run.version.dag, run.info.run_id]
                for run in uow.runs.by_id.values()
                if run.outcome is not None
            ],
        }
        if any(entry[kind] for kind in ("calls", "timers", "events", "ended")):
            await transaction._connection.execute("INSERT INTO record (entry) VALUES ($1)", entry)


def _described(item) -> tuple:
    if isinstance(item.received, SetPaused):
        return ("pause", item.received.paused)
    if isinstance(item.received, Replay):
        until = item.received.until
        return ("replay", item.received.since.timestamp(), until and until.timestamp())
    return ("start", item.answer)


class Cluster:
    """Two managers and a scripted worker; every scenario has DAGs and datasets of its own."""

    def __init__(self, postgres, database, bus, worker_bus, group):
        self.postgres, self.database, self.bus = postgres, database, bus
        self.worker_bus = worker_bus
        self.group = group
        self.time = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        self.managers: list[Manager] = []
        self.stops: list[anyio.Event] = []
        self.orders: list[TaskMessage] = []
        self.catalog = Catalog(database, now=self.now)
        self.signal = Signal()
        self._sent = 0

    def now(self) -> datetime:
        self.time += timedelta(microseconds=1)  # no two moments are the same
        return self.time

    async def start(self, index: int) -> None:
        processor = RecordingProcessor(self.signal.notify, now=self.now)
        manager = Manager(database=self.database, bus=self.bus, processor=processor)
        self.stops[index : index + 1] = [anyio.Event()]
        self.managers[index : index + 1] = [manager]
        await self.group.start(manager.run, self.stops[index])

    async def restart(self, index: int) -> None:
        self.stops[index].set()
        await self.start(index)

    async def call(self, index: int, command):
        with anyio.fail_after(TIMEOUT_SECONDS):
            return await self.managers[index % len(self.managers)].execute(command)

    async def rows(self, query: str, *arguments):
        async with self.database.connection() as connection:
            return await connection.fetch(query, *arguments)

    async def break_connections(self) -> None:
        """End the managers' connections, wherever they are in their transactions."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name = 'pubsubflow' AND query NOT LIKE '%lock_catalog%'"
            )
        finally:
            await connection.close()

    def receive(self, delivery) -> None:
        delivery.ack()
        self.orders.append(decode_task(delivery.data))
        self.signal.notify()

    def answer(
        self, order: TaskMessage, outcome: Outcome, emits: tuple[EmittedEvent, ...] = ()
    ) -> None:
        """Send a result without waiting."""
        now = time.time()
        result = ResultMessage(*fence_of(order), "w", outcome, now, now, emits=emits)
        self.send(Subjects.inbound(Subjects.RESULT, order.run), result)

    def send(self, subject: str, message: ResultMessage | FiredMessage) -> None:
        """Publish a message for the managers, under an id of its own, without waiting."""
        self._sent += 1
        self.worker_bus.publish_durable_nowait(
            subject, encode(message),
            message_id=f"scripted.{self._sent}", on_done=lambda: None,
        )  # fmt: skip


@asynccontextmanager
async def open_cluster(postgres, nats):
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.open(postgres))
        bus = await stack.enter_async_context(Bus.connect(nats))
        worker_bus = await stack.enter_async_context(Bus.connect(nats))
        await bus.ensure_streams()
        async with database.connection() as connection:
            await connection.execute(RECORDS)
        group = await stack.enter_async_context(anyio.create_task_group())
        cluster = Cluster(postgres, database, bus, worker_bus, group)
        for index in range(2):
            await cluster.start(index)
        stopping = anyio.Event()
        await start_consumer(
            group,
            worker_bus,
            stopping,
            stream=STREAM_TASK,
            durable="default-async",
            filter_subject="psf.task.default.async.>",
            deliver=cluster.receive,
        )
        try:
            yield cluster
        finally:
            stopping.set()
            for stop in cluster.stops:
                stop.set()


class Scenario:
    """One scenario's DAGs and datasets in a cluster, compared with the reference model."""

    def __init__(self, cluster: Cluster, name: str):
        self.cluster, self.name = cluster, name
        self.numbers: dict[str, int] = {}
        self.files: dict[str, DagSpec] = {}
        self.posted: set[str] = set()
        self.trigger = self.epoch = self.seen = 0
        self.seeing = anyio.Lock()
        self.covered: Counter[str] = Counter()
        self.after = 0

    async def save(self, *specs: DagSpec) -> None:
        while True:
            try:
                await self.cluster.catalog.save([loaded(spec) for spec in specs])
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
                return await self.cluster.rows(query, *arguments)
            except StoreUnavailable:
                continue

    @property
    def dags(self) -> list[int]:
        return list(self.numbers.values())

    async def watch(self) -> None:
        """Watch dataset a, by a trigger that the scenario plays."""
        uri = f"x://{self.name}/a"
        dataset = DatasetSpec(uri, watch_name="stateful.Bell", watch_data=b"\x80")
        file = loaded(file=f"{self.name}.watch.py")
        await self.cluster.catalog.save([msgspec.structs.replace(file, datasets=(dataset,))])
        ((self.trigger, self.epoch),) = await self.rows(
            "SELECT trigger.id, epoch FROM trigger JOIN dataset ON dataset.id = trigger.dataset"
            " WHERE uri = $1 AND trigger.kind = 'watch'", uri,
        )  # fmt: skip

    async def see(self, events: Iterable[NewEvent], *, twice: bool) -> None:
        """Report events of the watched dataset, one after the other as a triggerer does."""
        async with self.seeing:
            for event in events:
                self.seen += 1
                message = FiredMessage(
                    self.trigger, self.epoch, self.seen, -1, -1, -1, 0, 0, encode(event.extra),
                    partition=event.partition, time=event.time,
                )  # fmt: skip
                for _ in range(1 + twice):
                    self.cluster.send(Subjects.inbound(Subjects.FIRED, self.trigger), message)
                await self.cluster.signal.wait_until(
                    self._all_seen, seconds=TIMEOUT_SECONDS, poll_seconds=1
                )

    async def _all_seen(self) -> bool:
        rows = await self.rows("SELECT sequence FROM trigger WHERE id = $1", self.trigger)
        return rows[0]["sequence"] == self.seen

    async def post(self, manager: int, events: Iterable[NewEvent], key: str | None) -> None:
        events = tuple(events)
        keys = tuple(key and f"{self.name}.{key}.{n}" for n in range(len(events)))
        recorded = await self.cluster.call(manager, RecordEvents(events, keys))
        self.posted.update(each.event_id for each in recorded)

    async def due(self) -> tuple[Timer, ...]:
        rows = await self.rows(
            "SELECT due_at, kind, dag, run, node, map_index, attempt, key, id FROM timer"
            " WHERE dag = ANY($1) AND due_at <= $2 AND kind <> 'held_tick' ORDER BY due_at, id",
            self.dags, self.cluster.time,
        )  # fmt: skip
        return tuple(Timer(*row) for row in rows)

    async def fire_timers(self, managers: Iterable[int], seconds: float = 0) -> None:
        self.cluster.time += timedelta(seconds=seconds)
        due = await self.due()
        if due:
            async with anyio.create_task_group() as group:
                for manager in managers:
                    group.start_soon(self.cluster.call, manager, FireTimers(due))

    async def live(self) -> set[int]:
        rows = await self.rows("SELECT run FROM run_live WHERE dag = ANY($1)", self.dags)
        return {row["run"] for row in rows}

    async def finish(self) -> None:
        """Fail every task and fire every timer that is due, until nothing is left to do."""
        answered: set = set()

        async def idle():
            live = await self.live()
            for order in self.cluster.orders:
                fence = fence_of(order)
                if order.run in live and fence not in answered:
                    answered.add(fence)
                    self.cluster.answer(order, Outcome.FAILED)
            due = await self.due()
            if due:
                await self.cluster.call(0, FireTimers(due))
                self.cluster.signal.notify()
            return not due and not live

        # Polled as well: a result may be processed between the two queries.
        await self.cluster.signal.wait_until(idle, seconds=TIMEOUT_SECONDS, poll_seconds=1)
        self.cluster.orders.clear()

    async def answer_some(
        self, order_count: int, dice: random.Random, emits, *, twice: bool
    ) -> None:
        live = await self.live()
        mine = [order for order in self.cluster.orders if order.run in live]
        dice.shuffle(mine)
        for order in mine[:order_count]:
            outcome = Outcome.FAILED if dice.random() < 0.1 else Outcome.SUCCESS
            for _ in range(2 if twice else 1):
                self.cluster.answer(order, outcome, emits)

    async def check(self) -> None:
        """Compare what the managers did with what the reference says of the same order."""
        references, now = await self.replayed()
        logged = await self.rows(
            "SELECT event_id FROM event JOIN dataset ON dataset.id = event.dataset"
            " WHERE starts_with(uri, $1) AND source = 'api'", f"x://{self.name}/",
        )  # fmt: skip
        assert sorted(str(row["event_id"]) for row in logged) == sorted(self.posted)
        ((seen,),) = await self.rows(
            "SELECT count(*) FROM event JOIN dataset ON dataset.id = event.dataset"
            " WHERE starts_with(uri, $1) AND source = 'watch'", f"x://{self.name}/",
        )  # fmt: skip
        assert seen == self.seen
        for dag, reference in references.items():
            found, wanted = await self.found(dag), expected(reference)
            for kind, there in wanted.items():
                assert found[kind] == there, explain(reference, difference(found[kind], there))
            await self.check_outcomes(dag, reference)
            self.covered.update(key.split(":")[0] for key in reference.runs)
            self.covered.update(run.kind for run in reference.runs.values() if run.kind == "replay")
            self.covered.update(
                outcome for outcomes in reference.outcomes.values() for outcome in outcomes
            )
            assert reference.overdue(now) == [], explain(reference, "overdue")
            assert reference.lost == [], explain(reference, f"lost: {reference.lost}")

    async def replayed(self) -> tuple[dict[int, Reference], float]:
        events = {
            row["id"]: Event(
                row["id"], str(row["event_id"]), row["uri"], row["extra"], row["partition"],
                min(row["time"], row["recorded_at"]).timestamp(), row["recorded_at"].timestamp(),
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
            "SELECT id, entry FROM record WHERE id > $1 ORDER BY id", self.after
        ):
            entry = row["entry"]
            if "version" in entry:
                if entry["dag"] in self.dags:
                    await self.versioned(references, entry, log)
                    references[entry["dag"]].born = row["id"]
                continue
            for dag, reference in references.items():
                apply_transaction(self, entry, dag, reference, events, keys)
            log += [events[number] for number in sorted(entry["events"]) if number in events]
        return references, self.cluster.time.timestamp()

    async def versioned(self, references: dict, entry: dict, log: list[Event]) -> None:
        row = (await self.rows("SELECT spec FROM dag_version WHERE id = $1", entry["version"]))[0]
        spec, dag = _decode_spec(row["spec"]), entry["dag"]
        if dag not in references:
            references[dag] = Reference(spec.schedule, since=entry["since"])
            references[dag].log = list(log)
            references[dag].history = [describe_schedule(spec.schedule)]
        else:
            references[dag].change(spec.schedule)
            references[dag].history.append(describe_schedule(spec.schedule))
        references[dag].hold = spec.on_pause == "hold"
        references[dag].catchup = spec.catchup
        references[dag].refuses = refuses if spec.params_from else (lambda _: False)

    async def found(self, dag: int) -> dict:
        """Return what the store holds about a DAG, as the reference does."""
        runs: dict[str, set] = {
            row["run_key"]: set()
            for row in await self.rows(
                "SELECT run_key FROM run WHERE dag = $1 AND kind <> 'manual'", dag
            )
        }
        for row in await self.rows(
            "SELECT run_key, event, input FROM run_event JOIN run ON run.id = run_event.run"
            " WHERE dag = $1", dag,
        ):  # fmt: skip
            if row["run_key"] in runs:
                runs[row["run_key"]].add((row["event"], row["input"]))
        pending = {
            (row["partition_key"], row["input"], row["event"])
            for row in await self.rows("SELECT * FROM pending_event WHERE dag = $1", dag)
        }
        rows = await self.rows(
            "SELECT partition_key, state FROM condition_state WHERE dag = $1", dag
        )
        counts: dict[tuple[str, int], int] = {}
        for partition, index, _ in pending:
            counts[partition, index] = counts.get((partition, index), 0) + 1
        stored = {
            (row["partition_key"], index): state.count
            for row in rows
            for index, state in enumerate(decode_condition_state(row["state"]).inputs)
            if state.count
        }
        assert stored == counts
        collecting = {
            row["partition_key"]
            for row in rows
            if decode_condition_state(row["state"]).collecting_run
        }
        return {"runs": runs, "pending": pending, "collecting": collecting}

    async def check_outcomes(self, dag: int, reference: Reference) -> None:
        found = {
            (row["event"], row["input"], row["partition_key"]): row["outcome"]
            for row in await self.rows("SELECT * FROM event_outcome WHERE dag = $1", dag)
        }
        assert found.keys() == reference.outcomes.keys(), explain(
            reference, difference(found.keys(), reference.outcomes.keys())
        )
        for key, outcome in found.items():
            assert outcome in reference.outcomes[key], explain(reference, f"{key} {outcome}")


def explain(reference: Reference, what: str) -> str:
    """Describe what happened to one DAG, and what differs from the reference."""
    happened = [each for each in reference.history if isinstance(each, str) or any(each[1:])]
    return "\n".join(
        [what, *map(str, happened), f"ids: {ids(reference)}", f"outcomes: {reference.outcomes}"]
    )


def difference(found, wanted) -> str:
    if isinstance(found, dict):
        found, wanted = ({(k, *sorted(v)) for k, v in each.items()} for each in (found, wanted))
    return f"found besides: {found - wanted}\nmissing: {wanted - found}"


def ids(reference: Reference) -> dict:
    return {event.number: event.event_id[-6:] for event in reference.log}


def refuses(events: list[Event]) -> bool:
    return bool(events) and "v" not in events[0].extra


def expected(reference: Reference) -> dict:
    return {
        "runs": {
            key: {(event.number, index) for event, index in run.consumed}
            for key, run in reference.runs.items()
        },
        "pending": {
            (state.key, index, event.number)
            for state in reference.states.values()
            for index, events in state.pending.items()
            for event, _ in events
        },
        "collecting": {state.key for state in reference.states.values() if state.collecting},
    }


def apply_transaction(scenario, entry: dict, dag: int, reference: Reference, events, keys) -> None:
    """Apply one transaction to a reference: calls, timers, events, then what ended."""
    now = entry["now"]
    calls = [call[1:] for call in entry["calls"] if scenario.numbers.get(call[0]) == dag]
    timers = [
        (kind, slot, partition, due)
        for kind, owner, slot, partition, due in entry["timers"]
        if owner == dag
    ]
    happened = [events[number] for number in sorted(entry["events"]) if number in events]
    ended = [keys[run] for owner, run in entry["ended"] if owner == dag]
    if calls or timers or happened or ended:
        reference.history.append((round(now % 10_000, 1), calls, timers, happened, ended))
    for call in calls:
        apply_call(reference, call, keys, now)
    for timer in timers:
        apply_timer(reference, *timer, now)
    subscribed = dag in entry["gates"] or entry["seen"] >= reference.born
    for event in happened:
        reference.event(event, now, subscribed=subscribed)
    reference.end_batch(ended)


def apply_call(reference: Reference, call: list, keys: dict, now: float) -> None:
    match call:
        case ["pause", paused]:
            reference.pause(paused=paused, now=now)
        case ["replay", since, until]:
            reference.replay(now, since, until)
        case ["start", run]:
            reference.created.append(Run(keys[run], kind="manual"))


def apply_timer(
    reference: Reference, kind: str, slot: int, partition: str, due: float, now: float
) -> None:
    match kind:
        case "tick":
            reference.tick(slot, due, now)
        case "late":
            reference.late(partition, slot, now)
        case "flush":
            reference.flush(partition, now)
        case "subscribe":
            reference.catch_up(now)


def scenario_name() -> str:
    return f"s{uuid4().hex[:8]}"
