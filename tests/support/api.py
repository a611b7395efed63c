"""API under test: an HTTP client of it, beside a database and a bus."""

import json

from pubsubflow.api import Api, ApiSettings
from pubsubflow.api.routes.alerts import AlertRoutes
from pubsubflow.api.routes.answers.approvals import ApprovalRoutes
from pubsubflow.api.routes.answers.links import ApprovalLinkRoutes
from pubsubflow.api.routes.connections import ConnectionRoutes
from pubsubflow.api.routes.metrics import MetricsRoutes
from pubsubflow.api.routes.plugins import PluginRoutes
from pubsubflow.api.routes.runs.simulations import SimulationRoutes
from pubsubflow.api.routes.state import StateRoutes
from pubsubflow.api.routes.subscriptions import SubscriptionRoutes
from pubsubflow.api.routes.variables import VariableRoutes
from pubsubflow.api.routes.versions.changes import VersionChangeRoutes
from pubsubflow.store.auth import AuditLog, SessionStore, TokenStore
from pubsubflow.store.read.read_models import ReadModels
from support.harness import Harness


def api_on(calls, database, bus, settings=None, **more):
    """Build an API on servers of the test's own; it does not run yet."""
    return Api(
        commands=calls,
        read_models=ReadModels(database),
        bus=bus,
        settings=settings or ApiSettings(port=0),
        tokens=TokenStore(database),
        audit=AuditLog(database),
        sessions=SessionStore(database),
        **more,
    )


class Stub:
    """Stands for parts that a description does not need."""

    def __getattr__(self, name):
        return self


def further_on(stub):
    """Return the parts that a daemon adds."""
    return (
        ConnectionRoutes(stub, stub),
        VariableRoutes(stub, stub),
        StateRoutes(stub),
        SimulationRoutes(stub, stub),
        ApprovalRoutes(stub, stub, stub),
        ApprovalLinkRoutes(stub, stub, stub, stub),
        SubscriptionRoutes(stub, stub, allow_private=lambda: False),
        MetricsRoutes(stub),
        VersionChangeRoutes(stub, stub, stub, stub, stub),
    )


def described_routes():
    """Return all routes that the description of the API has."""
    stub = Stub()
    further = (*further_on(stub), AlertRoutes(stub), PluginRoutes(stub))
    api = api_on(stub, stub, stub, further=further)
    return [route for part in api._parts for route in part.routes()]


class ApiHarness(Harness):
    """An HTTP client of the API under test; reports on tasks as their worker does."""

    def __init__(self, url, session, bus, database):
        super().__init__(database, bus)
        self.url = url
        self.session = session

    async def request(self, method, path, *, status=200, **more):
        """Send a request and return the answer's body; its status must be the given one."""
        async with self.session.request(method, self.url + path, **more) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text) if text else None

    async def get(self, path, **more):
        return await self.request("GET", path, **more)

    async def post(self, path, body=None, *, status=202, **more):
        return await self.request("POST", path, status=status, json=body, **more)

    async def start(self, dag_id, **body):
        return (await self.post(f"/api/v1/dags/{dag_id}/runs", body, status=201))["run_id"]

    async def wait(self, run_id, state):
        """Wait until a run has ended in a state."""
        run = await self.get(f"/api/v1/runs/{run_id}/wait?timeout=20")
        assert run["state"] == state
        return run

    async def get_until(self, path, condition, seconds=20):
        """GET again after each message on the bus, until the answer is as it should be."""
        async with await self.bus.subscribe("psf.>", self.signal.notify):

            async def found():
                answer = await self.get(path)
                return [answer] if condition(answer) else None

            (answer,) = await self.signal.wait_until(found, seconds=seconds, poll_seconds=1)
            return answer
