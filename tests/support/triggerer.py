"""Harness of triggerers: a scripted manager, and the source that test triggers connect to."""

import asyncio
import json
from contextlib import asynccontextmanager

import anyio
import msgspec

from pubsubflow.model.wire.messages import TriggersChangedMessage, decode_fired, encode
from pubsubflow.model.wire.subjects import Subjects
from support.harness import Harness
from support.signals import TIMEOUT_SECONDS, Signal


class TriggerConnection:
    """The source's end of the connection of one `Remote` trigger."""

    def __init__(self, writer) -> None:
        self.writer = writer
        self.label = ""

    async def send(self, do, **fields):
        self.writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        await self.writer.drain()


class TriggerSource:
    """A unix socket that `Remote` triggers connect to: sends commands, keeps their reports.

    Attributes:
        reports: (label, what, fields) in the order in which they came.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.reports = []
        self._connections = {}
        self._writers = set()
        self._signal = Signal()

    @asynccontextmanager
    async def serving(self):
        listening = await asyncio.start_unix_server(self._serve, self.path)
        yield self
        listening.close()
        for writer in self._writers:
            writer.transport.abort()
        await listening.wait_closed()

    async def _serve(self, reader, writer):
        connection = TriggerConnection(writer)
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                self._keep(connection, json.loads(line))
        except ConnectionError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
        self._keep(connection, {"label": connection.label, "what": "hung up"})

    def _keep(self, connection, fields):
        label, what = fields.pop("label"), fields.pop("what")
        if what == "started":
            self._connections[label] = connection
            connection.label = label
        self.reports.append((label, what, fields))
        self._signal.notify()

    async def reported(self, label, what, times=1):
        """Wait until a trigger has reported something so often; return the last fields."""

        def enough():
            found = [fields for *about, fields in self.reports if about == [label, what]]
            return found[times - 1 : times]

        return (await self._signal.wait_until(enough))[0]

    async def send(self, label, do, **fields):
        await self._connections[label].send(do, **fields)

    def count(self, label, what):
        return sum(about == [label, what] for *about, _ in self.reports)


class TriggererHarness(Harness):
    """A database with triggers in it, and a scripted manager that commits what fires.

    Attributes:
        fired: The messages of triggerers, repetitions as well.
        answers: Whether the manager commits and replies by itself.
    """

    def __init__(self, database, bus, fork_server, source, group) -> None:
        super().__init__(database, bus)
        self.fork_server = fork_server
        self.source = source
        self.group = group
        self.fired = []
        self.answers = True
        self._to_answer, self._taken = anyio.create_memory_object_stream(10_000)

    async def add(self, name="remote", *, kind="trigger", notify=True, **fields):
        """Store a trigger that a task waits for, or a watch; return its number."""
        columns = {"cancelled": False, "run": 8, "node": 1, "map_index": -1, "delivery": 3}
        columns |= {"wait_index": 0, "position": None, "sequence": 0}
        columns["share_key"] = fields.get("share")
        if kind == "watch":
            columns |= dict.fromkeys(("run", "node", "map_index", "delivery", "wait_index"))
        columns |= {each: fields.pop(each) for each in tuple(fields) if each in columns}
        if name == "remote":
            fields.setdefault("path", self.source.path)
        values = {**columns, "kind": kind, "name": name, "data": msgspec.msgpack.encode(fields)}
        parameters = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        query = f"INSERT INTO trigger ({', '.join(values)}) VALUES ({parameters}) RETURNING id"
        number = await self.value(query, *values.values())
        if notify:
            self.order(fresh=True)
        return number

    def order(self, *gone, fresh=False):
        """Publish that triggers are new, or gone."""
        self.bus.publish(Subjects.TRIGGERS_CHANGED, encode(TriggersChangedMessage(fresh, gone)))

    async def end(self, number):
        """End a wait as a manager does: a row that is left would be claimed and started again."""
        await self.rows("DELETE FROM trigger WHERE id = $1", number)
        self.order(number)

    async def until_fired(self, number, times=1):
        """Wait for a message about a trigger; return it."""

        def found():
            messages = [each for each in self.fired if each.trigger == number]
            return messages[times - 1] if len(messages) >= times else None

        return await self.until(found)

    async def until_deleted(self, number):
        async def deleted():
            return not await self.rows("SELECT FROM trigger WHERE id = $1", number)

        await self.until(deleted)

    async def owners(self):
        return dict(await self.rows("SELECT id, owner FROM trigger"))

    def receive(self, delivery):
        delivery.ack()
        message = decode_fired(delivery.data)
        self.fired.append(message)
        if self.answers:
            self._to_answer.send_nowait(message)
        self.signal.notify()

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

    async def keep_answering(self):
        async with self._taken, self._to_answer:
            async for message in self._taken:
                await self.answer(message)


class RunningTriggerer:
    """A triggerer that can be stopped, or end as if it were killed."""

    def __init__(self, triggerer, name) -> None:
        self.triggerer = triggerer
        self.name = name
        self.stopping = anyio.Event()
        self.stopped = anyio.Event()
        self.scope = anyio.CancelScope()

    @property
    def host(self):
        return self.triggerer.host.pid

    async def run(self, *, task_status):
        with self.scope:
            await self.triggerer.run(self.stopping, task_status=task_status)
        self.stopped.set()

    async def stop(self):
        self.stopping.set()
        await self.stopped.wait()

    async def die(self):
        """End without giving up the leases and without stopping the host."""
        self.triggerer._leasing.release_all = _nothing
        self.triggerer._stop = _nothing
        self.scope.cancel()
        with anyio.fail_after(TIMEOUT_SECONDS):
            await self.stopped.wait()


async def _nothing():
    pass
