"""What the API's tests share: DAGs, and who asks over HTTP and plays the worker."""

import json
from datetime import UTC, datetime

import anyio
import msgspec

from pubsubflow.api import Api, ApiSettings
from pubsubflow.model.schedule.conditions import AllOf, Input, Schedule
from pubsubflow.model.spec import DagSpec, LoadedFile, SourceBundle, TaskSpec
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    LogMessage,
    Outcome,
    ResultMessage,
    StartedMessage,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.auth import AuditLog, Tokens
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.read.read_models import Reading

NOW = datetime.now(UTC).timestamp()


def api_on(calls, database, bus, settings=None, **more):
    """An API on servers of the test's own; it does not run yet."""
    return Api(
        calls=calls,
        reading=Reading(database),
        bus=bus,
        settings=settings or ApiSettings(port=0),
        tokens=Tokens(database),
        audit=AuditLog(database),
        **more,
    )


def task(node, task_id, **more):
    return TaskSpec(node, task_id, **more)


def dag(dag_id, *tasks, on=(), schedule=None, **more):
    """A DAG whose schedule is all of the datasets `on`, if it is given no other."""
    places = tuple(Input(place, uri) for place, uri in enumerate(on))
    if places:
        schedule = Schedule(places[0] if len(places) == 1 else AllOf(places))
    return DagSpec(dag_id, f"{dag_id}.py", "hash", tasks, schedule=schedule, **more)


def file_of(spec):
    bundle = SourceBundle("hash", spec.file, "/dags", {spec.file: ""})
    return LoadedFile(spec.file, bundle, (spec,))


def broken_file(name, error):
    return LoadedFile(name, SourceBundle("broken", name, "/dags", {name: ""}), error=error)


class Rig:
    """The server under test, and what happens around it."""

    def __init__(self, url, session, bus, database):
        self.url = url
        self.session = session
        self.bus = bus
        self.database = database
        self.catalog = Catalog(database)

    async def load(self, *specs):
        await self.catalog.save([file_of(spec) for spec in specs])

    async def ask(self, method, path, *, status=200, **more):
        """Return the answer's body; its status must be the given one."""
        async with self.session.request(method, self.url + path, **more) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text) if text else None

    async def get(self, path, **more):
        return await self.ask("GET", path, **more)

    async def post(self, path, body=None, *, status=202, **more):
        return await self.ask("POST", path, status=status, json=body, **more)

    async def start(self, dag_id, **body):
        return (await self.post(f"/api/v1/dags/{dag_id}/runs", body, status=201))["run_id"]

    async def number(self, run_id):
        async with self.database.connection() as connection:
            return await connection.fetchval("SELECT id FROM run WHERE run_id = $1", run_id)

    async def finish(self, run_id, node, *, value=None, emits=(), **more):
        """Tell how a task ended, as its worker does."""
        number = await self.number(run_id)
        outcome = more.pop("outcome", Outcome.SUCCESS)
        attempt = more.pop("attempt", 1)  # and the delivery too: nothing crashes here
        key = (number, node, more.pop("map_index", NOT_MAPPED), attempt, attempt)
        data = b"" if value is None else msgspec.msgpack.encode(value)
        length = len(value) if isinstance(value, list) else None
        message = ResultMessage(
            *key, "worker-1", outcome, NOW, NOW + 1, data, length, tuple(emits), **more
        )
        await self._tell(Subjects.RESULT, number, message)

    async def begin(self, run_id, node, *, attempt=1):
        number = await self.number(run_id)
        message = StartedMessage(number, node, NOT_MAPPED, attempt, attempt, "worker-1", NOW)
        await self._tell(Subjects.STARTED, number, message)

    async def write(self, run_id, node, sequence, *lines, attempt=1):
        number = await self.number(run_id)
        text = "".join(json.dumps({"t": NOW, "s": "stdout", "m": line}) + "\n" for line in lines)
        message = LogMessage(number, node, NOT_MAPPED, attempt, attempt, sequence, text)
        await self._tell(Subjects.LOG, number, message)

    async def _tell(self, kind, number, message):
        await self.bus.publish_durable(Subjects.inbound(kind, number), encode(message))

    async def wait(self, run_id, state):
        """Wait until a run has ended in a state."""
        run = await self.get(f"/api/v1/runs/{run_id}/wait?timeout=20")
        assert run["state"] == state
        return run

    async def until(self, path, condition, seconds=20):
        """Ask again after each piece of news until the answer is as it should be."""
        news = anyio.Event()

        def heard(_):
            news.set()

        async with await self.bus.subscribe("psf.>", heard):
            with anyio.fail_after(seconds):
                while True:
                    news = anyio.Event()
                    found = await self.get(path)
                    if condition(found):
                        return found
                    with anyio.move_on_after(1):
                        await news.wait()
