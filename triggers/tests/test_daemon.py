import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import psutil
import pytest
from pubsubflow_triggers.runs import DagRun, RunEnds
from trigger_rig import beside, fired

from pubsubflow.cli.daemon_process import child_daemon
from pubsubflow.client import Client
from pubsubflow.errors import DefinitionError, TriggerError
from pubsubflow.testing import JumpingClock
from support.kafka_broker import answering, kafka_broker, make_topic, producing
from support.signals import Signal

pytestmark = pytest.mark.anyio
DAGS = Path(__file__).with_name("run_dags")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "home"


@pytest.fixture(scope="module")
async def broker(tmp_path_factory, anyio_backend):
    """The port of a Kafka broker with the topics of the watches."""
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as port:
        await answering(port)
        for topic in ("orders", "signals"):
            await make_topic(port, topic, 2)
        yield port


@pytest.fixture(scope="module")
def server(home, broker):
    with pytest.MonkeyPatch.context() as patch:
        # Ready means here that all DAGs are known, however slow the machine.
        patch.setenv("PUBSUBFLOW__LOADER__SLOW_SECONDS", "30")
        patch.setenv("PUBSUBFLOW_CONN_SHOP", f"kafka://127.0.0.1:{broker}")
        with child_daemon(DAGS, home=home, port=0) as url:
            yield url


@pytest.fixture
async def client(server):
    async with Client(server) as client:
        yield client


class Run:
    """A run that ends when the test says how."""

    def __init__(self, run_id, gate):
        self._gate = gate
        self.run_id = run_id

    async def end(self, how="well"):
        await anyio.Path(self._gate).write_text(how)


@pytest.fixture
def start(client, tmp_path):
    async def start(name):
        gate = tmp_path / name
        os.mkfifo(gate)
        return Run(await client.trigger("gated", params={"gate": str(gate)}), gate)

    return start


def now():
    return JumpingClock(datetime.now(UTC))


async def test_a_run_fires_when_it_ends_and_at_once_if_it_has_ended(server, home, start):
    run = await start("one")
    async with beside(RunEnds(run_id=run.run_id, server=server)) as ctx:
        await run.end()
    (event,) = await fired(RunEnds(run_id=run.run_id, home=str(home)))
    assert event.payload == ctx.events[0].payload
    assert (event.id, event.payload["state"]) == (run.run_id, "success")


async def test_a_run_with_another_end_than_wanted_fails_the_wait(server, start):
    run = await start("one")
    await run.end("fail")
    (event,) = await fired(RunEnds(run_id=run.run_id, server=server))
    assert event.payload["state"] == "failed"
    with pytest.raises(TriggerError, match=f"run {run.run_id} ended as failed"):
        await fired(RunEnds(run_id=run.run_id, server=server, states=("success",)))


async def test_what_does_not_exist_fails_the_wait(server):
    with pytest.raises(TriggerError, match="no run"):
        await fired(RunEnds(run_id="01900000-0000-7000-8000-000000000000", server=server))
    with pytest.raises(TriggerError, match="no DAG"):
        await fired(DagRun(dag_id="nobody", server=server))


async def test_next_run_that_ends_fires_whether_it_ran_already_or_not(server, start):
    old, early = await start("old"), await start("early")
    await old.end()
    await fired(RunEnds(run_id=old.run_id, server=server))
    trigger = DagRun(dag_id="gated", server=server, interval=timedelta(seconds=0.1))
    async with beside(trigger, 2, clock=now()) as ctx:
        await ctx.until("sleep", 2)
        failing, late = await start("failing"), await start("late")
        await failing.end("fail")
        await early.end()
        await ctx.until("fired")
        await late.end()
    assert [event.id for event in ctx.events] == [early.run_id, late.run_id]


async def test_runs_that_ended_while_nobody_looked_are_found_after_the_position(server, start):
    clock, ids = now(), []
    for name in "abc":
        run = await start(name)
        await run.end("fail" if name == "b" else "well")
        await fired(RunEnds(run_id=run.run_id, server=server))
        ids.append(run.run_id)
    every = DagRun(dag_id="gated", server=server, states=("success", "failed"))
    found = await fired(every, 3, clock=clock)
    assert [event.id for event in found] == ids
    async with beside(every, 100, clock=now(), position=found[1].position) as ctx:
        await ctx.until("sleep")
        ctx.stop()
    assert ctx.events[-1].id == ids[2]  # after what ended just before the position, once more


async def test_daemon_that_is_away_is_waited_for(tmp_path):
    async with beside(RunEnds(run_id="x", home=str(tmp_path))) as ctx:
        await ctx.until("trigger.server_away", 2)
        ctx.stop()
    assert "no daemon answers on home" in ctx.logged[0][1]["error"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RunEnds(run_id=""), "run_id is empty"),
        (lambda: RunEnds(run_id="x", states=("running",)), "states must be of"),
        (lambda: DagRun(dag_id="x", states=()), "states must be of"),
        (lambda: DagRun(dag_id="x", since=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001
    ],
)
def test_impossible_fields_are_refused(make, text):
    with pytest.raises(DefinitionError, match=text):
        make()


def trigger_host(port):
    """Return the process that is connected to the broker, and is not this one."""
    own = psutil.Process()
    for process in own.children(recursive=True):
        if any(each.raddr and each.raddr.port == port for each in process.net_connections()):
            return process
    return None


async def test_each_message_is_one_event_though_its_host_is_killed(client, broker):
    async def events(least):
        found = [each async for each in client.events(dataset="kafka://shop/orders")]
        return found if len(found) >= least else None

    tested = await client.test_connection("shop")
    assert (tested.ok, tested.outcome) == (True, f"Kafka, 1 broker: 127.0.0.1:{broker}")
    async with producing(broker) as producer:
        for number in range(30):
            value = b"%d" % number
            await producer.send_and_wait("orders", value, key=b"eu", partition=number % 2)
        await Signal().wait_until(lambda: events(5), seconds=30, poll_seconds=0.05)
        trigger_host(broker).kill()
        await producer.send_and_wait("orders", b"lost?", key=b"\xff", partition=0)
        for number in range(30, 40):
            value = b"%d" % number
            await producer.send_and_wait("orders", value, key=b"us", partition=number % 2)
    found = await Signal().wait_until(lambda: events(40), seconds=60, poll_seconds=0.1)
    assert sorted(each.extra["value"] for each in found) == list(range(40))
    assert {each.partition for each in found} == {"eu", "us"}
    for partition in range(2):
        seen = [each.extra["offset"] for each in found if each.extra["partition"] == partition]
        assert sorted(seen) == [
            each for each in range(21 - partition) if (partition, each) != (0, 15)
        ]
    (letter,) = [each async for each in client.dead_letters()]
    assert letter.reason.startswith("Kafka message orders/0/15: partition 'key' is neither")


async def test_a_task_goes_on_with_the_message_that_it_waits_for(client, broker):
    run_id = await client.trigger("waits")

    async def deferred():
        return (await client.task(run_id, "go")).state == "deferred" or None

    await Signal().wait_until(deferred, seconds=30, poll_seconds=0.05)
    async with producing(broker) as producer:
        await producer.send_and_wait("signals", b"early", key=b"stay")
        await producer.send_and_wait("signals", b'{"at": 7}', key=b"go")
    run = await client.wait(run_id, timeout_seconds=30)
    assert run.state == "success"
    assert (await client.task(run_id, "go")).result == {"at": 7}
