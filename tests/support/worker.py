"""Scripted manager for tests of workers: sends orders, answers requests, keeps messages."""

import asyncio
import gc
import json
import select
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import anyio
import msgspec
import psutil

from pubsubflow.bus import STREAM_IN, PullConsumer
from pubsubflow.model.runs.plan import Plan
from pubsubflow.model.wire.executor_spec import executor_queue
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    CancelMessage,
    RunInfo,
    TaskMessage,
    decode_log,
    decode_published,
    decode_result,
    decode_started,
    decode_worker_lost,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.model.wire.worker_requests import (
    BundleRequest,
    Chunk,
    ConnectionRequest,
    EventsRequest,
    FileRequest,
    JournalEntryRequest,
    JournalRequest,
    LeaseRequest,
    LeaseStatus,
    LiveRunsRequest,
    ResultRequest,
    SourceRequest,
    decode_worker_request,
)
from pubsubflow.runner.async_channel import AsyncChannel
from support.bundles import MadeBundle, entered
from support.signals import TIMEOUT_SECONDS, Signal


def describe_channels() -> str:
    """Return what is on its way in this process' streams, and whether the loop listens."""
    lines = []
    for each in gc.get_objects():
        if isinstance(each, AsyncChannel) and not each.ended:
            parts = {name: len(getattr(each, name)) for name in ("_outgoing", "_unsent")}
            unread = bool(select.select([each._sock], [], [], 0)[0])
            lines.append(f"channel {each._sock.fileno()}: {parts}, unread: {unread}")
            lines += _describe_registration(each._loop, each._sock.fileno())
    return "\n".join(lines)


def _describe_registration(loop, descriptor: int) -> list[str]:
    """Return what a loop, and the kernel for it, hold of a descriptor."""
    if loop.is_closed() or not hasattr(loop, "_selector"):
        return [f"  of a loop that is closed: {loop.is_closed()}"]
    selector = loop._selector
    watched = Path(f"/proc/self/fdinfo/{selector.fileno()}").read_text().splitlines()
    return [
        f"  loop: {selector.get_map().get(descriptor)}, here: {loop is asyncio.get_running_loop()}",
        *[f"  kernel: {line}" for line in watched if line.split()[:2] == ["tfd:", str(descriptor)]],
        f"  it is {Path(f'/proc/self/fd/{descriptor}').readlink()}",
    ]


def describe_children() -> str:
    """Return what the processes below this one do: which of them is stuck, and in what."""
    lines = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, OSError):
            waits = Path(f"/proc/{child.pid}/wchan").read_text()
            words = " ".join(child.cmdline())[-80:]
            times = child.cpu_times()
            used = f"{times.user + times.system:.2f} s"
            lines.append(
                f"{child.pid} of {child.ppid()}: {child.status()}, {waits}, {used}: {words}"
            )
    return "\n".join(lines)


class ScriptedManager:
    """Publishes orders, answers requests as a test says, and keeps what workers publish.

    Attributes:
        sources, bundles, events, large, leases, connections: What it answers requests from.
        ended_runs: Numbers of the runs that are not live.
        journals: Of each task instance, its journal.
        journal_answers: By label of an entry, the answers to requests to record it.
        requests: All requests.
        order_of_arrival: Of the messages, their kinds.
    """

    def __init__(self, bus, folder):
        self.bus = bus
        self.folder = folder
        self.results = {}
        self.started = []
        self.logs = []
        self.gone = []
        self.published = []
        self.sources = {}
        self.bundles = {}
        self.large = {}
        self.events = ()
        self.ended_runs = set()
        self.leases = {}
        self.journals = {}
        self.connections = {}
        self.journal_answers = {}
        self.requests = []
        self.order_of_arrival = []
        self._runs = count(1)
        self._signal = Signal()
        self._puller = PullConsumer(
            bus,
            stream=STREAM_IN,
            durable="test",
            filter_subject="psf.in.>",
            deliver=self._take,
        )
        self._puller.credit(100_000)

    @asynccontextmanager
    async def running(self):
        stopping = anyio.Event()
        async with (
            anyio.create_task_group() as group,
            await self.bus.subscribe(Subjects.WORKER_REQUEST, self._answer),
        ):
            await group.start(self._puller.run, stopping)
            yield self
            group.cancel_scope.cancel()

    def load(self, text, *, file="dags.py", helpers=None, **more):
        """Return the only DAG of a file."""
        return self.load_from(MadeBundle({file: text, **(helpers or {})}, **more), file)

    def load_from(self, bundle, file):
        """Return the only DAG of a file of a bundle."""
        place = self.folder / f"made-{bundle.hash}"
        bundle.write(place)
        with entered(place, bundle.manifest.root) as folder:
            (dag,) = folder.dags(file).values()
        return self.add(bundle, dag.to_spec(file, ""), file)

    def add(self, bundle, spec, file="dags.py"):
        """Answer requests for a bundle; return the DAG of a version in it."""
        source = bundle.source(spec, file=file)
        self.sources[source.source] = source
        self.bundles[bundle.hash] = bundle
        return LoadedDag(msgspec.structs.replace(spec, source=source.source))

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
            resources=task.resources,
            executor=task.executor,
            **more,
        )

    def decoded(self, result):
        """Return the value of a result."""
        return msgspec.msgpack.decode(result.value)

    async def send(self, order, *, queue="default"):
        queue = executor_queue(queue, order.executor)
        await self.bus.publish_durable(Subjects.task(queue, order), encode(order))
        return order

    async def run(self, dag, task_id, *, seconds=TIMEOUT_SECONDS, **more):
        """Send an order and return its result."""
        order = await self.send(self.order(dag, task_id, **more))
        return await self.result(order, seconds=seconds)

    async def result(self, order, task_node=None, seconds=TIMEOUT_SECONDS):
        key = (order.run, order.node if task_node is None else task_node)
        await self.until(lambda: key in self.results, seconds)
        return self.results[key]

    async def until(self, condition, seconds=TIMEOUT_SECONDS):
        try:
            await self._signal.wait_until(condition, seconds=seconds)
        except TimeoutError as error:
            error.add_note(
                f"came: {self.order_of_arrival}\n{describe_channels()}\n{describe_children()}"
            )
            raise

    def journal(self, task):
        """Return what a task has recorded: key → entry."""
        return self.journals.setdefault((task.run, task.node, task.map_index), {})

    def lines(self, order, node=None):
        """Return an attempt's output as far as it came."""
        found = [log for log in self.logs if (log.run, log.node) == (order.run, node or order.node)]
        found.sort(key=lambda log: (log.attempt, log.delivery, log.sequence))
        return [json.loads(line) for log in found for line in log.text.split("\n") if line]

    def texts(self, order, node=None):
        return [line["m"] for line in self.lines(order, node)]

    def cancel(self, run, *only):
        self.bus.publish(Subjects.CANCEL, encode(CancelMessage(run, "enough of it", *only)))

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
                "worker_lost": (self.gone, decode_worker_lost),
                "event": (self.published, decode_published),
            }[kind]
            kept.append(decode(delivery.data))
        self.order_of_arrival.append(kind)
        delivery.ack()
        self._signal.notify()

    def _answer(self, message):
        request = decode_worker_request(message.data)
        self.requests.append(request)
        message.respond(encode(self._chunk(request)))
        self._signal.notify()

    def _chunk(self, request):
        if isinstance(request, SourceRequest | BundleRequest | FileRequest):
            data = self._code(request)
            if data is None:
                return Chunk(b"", 0, "no such source")
            return Chunk(data[request.offset : request.offset + 100], len(data))
        if isinstance(request, ResultRequest):
            return self._result_chunk(request)
        if isinstance(request, JournalRequest | JournalEntryRequest):
            return self._journal_chunk(request)
        if isinstance(request, ConnectionRequest | LeaseRequest):
            lease = Chunk(encode(self.leases.get(request.run, LeaseStatus.FREE)), 1)
            return (
                lease
                if isinstance(request, LeaseRequest)
                else self.connections[request.name].pop(0)
            )
        if isinstance(request, LiveRunsRequest):
            found = Chunk(encode([run for run in request.runs if run not in self.ended_runs]), 1)
        else:
            found = self._events_chunk(request)
        return found

    def _events_chunk(self, request):
        assert isinstance(request, EventsRequest)
        return Chunk(encode(self.events[request.offset : request.offset + 2]), len(self.events))

    def _code(self, request):
        if isinstance(request, SourceRequest):
            found = self.sources.get(request.hash)
            return None if found is None else encode(found)
        if isinstance(request, BundleRequest):
            return encode(self.bundles[request.hash].manifest)
        contents = (bundle.contents for bundle in self.bundles.values())
        return next(found[request.hash] for found in contents if request.hash in found)

    def _result_chunk(self, request):
        value = self.large.get((request.node, request.element))
        if value is None:
            return Chunk(b"", 0, "that task has no result")
        data = msgspec.msgpack.encode(value)
        return Chunk(data[request.offset : request.offset + 1000], len(data))

    def _journal_chunk(self, request):
        if isinstance(request, JournalRequest):
            data = encode(tuple(self.journal(request).values()))
            return Chunk(data[request.offset : request.offset + 100], len(data))
        answers = self.journal_answers.get(request.entry.label)
        if answers:
            return answers.pop(0)
        return Chunk(encode(self.journal(request).setdefault(request.entry.key, request.entry)), 1)


class LoadedDag:
    def __init__(self, spec):
        self.spec = spec
        self.plan = Plan(spec)

    def node(self, task_id):
        return next(task.node for task in self.spec.tasks if task.task_id == task_id)


def raw(value):
    return msgspec.Raw(msgspec.msgpack.encode(value))
