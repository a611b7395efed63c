"""Triggerers on real servers, real host processes, and somebody who plays manager and source."""

import asyncio
import json
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import anyio
import msgspec
import pytest
import structlog

from pubsubflow.bus import STREAM_IN, Bus, Puller
from pubsubflow.model.wire.messages import TriggersOrder, decode_fired, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.store.triggers import TriggerLeases
from pubsubflow.triggerer.service import Triggerer
from pubsubflow.triggerer.settings import TriggererSettings

PLUGIN = Path(__file__).parents[2] / "plugins" / "psf-test-triggers"
PATIENCE_SECONDS = 20
QUICK = TriggererSettings(
    heartbeat_seconds=0.1, silent_seconds=1.0, sweep_seconds=30.0, drain_seconds=0.1
)
_names = count(1)


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    """Make the third party's distribution importable, as if it were installed."""
    monkeypatch.syspath_prepend(str(PLUGIN))


@pytest.fixture
def facts():
    """What is logged; structlog's own capture misses loggers that are bound already."""
    with structlog.testing.capture_logs() as logs:
        yield logs


class Caller:
    """The source's end of one connection of a `Remote` trigger."""

    def __init__(self, writer) -> None:
        self.writer = writer
        self.label = ""

    async def tell(self, do, **fields):
        self.writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        await self.writer.drain()


class Source:
    """What `Remote` triggers connect to.

    Attributes:
        said: (label, what, fields) in the order in which they came.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.said = []
        self.callers = {}
        self.changed = anyio.Event()
        self._writers = set()

    async def serve(self, reader, writer):
        caller = Caller(writer)
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                self._take(caller, json.loads(line))
        except ConnectionError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
        self._take(caller, {"label": caller.label, "what": "hung up"})

    def hang_up(self):
        for writer in self._writers:
            writer.transport.abort()

    def _take(self, caller, fields):
        label, what = fields.pop("label"), fields.pop("what")
        if what == "started":
            self.callers[label] = caller
            caller.label = label
        self.said.append((label, what, fields))
        self.changed.set()
        self.changed = anyio.Event()

    async def heard(self, label, what, times=1):
        """Wait until a trigger said something so often; return its last fields."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                changed = self.changed
                found = [said[2] for said in self.said if said[:2] == (label, what)]
                if len(found) >= times:
                    return found[times - 1]
                await changed.wait()

    async def tell(self, label, do, **fields):
        await self.callers[label].tell(do, **fields)

    def count(self, label, what):
        return sum(said[:2] == (label, what) for said in self.said)


class Rig:
    """A database, a bus, and a manager that only answers.

    Attributes:
        fired: What was heard from triggerers, also again.
        answers: Whether the manager answers by itself.
    """

    def __init__(self, database, bus, fork_server, source, group) -> None:
        self.database = database
        self.bus = bus
        self.fork_server = fork_server
        self.source = source
        self.group = group
        self.fired = []
        self.answers = True
        self.changed = anyio.Event()
        self.work, self._work = anyio.create_memory_object_stream(10_000)

    async def rows(self, query, *arguments):
        async with self.database.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def add(self, name="remote", *, kind="trigger", tell=True, **fields):
        """Store a trigger that a task waits for, or a watch; return its number."""
        columns = {"cancelled": False, "run": 8, "node": 1, "map_index": -1, "delivery": 3}
        columns |= {"slot": 0, "position": None, "sequence": 0, "share": fields.get("share")}
        if kind == "watch":
            columns |= dict.fromkeys(("run", "node", "map_index", "delivery", "slot"))
        columns |= {each: fields.pop(each) for each in tuple(fields) if each in columns}
        if "share" in columns and columns["share"] is not None:
            fields["share"] = columns["share"]
        if name == "remote":
            fields.setdefault("path", self.source.path)
        values = {**columns, "kind": kind, "name": name, "data": msgspec.msgpack.encode(fields)}
        places = ", ".join(f"${place + 1}" for place in range(len(values)))
        query = f"INSERT INTO trigger ({', '.join(values)}) VALUES ({places}) RETURNING id"
        number = (await self.rows(query, *values.values()))[0][0]
        if tell:
            self.order(fresh=True)
        return number

    def order(self, *gone, fresh=False):
        self.bus.publish(Subjects.TRIGGERS, encode(TriggersOrder(fresh, gone)))

    async def until(self, check):
        """Wait until a check gives something true, and return it."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                changed = self.changed
                found = check()
                if hasattr(found, "__await__"):
                    found = await found
                if found:
                    return found
                with anyio.move_on_after(0.05):
                    await changed.wait()

    async def told(self, number, times=1):
        """Wait for a firing of a trigger; return it."""

        def found():
            messages = [each for each in self.fired if each.trigger == number]
            return messages[times - 1] if len(messages) >= times else None

        return await self.until(found)

    async def answer(self, message):
        """Do what a manager does: commit, then reply."""
        if message.run >= 0:
            await self.rows("DELETE FROM trigger WHERE id = $1", message.trigger)
        else:
            await self.rows(
                "UPDATE trigger SET sequence = $2, position = $3 WHERE id = $1",
                *(message.trigger, message.sequence, message.position),
            )
        self.bus.publish(message.reply, b"")

    def take(self, delivery):
        delivery.ack()
        message = decode_fired(delivery.data)
        self.fired.append(message)
        if self.answers:
            self.work.send_nowait(message)
        self.changed.set()
        self.changed = anyio.Event()

    async def keep_answering(self):
        async with self._work, self.work:
            async for message in self._work:
                await self.answer(message)

    async def owners(self):
        return dict(await self.rows("SELECT id, owner FROM trigger"))

    async def gone(self, number):
        async def look():
            return not await self.rows("SELECT FROM trigger WHERE id = $1", number)

        await self.until(look)


class Running:
    """A running triggerer."""

    def __init__(self, triggerer, name) -> None:
        self.triggerer = triggerer
        self.name = name
        self.stopping = anyio.Event()
        self.stopped = anyio.Event()
        self.scope = anyio.CancelScope()

    @property
    def host(self):
        return self.triggerer.hosting.pid

    async def run(self, *, task_status):
        with self.scope:
            await self.triggerer.run(self.stopping, task_status=task_status)
        self.stopped.set()

    async def stop(self):
        self.stopping.set()
        await self.stopped.wait()

    async def die(self):
        """End without a word."""
        self.triggerer._leasing.resign = _nothing
        self.triggerer._stop = _nothing
        self.scope.cancel()
        with anyio.fail_after(PATIENCE_SECONDS):
            await self.stopped.wait()


async def _nothing():
    pass


@pytest.fixture
async def source(tmp_path):
    path = str(tmp_path / "s")
    found = Source(path)
    listening = await asyncio.start_unix_server(found.serve, path)
    yield found
    listening.close()
    found.hang_up()
    await listening.wait_closed()


@pytest.fixture
async def rig(database, bus, nats, source, plugin):
    async with AsyncExitStack() as stack:
        hand = await stack.enter_async_context(Bus.connect(nats))
        fork_server = await stack.enter_async_context(ForkServer.start(preload=()))
        group = await stack.enter_async_context(anyio.create_task_group())
        found = Rig(database, bus, fork_server, source, group)
        stopping = anyio.Event()
        puller = Puller(
            hand,
            stream=STREAM_IN,
            durable="managers",
            filter_subject="psf.in.fired.>",
            deliver=found.take,
        )
        puller.credit(1_000_000)
        await group.start(puller.run, stopping)
        group.start_soon(found.keep_answering)
        yield found
        stopping.set()
        group.cancel_scope.cancel()


@pytest.fixture
async def run_triggerer(rig, nats):
    """Run a triggerer; it is stopped at the end of the test."""
    running = []
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(anyio.create_task_group())

        async def start(database=None, connections=None, **changes):
            name = f"triggerer-{next(_names)}"
            bus = await stack.enter_async_context(Bus.connect(nats))
            triggerer = Triggerer(
                leases=TriggerLeases(database or rig.database, name),
                bus=bus,
                fork_server=rig.fork_server,
                name=name,
                settings=msgspec.structs.replace(QUICK, **changes),
                connections=connections,
            )
            found = Running(triggerer, name)
            running.append(found)
            await group.start(found.run)
            return found

        yield start
        for each in running:
            each.stopping.set()
        for each in running:
            with anyio.move_on_after(10):
                await each.stopped.wait()
        group.cancel_scope.cancel()
