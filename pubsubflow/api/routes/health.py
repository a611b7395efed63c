"""Routes of health checks: liveness, readiness, and information about the daemon."""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version

import anyio
from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.requests import NoQuery, parse_query
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.server.backpressure import Backpressure
from pubsubflow.bus import Bus
from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.api.server import Info, Liveness, Readiness
from pubsubflow.store.read.read_models import ReadModels

_PING_SECONDS = 2.0


class HealthRoutes:
    """Handlers of `/healthz`, `/readyz` and `/api/v1/info`.

    Args:
        read_models: Checks that Postgres answers.
        bus: Knows whether NATS is connected.
        ready: Further conditions by name, such as whether the DAGs are loaded.
        backpressure: Decides whether events are refused.
    """

    def __init__(
        self,
        read_models: ReadModels,
        bus: Bus,
        ready: Callable[[], Mapping[str, bool]],
        backpressure: Backpressure,
    ) -> None:
        self._read_models = read_models
        self._bus = bus
        self._ready = ready
        self._backpressure = backpressure
        self._started_at = datetime.now(UTC)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        yield routing.get("/healthz", self.alive, access=Access.OPEN, responses={200: Liveness})
        yield routing.get(
            "/readyz",
            self.readiness,
            access=Access.OPEN,
            responses={200: Readiness, 503: Readiness},
        )
        yield routing.get("/api/v1/info", self.info, query=NoQuery, responses={200: Info})

    async def alive(self, _: web.Request) -> web.Response:
        """Show that the process is alive."""
        return json_response(Liveness())

    async def readiness(self, _: web.Request) -> web.Response:
        """Show whether the daemon is ready: 200 if every condition holds, else 503."""
        checks = {
            "postgres": await self._postgres_answers(),
            "nats": self._bus.connected,
            **self._ready(),
        }
        ready = all(checks.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        intake = self._backpressure.view()
        return json_response(Readiness(ready=ready, checks=checks, intake=intake), status=status)

    async def info(self, request: web.Request) -> web.Response:
        """Show version and process of this server, and its workers."""
        parse_query(request, NoQuery)
        return json_response(
            Info(
                version=version("pubsubflow"),
                pid=os.getpid(),
                started_at=self._started_at,
                workers=await self._read_models.workers.all(),
                import_errors=len(await self._read_models.dags.import_errors()),
            )
        )

    async def _postgres_answers(self) -> bool:
        with anyio.move_on_after(_PING_SECONDS):
            try:
                await self._read_models.ping()
            except StoreUnavailable:
                return False
            return True
        return False
