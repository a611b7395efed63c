"""Routes of health checks: liveness, readiness, and information about the daemon.

Connections that are up prove nothing: health is the age of the oldest thing that is due.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus

import anyio
import structlog
from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.requests import NoQuery
from pubsubflow.api.http.responses import json_response
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.server.backpressure import Backpressure
from pubsubflow.bus import Bus
from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.api.server import Info, Liveness, Readiness
from pubsubflow.model.wire.protocol import PROTOCOL, VERSION
from pubsubflow.store.migrate import known_schema
from pubsubflow.store.read.read_models import ReadModels

log = structlog.get_logger(__name__)

_PING_SECONDS = 2.0


class HealthRoutes:
    """Handlers of `/healthz`, `/readyz` and `/api/v1/info`.

    Args:
        read_models: Checks that Postgres answers, and how late timers are.
        bus: Knows whether NATS is connected, and how late publications are.
        ready: Further conditions by name, such as whether the DAGs are loaded.
        backpressure: Decides whether events are refused, and knows how late messages are.
        stores: Whether each object store works, by name.
        max_overdue_seconds: The daemon is not ready while anything has waited that long.
    """

    def __init__(
        self,
        read_models: ReadModels,
        bus: Bus,
        ready: Callable[[], Mapping[str, bool]],
        backpressure: Backpressure,
        *,
        stores: Callable[[], Mapping[str, bool]] = dict,
        max_overdue_seconds: float,
    ) -> None:
        self._read_models = read_models
        self._bus = bus
        self._ready = ready
        self._backpressure = backpressure
        self._stores = stores
        self._max_overdue_seconds = max_overdue_seconds
        self._schema = known_schema()
        self._was_ready = True
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
        late = await self._late_timers()
        ages = {
            **self._backpressure.oldest_seconds(),
            "publications": self._bus.stalled_seconds,
            "timers": late or 0.0,
        }
        checks = {
            "postgres": late is not None,
            "nats": self._bus.connected,
            "progress": max(ages.values()) < self._max_overdue_seconds,
            **self._ready(),
        }
        oldest = {name: round(seconds, 3) for name, seconds in ages.items()}
        ready = all(checks.values())
        if ready != self._was_ready:
            self._was_ready = ready
            failed = [name for name, holds in checks.items() if not holds]
            log.warning("api.readiness_changed", ready=ready, failed=failed, oldest_seconds=oldest)
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        intake = self._backpressure.view()
        found = Readiness(
            ready=ready,
            checks=checks,
            oldest_seconds=oldest,
            intake=intake,
            stores=dict(self._stores()),
            left_to_newer=len(self._bus.left_to_newer),
        )
        return json_response(found, status=status)

    async def info(self, _: web.Request) -> web.Response:
        """Show version and process of this server, and its workers."""
        return json_response(
            Info(
                version=VERSION,
                pid=os.getpid(),
                started_at=self._started_at,
                workers=await self._read_models.workers.all(),
                import_errors=len(await self._read_models.dags.import_errors()),
                protocol=PROTOCOL,
                schema=self._schema,
            )
        )

    async def _late_timers(self) -> float | None:
        """Return by how many seconds the first timer is late; None if Postgres does not answer."""
        with anyio.move_on_after(_PING_SECONDS), suppress(StoreUnavailable):
            return await self._read_models.late_timers_seconds()
        return None
