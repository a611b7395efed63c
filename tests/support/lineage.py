"""Lineage endpoint with scripted responses, and a harness of the runs that are reported to it."""

from datetime import UTC, datetime
from uuid import UUID

import anyio
import msgspec
from aiohttp import web

from pubsubflow.model.runs.states import RunState
from pubsubflow.model.wire.commands import CancelRun, RecordEvents, StartRun
from pubsubflow.model.wire.messages import NewEvent
from pubsubflow.model.wire.subjects import Subjects
from support.harness import NOW, Harness
from support.openlineage import check
from support.servers import http_server
from support.signals import Signal

ENDS = {"COMPLETE", "FAIL", "ABORT"}
HANG = "hang"


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC)


class LineageEndpoint:
    """An endpoint for OpenLineage events, that can be checked against the standard.

    Attributes:
        responses: The statuses of its next responses, or `HANG`; 201 after the last one.
        requests: How many requests came.
        accepted: The events that it answered by a status below 300.
    """

    def __init__(self):
        self.url = ""
        self.accepted = []
        self.requests = 0
        self.headers = []
        self.responses = iter(())
        self._signal = Signal()

    def serving(self):
        return http_server("/api/v1/lineage", self._handle)

    async def _handle(self, request):
        event = await request.json()
        self.requests += 1
        self.headers.append(request.headers)
        status = next(self.responses, 201)
        try:
            if status == HANG:
                await anyio.sleep_forever()
            if status < 300:
                self.accepted.append(event)
            return web.Response(status=status, text="scripted")
        finally:
            self._signal.notify()

    async def until(self, condition):
        await self._signal.wait_until(condition)

    async def end_of(self, run_id):
        """Wait for the end of a DAG's run, and return all events of it and its tasks, checked."""
        await self.until(lambda: any(event["eventType"] in ENDS for event in self.of(run_id)))
        return self.checked(run_id)

    def of(self, run_id):
        return [event for event in self.accepted if event["run"]["runId"] == str(run_id)]

    def checked(self, run_id):
        """Return the events of a run and its tasks; they are valid and in order."""
        events = [event for event in self.accepted if str(run_id) in _belongs_to(event)]
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


def summaries(events):
    """Return job, type, and the names of inputs and outputs of each event."""
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


class LineageHarness(Harness):
    """A manager, whose tasks the test reports on."""

    def __init__(self, manager, bus, database):
        super().__init__(database, bus)
        self.manager = manager

    async def load(self, *dags, **options):
        await super().load(*dags, **options)
        self.bus.publish(Subjects.TIMERS_CHANGED, b"")

    async def start(self, dag_id, **fields):
        return UUID(await self.manager.execute(StartRun(dag_id, **fields)))

    async def cancel(self, run_id):
        await self.manager.execute(CancelRun(run_id, "not wanted"))

    async def post(self, *uris):
        events = tuple(NewEvent(uri) for uri in uris)
        await self.manager.execute(RecordEvents(events, (None,) * len(events)))

    async def run_of(self, dag_id):
        return await self.until_value(
            "SELECT run_id FROM run JOIN dag ON dag.id = run.dag WHERE dag_id = $1", dag_id
        )

    async def publish_change(self, run_id, dag_id, state):
        """Publish a run's change of state, as a manager does after its commit."""
        change = {"run_id": str(run_id), "dag_id": dag_id, "state": state}
        await self.bus.publish_durable(f"psf.evt.run.{run_id}", msgspec.json.encode(change))

    async def until_ended(self, run_id, state=RunState.SUCCESS):
        await self.until_value(
            "SELECT true FROM run WHERE run_id = $1 AND state = $2", run_id, state
        )
