"""A real nats-server, real runner processes, and somebody who plays the manager."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import anyio
import msgspec
import pytest

from pubsubflow.authoring.loading.importing import import_dag_file, make_bundle
from pubsubflow.bus import STREAM_IN, Bus, BusSettings, Puller
from pubsubflow.model.spec import Plan
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    CancelOrder,
    EventInfo,
    RunInfo,
    TaskMessage,
    decode_gone,
    decode_log,
    decode_published,
    decode_result,
    decode_started,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    AskConnection,
    AskEvents,
    AskLease,
    AskResult,
    AskSource,
    AskSteps,
    Lease,
    Piece,
    RecordStep,
    decode_ask,
)
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.worker import Worker, WorkerSettings

TOKEN = "sesame"


@pytest.fixture
def anyio_backend():
    return ("asyncio", {"use_uvloop": True})


class NatsServer:
    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        (folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'authorization {{ token: "{TOKEN}" }}\n'
            f'jetstream {{ store_dir: "{folder}/store" }}\n'
        )
        self.start()

    def start(self):
        binary = str(Path(sys.executable).with_name("nats-server"))
        with (self.folder / "nats.log").open("ab") as output:
            self.process = subprocess.Popen(
                [binary, "-c", str(self.folder / "nats.conf")], stdout=output, stderr=output
            )

    @property
    def settings(self):
        return BusSettings(url=f"nats://127.0.0.1:{self.port}", token=TOKEN)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


@pytest.fixture
def nats_server(tmp_path):
    server = NatsServer(tmp_path)
    yield server
    server.stop()


class Manager:
    """Publishes orders, answers questions and keeps what workers tell."""

    def __init__(self, bus, folder):
        self.bus = bus
        self.folder = folder
        self.results = {}
        self.started = []
        self.logs = []
        self.gone = []
        self.published = []
        self.bundles = {}
        self.large = {}
        self.events = ()
        self.leases = {}
        self.record = {}
        self.connections = {}
        self.recording = {}
        self.asked = []
        self.order_of_arrival = []
        self._runs = count(1)
        self._news = anyio.Event()
        self._puller = Puller(
            bus,
            stream=STREAM_IN,
            durable="test",
            filter_subject="psf.in.>",
            deliver=self._take,
        )
        self._puller.credit(100_000)

    @asynccontextmanager
    async def at_work(self):
        stopping = anyio.Event()
        async with (
            anyio.create_task_group() as group,
            await self.bus.subscribe(Subjects.ASK, self._answer),
        ):
            await group.start(self._puller.run, stopping)
            yield self
            group.cancel_scope.cancel()

    def load(self, text, *, file="dags.py", helpers=None):
        """Return the only DAG of a file."""
        bundle = make_bundle(str(self.folder), file, {file: text, **(helpers or {})})
        self.bundles[bundle.hash] = bundle
        (dag,) = import_dag_file(bundle).values()
        return LoadedDag(dag.to_spec(file, bundle.hash))

    def order(self, dag, task_id, *, run=None, chained=False, inputs=None, elements=None, **more):
        """Return a task message."""
        run = next(self._runs) if run is None else run
        node = dag.node(task_id)
        task = dag.spec.tasks[node]
        chain = dag.plan.chains[node] if chained else ()
        now = datetime.now(UTC)
        events = more.pop("events", ())
        info = RunInfo(
            run, f"run-{run}", dag.spec.dag_id, "manual", {}, None, None, "test", now, events
        )
        return TaskMessage(
            run=run,
            node=node,
            map_index=more.pop("map_index", NOT_MAPPED),
            attempt=more.pop("attempt", 1),
            delivery=more.pop("delivery", 1),
            kind=task.kind,
            dag_id=dag.spec.dag_id,
            task_id=task_id,
            source=dag.spec.source,
            info=msgspec.Raw(encode(info)),
            inputs={dag.node(name): raw(value) for name, value in (inputs or {}).items()},
            elements={name: raw(value) for name, value in (elements or {}).items()},
            chain=chain,
            timeouts=tuple(dag.spec.tasks[each].timeout_seconds for each in (node, *chain)),
            **more,
        )

    async def send(self, order, *, queue="default"):
        await self.bus.publish_durable(Subjects.task(queue, order), encode(order))
        return order

    async def run(self, dag, task_id, **more):
        """Have one task run and return its result."""
        order = await self.send(self.order(dag, task_id, **more))
        return await self.result(order)

    async def result(self, order, task_node=None, seconds=20):
        key = (order.run, order.node if task_node is None else task_node)
        await self.until(lambda: key in self.results, seconds)
        return self.results[key]

    async def until(self, condition, seconds=20):
        with anyio.fail_after(seconds):
            while not condition():
                self._news = anyio.Event()
                await self._news.wait()

    def steps(self, task):
        """Return what a task has recorded: key → Step."""
        return self.record.setdefault((task.run, task.node, task.map_index), {})

    def lines(self, order, node=None):
        """Return an attempt's output as it was told so far."""
        found = [log for log in self.logs if (log.run, log.node) == (order.run, node or order.node)]
        found.sort(key=lambda log: log.sequence)
        return [json.loads(line) for log in found for line in log.text.splitlines()]

    def texts(self, order, node=None):
        return [line["m"] for line in self.lines(order, node)]

    def cancel(self, run, *only):
        self.bus.publish(Subjects.CANCEL, encode(CancelOrder(run, "enough of it", *only)))

    async def outstanding(self):
        """Return how many task messages are not acknowledged."""
        await self.bus.flush()
        info = await self.bus.request("$JS.API.STREAM.INFO.PSF_TASK", b"", 5)
        return json.loads(info)["state"]["messages"]

    def _take(self, delivery):
        kind, _, _ = delivery.subject.removeprefix("psf.in.").partition(".")
        if kind == "result":
            result = decode_result(delivery.data)
            self.results[result.run, result.node] = result
        else:
            kept, decode = {
                "log": (self.logs, decode_log),
                "started": (self.started, decode_started),
                "gone": (self.gone, decode_gone),
                "event": (self.published, decode_published),
            }[kind]
            kept.append(decode(delivery.data))
        self.order_of_arrival.append(kind)
        delivery.ack()
        self._news.set()

    def _answer(self, message):
        ask = decode_ask(message.data)
        self.asked.append(ask)
        message.respond(encode(self._piece(ask)))
        self._news.set()

    def _piece(self, ask):
        if isinstance(ask, AskSource):
            if ask.hash not in self.bundles:
                return Piece(b"", 0, "no such source")
            data = encode(self.bundles[ask.hash])
            return Piece(data[ask.offset : ask.offset + 100], len(data))
        if isinstance(ask, AskResult):
            return self._result_piece(ask)
        if isinstance(ask, AskSteps | RecordStep):
            return self._step_piece(ask)
        if isinstance(ask, AskConnection | AskLease):
            lease = Piece(encode(self.leases.get(ask.run, Lease.FREE)), 1)
            return lease if isinstance(ask, AskLease) else self.connections[ask.name].pop(0)
        assert isinstance(ask, AskEvents)
        return Piece(encode(self.events[ask.offset : ask.offset + 2]), len(self.events))

    def _result_piece(self, ask):
        value = self.large.get((ask.node, ask.element))
        if value is None:
            return Piece(b"", 0, "that task has no result")
        data = msgspec.msgpack.encode(value)
        return Piece(data[ask.offset : ask.offset + 1000], len(data))

    def _step_piece(self, ask):
        if isinstance(ask, AskSteps):
            data = encode(tuple(self.steps(ask).values()))
            return Piece(data[ask.offset : ask.offset + 100], len(data))
        answers = self.recording.get(ask.step.label)
        if answers:
            return answers.pop(0)
        return Piece(encode(self.steps(ask).setdefault(ask.step.key, ask.step)), 1)


class LoadedDag:
    def __init__(self, spec):
        self.spec = spec
        self.plan = Plan(spec)

    def node(self, task_id):
        return next(task.node for task in self.spec.tasks if task.task_id == task_id)


def raw(value):
    return msgspec.Raw(msgspec.msgpack.encode(value))


@pytest.fixture
async def bus(nats_server):
    async with Bus.connect(nats_server.settings) as bus:
        await bus.ensure_streams()
        yield bus


@pytest.fixture
async def manager(bus, tmp_path):
    async with Manager(bus, tmp_path).at_work() as manager:
        yield manager


@pytest.fixture
async def fork_server():
    async with ForkServer.start() as server:
        yield server


@pytest.fixture
def start_worker(nats_server, fork_server):
    """Run a worker with a connection of its own for the length of a block."""

    @asynccontextmanager
    async def start(worker_id="w1", *, succeeds=False, **settings):
        settings = WorkerSettings(**{"processes": 2, **settings})
        stopping = anyio.Event()
        async with (
            Bus.connect(nats_server.settings) as bus,
            anyio.create_task_group() as group,
        ):
            worker = Worker(
                bus=bus,
                fork_server=fork_server,
                settings=settings,
                worker_id=worker_id,
                succeeds=succeeds,
            )
            await group.start(worker.run, stopping)
            worker.stop = stopping.set
            yield worker
            stopping.set()

    return start


@pytest.fixture
async def worker(start_worker):
    async with start_worker(grace_seconds=0.5) as worker:
        yield worker


@pytest.fixture
def event():
    def make(uri, **extra):
        return EventInfo("e", uri, extra, None, datetime.now(UTC), "api")

    return make
