"""Whether the process lives, whether it can work, and what it is."""

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version

import anyio
from aiohttp import web

from pubsubflow.api.http import routing
from pubsubflow.api.http.requests import NoQuery, query
from pubsubflow.api.http.responses import answer
from pubsubflow.api.http.routing import Access, Route
from pubsubflow.api.server.backpressure import Pressure
from pubsubflow.bus import Bus
from pubsubflow.errors import StoreUnavailable
from pubsubflow.model.api.server import Info, Liveness, Readiness
from pubsubflow.store.read.read_models import Reading

_PING_SECONDS = 2.0


class Health:
    """Handlers of `/healthz`, `/readyz` and `/api/v1/info`.

    Args:
        reading: Asks Postgres.
        bus: Knows whether NATS is there.
        ready: More conditions by name, such as whether the DAGs are loaded.
        pressure: Knows whether events are taken in.
    """

    def __init__(
        self,
        reading: Reading,
        bus: Bus,
        ready: Callable[[], Mapping[str, bool]],
        pressure: Pressure,
    ) -> None:
        self._reading = reading
        self._bus = bus
        self._ready = ready
        self._pressure = pressure
        self._started_at = datetime.now(UTC)

    def routes(self) -> Iterable[Route]:
        """Return what is served."""
        yield routing.get("/healthz", self.alive, access=Access.OPEN, answers={200: Liveness})
        yield routing.get(
            "/readyz",
            self.readiness,
            access=Access.OPEN,
            answers={200: Readiness, 503: Readiness},
        )
        yield routing.get("/api/v1/info", self.info, query=NoQuery, answers={200: Info})

    async def alive(self, _: web.Request) -> web.Response:
        """Say that the process lives."""
        return answer(Liveness())

    async def readiness(self, _: web.Request) -> web.Response:
        """Answer 200 if everything is there that work needs, else 503; the body says what."""
        checks = {
            "postgres": await self._postgres_answers(),
            "nats": self._bus.connected,
            **self._ready(),
        }
        ready = all(checks.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        intake = self._pressure.view()
        return answer(Readiness(ready=ready, checks=checks, intake=intake), status=status)

    async def info(self, request: web.Request) -> web.Response:
        """Say what this server is and which workers it knows."""
        query(request, NoQuery)
        return answer(
            Info(
                version=version("pubsubflow"),
                pid=os.getpid(),
                started_at=self._started_at,
                workers=await self._reading.workers(),
                import_errors=len(await self._reading.dags.import_errors()),
            )
        )

    async def _postgres_answers(self) -> bool:
        with anyio.move_on_after(_PING_SECONDS):
            try:
                await self._reading.ping()
            except StoreUnavailable:
                return False
            return True
        return False
