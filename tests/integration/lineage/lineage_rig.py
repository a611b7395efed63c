"""What lineage's tests share: an endpoint with moods, DAGs in a few words, a worker by hand."""

from datetime import UTC, datetime
from uuid import UUID

import anyio
import msgspec
from aiohttp import web
from openlineage_check import check

from pubsubflow.model.runs.states import RunState
from pubsubflow.model.schedule.conditions import AllOf, Input, Schedule
from pubsubflow.model.spec import DagSpec, LoadedFile, SourceBundle, TaskSpec
from pubsubflow.model.wire.commands import CancelRun, PostEvents, StartRun
from pubsubflow.model.wire.messages import (
    NOT_MAPPED,
    Emit,
    NewEvent,
    Outcome,
    ResultMessage,
    TaskError,
    encode,
)
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.catalog import Catalog

NOW = int(datetime.now(UTC).timestamp())
ENDS = {"COMPLETE", "FAIL", "ABORT"}
WAIT_SECONDS = 30


def task(node, task_id, *, after=(), **more):
    return TaskSpec(node, task_id, upstream=tuple(after), **more)


def dag(dag_id, *tasks, on=(), schedule=None, **more):
    places = tuple(Input(place, uri) for place, uri in enumerate(on))
    if places:
        schedule = Schedule(places[0] if len(places) == 1 else AllOf(places))
    return DagSpec(dag_id, f"{dag_id}.py", "hash", tasks, schedule=schedule, **more)


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC)


class Endpoint:
    """Takes events and checks each by the standard; `moods` say what it does with the next ones.

    A mood is a status to answer with, or `hang`.
    """

    def __init__(self):
        self.url = ""
        self.taken = []
        self.asked = 0
        self.headers = []
        self.moods = iter(())
        self._change = anyio.Event()

    async def serve(self, *, task_status):
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/api/v1/lineage", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handle_signals=False)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = site._server.sockets[0].getsockname()[1]
            self.url = f"http://127.0.0.1:{port}/api/v1/lineage"
            task_status.started()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()

    async def _take(self, request):
        event = await request.json()
        self.asked += 1
        self.headers.append(request.headers)
        mood = next(self.moods, 201)
        try:
            if mood == "hang":
                await anyio.sleep_forever()
            if mood < 300:
                self.taken.append(event)
            return web.Response(status=mood, text="as it was told")
        finally:
            self._change.set()
            self._change = anyio.Event()

    async def until(self, condition):
        with anyio.fail_after(WAIT_SECONDS):
            while not condition():
                await self._change.wait()

    async def end_of(self, run_id):
        """Wait for the end of a DAG's run, and return all events of it and its tasks, checked."""
        await self.until(lambda: any(event["eventType"] in ENDS for event in self.of(run_id)))
        return self.checked(run_id)

    def of(self, run_id):
        return [event for event in self.taken if event["run"]["runId"] == str(run_id)]

    def checked(self, run_id):
        """Return the events of a run and its tasks; they are valid and in order."""
        events = [event for event in self.taken if str(run_id) in _belongs_to(event)]
        for event in events:
            check(event)
        assert events[0]["run"]["runId"] == str(run_id)
        assert events[-1]["run"]["runId"] == str(run_id)
        for one in {event["run"]["runId"] for event in events}:
            types = [each["eventType"] for each in events if each["run"]["runId"] == one]
            assert types[0] == "START"
            assert ENDS.isdisjoint(types[:-1])
            assert types[-1] in ENDS
        return events


def _belongs_to(event):
    parent = event["run"]["facets"].get("parent")
    return {event["run"]["runId"], parent["run"]["runId"] if parent else None}


def told(events):
    """Say what was told: job, type, and the names of inputs and outputs."""
    return [
        (
            event["job"]["name"],
            event["eventType"],
            [f"{each['namespace']}|{each['name']}" for each in event["inputs"]],
            [f"{each['namespace']}|{each['name']}" for each in event["outputs"]],
        )
        for event in events
    ]


def tags(event):
    return {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}


class Rig:
    """A real manager, with a worker played by hand."""

    def __init__(self, manager, bus, database):
        self.manager = manager
        self.bus = bus
        self.database = database
        self._heard = anyio.Event()

    async def load(self, *specs):
        await Catalog(self.database).save(
            [
                LoadedFile(
                    spec.file, SourceBundle("hash", spec.file, "/dags", {spec.file: ""}), (spec,)
                )
                for spec in specs
            ]
        )
        self.bus.publish(Subjects.TIMERS_CHANGED, b"")

    def hear(self, _):
        self._heard.set()
        self._heard = anyio.Event()

    async def until(self, query, *arguments):
        """Ask again at each piece of news until the query gives something."""
        with anyio.fail_after(WAIT_SECONDS):
            while True:
                heard = self._heard
                async with self.database.connection() as connection:
                    found = await connection.fetchval(query, *arguments)
                if found is not None:
                    return found
                with anyio.move_on_after(0.5):
                    await heard.wait()

    async def start(self, dag_id, **more):
        return UUID(await self.manager.call(StartRun(dag_id, **more)))

    async def cancel(self, run_id):
        await self.manager.call(CancelRun(run_id, "not wanted"))

    async def post(self, *uris):
        events = tuple(NewEvent(uri) for uri in uris)
        await self.manager.call(PostEvents(events, (None,) * len(events)))

    async def run_of(self, dag_id):
        return await self.until(
            "SELECT run_id FROM run JOIN dag ON dag.id = run.dag WHERE dag_id = $1", dag_id
        )

    async def number(self, run_id):
        return await self.until("SELECT id FROM run WHERE run_id = $1", run_id)

    async def finish(self, run_id, node, *, map_index=NOT_MAPPED, attempt=1, **more):
        """Tell how a task ended, once it has been handed out."""
        number = await self.number(run_id)
        delivery = await self.until(
            "SELECT delivery FROM task_live WHERE run = $1 AND node = $2 AND map_index = $3 "
            "AND attempt = $4 AND state = 'queued'",
            *(number, node, map_index, attempt),
        )
        value = more.pop("value", None)
        message = ResultMessage(
            number,
            node,
            map_index,
            attempt,
            delivery,
            "worker-1",
            more.pop("outcome", Outcome.SUCCESS),
            NOW + more.pop("started", 0),
            NOW + more.pop("ended", 1),
            b"" if value is None else msgspec.msgpack.encode(value),
            len(value) if isinstance(value, list) else None,
            tuple(Emit(uri) for uri in more.pop("emits", ())),
            **more,
        )
        await self.bus.publish_durable(Subjects.inbound(Subjects.RESULT, number), encode(message))

    async def fail(self, run_id, node, message="no space", **more):
        error = TaskError("OSError", message, "Traceback: here", final=more.pop("final", False))
        await self.finish(run_id, node, outcome=Outcome.FAILED, error=error, **more)

    async def say(self, run_id, dag_id, state):
        """Publish news of a run, as a manager does after its commit."""
        news = {"run_id": str(run_id), "dag_id": dag_id, "state": state}
        await self.bus.publish_durable(f"psf.evt.run.{run_id}", msgspec.json.encode(news))

    async def ended(self, run_id, state=RunState.SUCCESS):
        await self.until("SELECT true FROM run WHERE run_id = $1 AND state = $2", run_id, state)
