"""Trouble: poison, broken connections, lost messages. Nothing is lost and nothing doubled."""

import json
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from pubsubflow.errors import ServiceStopped, StoreUnavailable
from pubsubflow.manager import Manager, Sweeper, SweeperSettings
from pubsubflow.model.schedule.timetable import IntervalSpec
from pubsubflow.model.spec import RetryPolicy
from pubsubflow.model.wire.commands import CancelRun, RecordEvents, StartRun
from pubsubflow.model.wire.heartbeat import Heartbeat
from pubsubflow.model.wire.messages import (
    EmittedEvent,
    LogMessage,
    NewEvent,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.database import Database
from pubsubflow.store.read.timers import Timers
from pubsubflow.store.servers.settings import PostgresSettings
from pubsubflow.timers import TimerService
from support.harness import chain_of, post, running_managers
from support.relay import relayed
from support.specs import dag, task, uri

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(truncated_database, postgres):
    """A connection of the test's own; what it changes in the schema is undone."""
    connection = await asyncpg.connect(truncated_database)
    yield connection
    await connection.execute("DROP FUNCTION IF EXISTS sabotage CASCADE")
    await connection.execute("DROP SEQUENCE IF EXISTS sabotaged")
    await connection.close()


async def sabotage(admin, table: str, when: str, action: str) -> None:
    """Let inserts of some rows do harm."""
    await admin.execute("CREATE SEQUENCE sabotaged")
    await admin.execute(
        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {when} THEN {action}; END IF; RETURN NEW; END $$"
    )
    await admin.execute(
        f"CREATE TRIGGER sabotage BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION sabotage()"
    )


REFUSE = "RAISE EXCEPTION 'sabotage'"
BREAK_ONCE = (
    "IF nextval('sabotaged') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF"
)


def names(events):
    return [name for (name,) in events]


NAMES = "SELECT extra->>'name' FROM event ORDER BY id"

POISON = [
    (Subjects.RESULT + ".0", b""),
    (Subjects.RESULT + ".0", b"\xff\xfe"),
    (Subjects.RESULT + ".0", b"\x91" * 100_000),
    (Subjects.STARTED + ".0", encode([1])),
    (Subjects.WORKER_LOST + ".0", b"\x91\xa1\xff"),
    (Subjects.WORKER_LOST + ".0", encode(["nul\x00"])),
    (Subjects.LOG + ".0", encode(LogMessage(2**64 - 1, 0, -1, 1, 1, 0, "t"))),
    ("psf.in.nonsense.0", b"x"),
]


async def test_poison_becomes_a_dead_letter_and_the_rest_goes_on(harness):
    await harness.load(dag("d", task("a"), on="x"))
    for subject, payload in POISON:
        await harness.publish(subject, payload, raw=True)
    await harness.post("x1")
    await harness.finish("a")
    await harness.until_states("success")
    dead_letters = await harness.rows("SELECT subject, payload FROM dead_letter ORDER BY id")
    assert dead_letters == POISON
    assert await harness.value("SELECT count(*) FROM log") == 0


async def test_poison_amid_a_batch_harms_no_other_item(harness):
    await harness.load(dag("d", task("a"), on="x"))
    await harness.post(*(f"x{n}" for n in range(10)))
    orders = [await harness.order() for _ in range(10)]
    for number, order in enumerate(orders):
        subject, payload = POISON[number % len(POISON)]
        harness.worker_bus.publish_durable_nowait(
            subject, payload, message_id=f"p{number}", on_done=lambda: None
        )
        harness.answer(order, [order.result()])
    await harness.until_states(*["success"] * 10)
    dead_letters = await harness.rows("SELECT DISTINCT subject, payload FROM dead_letter")
    assert set(dead_letters) == set(POISON)


async def test_a_result_that_cannot_be_stored_fails_its_task(harness, admin):
    await sabotage(admin, "event", "NEW.extra ? 'bad'", REFUSE)
    await harness.load(
        dag("d", task("a", emits=["y"], retry=RetryPolicy(5)), task("b", "a"), on="x")
    )
    await harness.post("x1", "x2", "x3")
    orders = [await harness.order() for _ in range(3)]
    for number, order in enumerate(orders):
        emits = (EmittedEvent(uri("y"), {"bad": 1} if number == 1 else {}),)
        harness.answer(order, [order.result(emits=emits)])
    for _ in range(2):
        await harness.finish("b")
    await harness.until_states("success", "failed", "success")
    assert await harness.value("SELECT count(*) FROM dead_letter") == 1
    error = await harness.value("SELECT error FROM task WHERE state = 'failed'")
    assert error["message"] == "its result cannot be stored: sabotage"
    assert await harness.value("SELECT count(*) FROM task_live") == 0


async def test_a_chain_whose_first_result_cannot_be_stored_ends(harness, admin):
    await sabotage(admin, "event", "NEW.extra ? 'bad'", REFUSE)
    await harness.load(dag("d", task("a"), task("b", "a"), on="x"))
    await harness.post("x1")
    order = await harness.order()
    first, second = chain_of(order)
    harness.answer(order, [replace(first, emits=(EmittedEvent(uri("y"), {"bad": 1}),)), second])
    await harness.until_states("failed")
    assert await harness.tasks() == {"0": "failed", "1": "upstream_failed"}


async def test_a_call_that_cannot_be_stored_is_refused_alone(harness, admin):
    await sabotage(admin, "event", "NEW.extra ? 'bad'", REFUSE)
    await harness.load(dag("d", task("a"), on="x"))
    refused = []

    async def one(number):
        extra = {"name": f"x{number}", **({"bad": 1} if number == 7 else {})}
        try:
            await harness.call(post("x", extra=extra))
        except asyncpg.RaiseError:
            refused.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)
    assert refused == [7]
    assert sorted(names(await harness.rows(NAMES))) == sorted(f"x{n}" for n in range(20) if n != 7)
    assert await harness.value("SELECT count(*) FROM run") == 19


async def test_a_connection_that_breaks_while_a_batch_is_split(harness, admin):
    """What was done before the break is not done again: these events have no keys."""
    when = "NEW.extra ? 'bad' OR NEW.extra ? 'break'"
    action = f"IF NEW.extra ? 'bad' THEN {REFUSE}; ELSE {BREAK_ONCE}; END IF"
    await harness.load(dag("d", task("a"), on="x"))
    await sabotage(admin, "event", when, action)
    extras = [{"name": f"x{n}"} for n in range(30)]
    extras[5]["bad"] = extras[20]["break"] = 1
    answers = {}

    async def one(extra):
        try:
            answers[extra["name"]] = await harness.managers[0].execute(post("x", extra=extra))
        except asyncpg.RaiseError as error:
            answers[extra["name"]] = error

    async with anyio.create_task_group() as group:
        for extra in extras:
            group.start_soon(one, extra)
    assert [name for name, each in answers.items() if isinstance(each, Exception)] == ["x5"]
    expected = [f"x{n}" for n in range(30) if n != 5]
    assert sorted(names(await harness.rows(NAMES))) == sorted(expected)
    assert await harness.value("SELECT count(*) FROM run") == 29


async def test_a_poison_timer_is_put_aside_and_the_clock_goes_on(harness, admin):
    await sabotage(admin, "run", "NEW.run_key LIKE 'tick:%'", REFUSE)
    retried = task("a", retry=RetryPolicy(1, delay_seconds=0.3))
    await harness.load(dag("d", retried), dag("bad", task("a")))
    await harness.call(StartRun("d"))
    await harness.finish("a", "failed")
    await admin.execute(
        "INSERT INTO timer (due_at, kind, dag) SELECT (SELECT due_at FROM timer), 'tick', id"
        " FROM dag WHERE dag_id = 'bad'"
    )
    await admin.execute(
        "UPDATE dag_version SET spec = $1 WHERE dag = (SELECT id FROM dag WHERE dag_id = 'bad')",
        encode(dag("bad", task("a"), timetable=IntervalSpec(3600))),
    )
    async with anyio.create_task_group() as group:
        stopping = anyio.Event()
        clock = TimerService(
            timers=Timers(harness.database), bus=harness.bus, commands=harness.managers[0]
        )
        await group.start(clock.run, stopping)
        await harness.finish("a")
        await harness.until_states("success")
        stopping.set()
    assert await harness.rows("SELECT subject FROM dead_letter") == [("timer.tick",)]
    assert await harness.value("SELECT count(*) FROM timer") == 0


@pytest.fixture
def relay_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("relay")


@asynccontextmanager
async def behind_a_relay(servers, folder, bus, nats, **options):
    """Run managers whose connections to Postgres go through a relay."""
    address = replace(servers.postgres, database="truncated")
    async with relayed(address, folder) as (relay, reached):
        settings = PostgresSettings(url=reached.dsn)
        async with (
            Database.open(settings) as database,
            running_managers(database, bus, nats, **options) as harness,
        ):
            yield relay, harness


async def test_a_commit_whose_answer_is_lost_is_not_done_again(
    servers, postgres, database, bus, nats, relay_folder
):
    async with behind_a_relay(servers, relay_folder, bus, nats) as (relay, harness):
        await harness.load(dag("d", task("a"), on="x"), dag("e", task("b")))
        relay.lose_commits = 1
        given = (NewEvent(uri("x"), {"name": "x1"}), NewEvent(uri("x"), {"name": "x2"}))
        first, second = await harness.call(RecordEvents(given, (None, "k")))
        assert relay.lost == 1
        assert not first.duplicate
        assert not second.duplicate
        assert names(await harness.rows(NAMES)) == ["x1", "x2"]
        (again,) = await harness.call(post("x", keys=("k",)))
        assert (again.event_id, again.duplicate) == (second.event_id, True)
        relay.lose_commits = 1
        run_id = await harness.call(StartRun("e"))
        assert relay.lost == 2
        assert [str(run) for (run,) in await harness.rows(
            "SELECT run_id FROM run JOIN dag ON dag.id = dag WHERE dag_id = 'e'"
        )] == [run_id]  # fmt: skip
        relay.lose_commits = 1
        await harness.call(CancelRun(run_id))
        assert relay.lost == 3
        assert await harness.states() == ["running", "running", "cancelled"]


async def test_a_result_whose_commit_is_lost_counts_once(
    servers, postgres, database, bus, nats, relay_folder
):
    async with behind_a_relay(servers, relay_folder, bus, nats) as (relay, harness):
        await harness.load(dag("d", task("a", emits=["y"])), dag("e", task("b"), on="y"))
        await harness.call(StartRun("d"))
        order = await harness.order("a")
        relay.lose_commits = 1
        await harness.report(order.result())
        assert relay.lost == 1
        assert await harness.states() == ["success", "running"]
        assert await harness.value("SELECT count(*) FROM event") == 1


async def test_while_postgres_is_away_calls_wait_and_are_carried_out_after(
    servers, postgres, database, bus, nats, relay_folder
):
    async with behind_a_relay(servers, relay_folder, bus, nats) as (relay, harness):
        await harness.load(dag("d", task("a"), on="x"))
        relay.cut()
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(harness.call, post("x", extra={"name": f"x{number}"}))
            await anyio.wait_all_tasks_blocked()
            relay.up = True
        assert len(await harness.states()) == 10
        relay.cut()
        relay.up = True
        await harness.finish("a")


async def test_a_manager_that_stops_while_postgres_is_away_answers_its_callers(
    servers, postgres, database, bus, nats, relay_folder
):
    async with (
        relayed(replace(servers.postgres, database="truncated"), relay_folder) as (
            relay,
            reached,
        ),
        Database.open(PostgresSettings(url=reached.dsn)) as opened,
    ):
        manager, stopping = Manager(database=opened, bus=bus), anyio.Event()
        failed = []

        async def call():
            with pytest.raises(StoreUnavailable):
                await manager.execute(post("x"))
            failed.append(None)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                await group.start(manager.run, stopping)
                relay.cut()
                for _ in range(3):
                    group.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                for _ in range(3):
                    group.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                stopping.set()
        assert len(failed) == 6
        with pytest.raises(ServiceStopped):
            await manager.execute(post("x"))


async def test_what_a_stopped_manager_held_goes_to_the_next_at_once(database, bus, nats):
    async with running_managers(database, bus, nats) as first:
        await first.load(dag("d", task("a"), on="x", max_active_runs=50))
        await first.post(*(f"x{n}" for n in range(50)))
        orders = [await first.order() for _ in range(50)]
    async with running_managers(database, bus, nats) as second:
        with anyio.fail_after(9):  # an unacknowledged message comes again after 10 s only
            for order in orders:
                second.answer(order, [order.result()])
            await second.until_states(*["success"] * 50)


async def test_callers_are_turned_away_when_postgres_is_away_for_long(
    servers, postgres, database, bus, nats, relay_folder
):
    async with behind_a_relay(servers, relay_folder, bus, nats) as (relay, harness):
        await harness.load(dag("d", task("a"), on="x"))
        relay.cut()
        with pytest.raises(StoreUnavailable, match="try again"):
            await harness.call(post("x", keys=("k",)))
        relay.up = True
        await patiently(harness, post("x", keys=("k",)))
        assert await harness.states() == ["running"]


async def test_an_event_from_the_bus_outlasts_a_postgres_that_is_away_for_long(
    servers, postgres, database, bus, nats, relay_folder
):
    async with behind_a_relay(servers, relay_folder, bus, nats) as (relay, harness):
        relay.cut()
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": uri("x")}
        await harness.worker_bus.publish_durable("psf.in.event.0", json.dumps(event).encode())
        with pytest.raises(StoreUnavailable, match="try again"):  # so it is away for long
            await harness.call(post("x"))
        relay.up = True

        async def recorded():
            return await harness.value("SELECT count(*) FROM event WHERE source = 'bus'")

        assert await harness.until(recorded) == 1


async def patiently(harness, call, manager=0):
    """Ask again, as a client does, while the answer is to try again."""
    while True:
        try:
            return await harness.call(call, manager=manager)
        except StoreUnavailable:
            await anyio.sleep(0.05)  # a client's pause


async def test_nothing_is_lost_or_doubled_while_connections_are_killed(pair, admin):
    harness = pair
    harness.automatic = chain_of
    await harness.load(
        dag("d", task("a"), task("b", "a", emits=["y"]), on="x", max_active_runs=5),
        dag("e", task("c", emits=["z"]), on="y & w"),
        dag("f", task("g"), on="z | w"),
    )
    kills = 0
    unsure = set()

    async def kill():
        nonlocal kills
        kills += await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    async def one(number):
        """Post an event without a key: if the answer is to try again, it may be recorded."""
        name = f"{'xw'[number % 2]}{number}"
        try:
            await harness.call(post(name[0], extra={"name": name}), manager=number % 4 // 2)
        except StoreUnavailable:
            unsure.add(name)

    for start in range(0, 200, 20):
        async with anyio.create_task_group() as posting:
            for number in range(start, start + 20):
                posting.start_soon(one, number)
                if number == start + 10:
                    posting.start_soon(kill)
    assert kills > 10
    await revive(harness)
    posted = [name for name in names(await harness.rows(NAMES)) if name]
    assert len(posted) == len(set(posted))
    missing = {f"{'xw'[n % 2]}{n}" for n in range(200)} - set(posted)
    assert missing <= unsure
    assert set(await harness.states()) == {"success"}
    x, w = (sum(name[0] == kind for name in posted) for kind in "xw")
    e = len(await harness.states("e"))
    assert len(await harness.states("d")) == x
    places = "SELECT event, input, dag FROM run_event JOIN run ON run.id = run"
    taken = await harness.rows(f"{places} UNION ALL SELECT event, input, dag FROM pending_event")
    # x and y in one place each, w in two, z in one
    assert len(taken) == len(set(taken)) == x + x + 2 * w + e
    assert await harness.value("SELECT count(*) FROM event") == x + x + w + e
    assert await harness.value("SELECT count(*) FROM dead_letter") == 0


async def revive(harness):
    """Publish again what was lost between a commit and its publishing, until all is done."""
    sweeper = Sweeper(
        database=harness.database,
        bus=harness.bus,
        settings=SweeperSettings(undelivered_seconds=0.2),
    )

    async def idle():
        try:
            if not await harness.value(
                "SELECT (SELECT count(*) FROM run_live) + (SELECT count(*) FROM run_queue)"
            ):
                return True
            await sweeper.sweep()
        except StoreUnavailable:
            pass
        return False

    await harness.until(idle)


async def test_a_worker_that_beats_is_known(harness):
    beat = Heartbeat("w9", "host", 1, 4, 2)
    harness.worker_bus.publish(Subjects.HEARTBEAT, b"garbage")
    harness.worker_bus.publish(Subjects.HEARTBEAT, encode(replace(beat, worker="nul\x00")))
    await harness.post("x1")
    harness.worker_bus.publish(Subjects.HEARTBEAT, encode(replace(beat, slots=2**40)))
    await harness.post("x2")
    harness.worker_bus.publish(Subjects.HEARTBEAT, encode(beat))

    async def known():
        return await harness.rows("SELECT worker, slots, busy FROM worker")

    assert await harness.until(known) == [("w9", 4, 2)]


async def test_a_subject_that_is_no_text_is_put_aside(harness):
    await harness.load(dag("d", task("a"), on="x"))
    await harness.worker_bus.flush()
    harness.worker_bus.client.send(b"PUB psf.in.result.\xff 1\r\nx\r\n")

    async def buried():
        return await harness.rows("SELECT subject, payload FROM dead_letter")

    assert await harness.until(buried) == [("psf.in.result.\ufffd", b"x")]
    await harness.post("x1")
    await harness.finish("a")


async def test_an_order_that_nats_will_not_take_keeps_back_no_other(harness, admin):
    await harness.load(
        dag("d", task("a", emits=["x"]), task("large", "a", kind="sync")),
        dag("e", task("b"), on="x"),
    )
    await harness.call(StartRun("d"))
    order = await harness.order("a")
    info = replace(order.info, params={"pad": "p" * harness.bus.max_payload})
    await admin.execute("UPDATE run_live SET info = $1", encode(info))
    await harness.report(order.result())
    assert (await harness.order()).task_id == "b"
    assert await harness.states() == ["running", "running"]


async def test_a_dag_whose_own_params_are_too_large_starts_no_run_and_keeps_back_no_other(harness):
    large = dag("d", task("a"), on="x", params={"pad": "p" * harness.bus.max_payload})
    await harness.load(large, dag("e", task("b"), on="x"))
    await harness.post("x1")
    assert (await harness.order()).task_id == "b"
    assert await harness.states("d") == []
    assert await harness.rows("SELECT kind, subject FROM dead_letter") == [("params", "d")]


async def test_one_of_two_managers_gets_all_messages_while_it_keeps_up(database, bus, nats):
    async with running_managers(database, bus, nats, managers=2, rank=None) as harness:
        await harness.load(dag("d", task("a")))
        harness.automatic = lambda order: [order.result()]
        for count in range(1, 21):
            await harness.call(StartRun("d"))
            await harness.until_states(*["success"] * count)
        assert [each.handled for each in harness.managers] == [20, 0]
