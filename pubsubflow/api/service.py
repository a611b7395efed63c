"""The HTTP server."""

import errno
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import anyio
import structlog
from aiohttp import web
from anyio.abc import TaskStatus

from pubsubflow.api.auth.audit import Diary
from pubsubflow.api.auth.middleware import Gate
from pubsubflow.api.auth.token_cache import Keys
from pubsubflow.api.http.headers import Headers
from pubsubflow.api.http.openapi import OpenApi
from pubsubflow.api.http.problems import problems
from pubsubflow.api.http.routing import Routed
from pubsubflow.api.routes.clearing import Clearings
from pubsubflow.api.routes.cloud_events import CloudEvents
from pubsubflow.api.routes.dags import Dags
from pubsubflow.api.routes.dead_letters import DeadLetters
from pubsubflow.api.routes.events import Events
from pubsubflow.api.routes.health import Health
from pubsubflow.api.routes.pools import Pools
from pubsubflow.api.routes.replay import Past
from pubsubflow.api.routes.runs import Runs
from pubsubflow.api.routes.tasks import Tasks
from pubsubflow.api.routes.tokens import AccessRoutes
from pubsubflow.api.routes.triggers import Triggers
from pubsubflow.api.routes.webhooks import Hooks
from pubsubflow.api.server.backpressure import Pressure
from pubsubflow.api.server.connections import GuardedSite, Links
from pubsubflow.api.server.fair_queue import FairCalls
from pubsubflow.api.server.http_errors import Runner
from pubsubflow.api.server.instrumentation import traced
from pubsubflow.api.server.limits import Intake
from pubsubflow.api.server.metrics import ApiFigures
from pubsubflow.api.server.tls import certificate_of
from pubsubflow.api.settings import ApiSettings, check_reach, is_local
from pubsubflow.api.stream.routes import Live
from pubsubflow.api.stream.settings import LiveSettings
from pubsubflow.api.webhook_cache import Doors
from pubsubflow.bus import Bus
from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.model.traces import NoTracing, Tracing
from pubsubflow.model.wire.backlog import Backlog
from pubsubflow.model.wire.commands import Calls
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.auth import AuditLog, Tokens
from pubsubflow.store.read.read_models import Reading
from pubsubflow.wakeup import Bells
from pubsubflow.webhooks.secrets import EnvironmentSecrets, SecretSource

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_CLOSE_SECONDS = 2.0
LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read, so that its sender comes to read the answer."""


class Api:
    """Serves HTTP: events in, answers out; it acknowledges nothing that is not durable.

    Args:
        calls: Carries out what is asked.
        reading: Looks up what is asked.
        bus: Brings news to those who wait.
        settings: See there.
        tokens: Who may ask.
        audit: Who did what.
        ready: Further conditions of readiness by name, for example whether the DAGs are loaded.
        secrets: Knows the secrets that webhooks name; none if left out.
        live: How the live stream is served.
        figures: What it counts; new ones unless given.
        tracing: Who collects traces; nobody unless given.
        backlog: Tells what `calls` has not done yet.
        disk: A folder on the disk that servers of our own write to; None if they are not ours.
        further: Parts that stand on more than this, such as connections.

    Raises:
        ConfigError: The certificate cannot be used.
    """

    def __init__(
        self,
        *,
        calls: Calls,
        reading: Reading,
        bus: Bus,
        settings: ApiSettings,
        tokens: Tokens,
        audit: AuditLog,
        ready: Callable[[], Mapping[str, bool]] = dict,
        secrets: SecretSource | None = None,
        live: LiveSettings | None = None,
        figures: ApiFigures | None = None,
        tracing: Tracing | None = None,
        backlog: Callable[[], Backlog] = Backlog,
        disk: Path | None = None,
        further: Sequence[Routed] = (),
    ) -> None:
        self._settings = settings
        self._certificate = certificate_of(settings.tls_cert, settings.tls_key)
        self._figures = figures or ApiFigures()
        self._tracing = tracing or NoTracing()
        self._bells = Bells(bus)
        self._keys = Keys(
            tokens,
            self._bells,
            always=not is_local(settings.host),
            tell=lambda: bus.publish(Subjects.TOKENS_CHANGED, b""),
        )
        self._diary = Diary(audit, keep=timedelta(days=settings.audit_days))
        self._doors = Doors(reading.hooks, secrets or EnvironmentSecrets({}), self._bells)
        self._live = Live(reading.news, self._bells, live or LiveSettings())
        self._links = Links(settings)
        self._pressure = Pressure(settings, backlog, bus, disk=disk)
        self._intake = Intake(settings, self._links, self._pressure, self._doors)
        calls = FairCalls(calls)
        hooks = Hooks(calls, self._doors)
        parts: tuple[Routed, ...] = (
            Health(reading, bus, ready, self._pressure),
            Events(calls, reading, settings.max_events),
            CloudEvents(calls, settings.max_events),
            Dags(calls, reading),
            Runs(calls, reading, self._bells),
            Clearings(calls),
            Pools(calls, reading),
            Tasks(reading, self._bells),
            Triggers(reading),
            Past(calls, reading),
            hooks,
            DeadLetters(calls, reading, hooks),
            self._live,
            AccessRoutes(tokens, audit, self._keys),
            *further,
        )
        self._parts = (*parts, OpenApi(parts))
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it answers, such as `http://127.0.0.1:8080`; known once it runs."""
        if self._url is None:
            raise RuntimeError("the API does not run yet")
        return self._url

    @property
    def own_token(self) -> str:
        """A token with which the owner of this daemon's home may do everything; new each start."""
        return self._keys.own

    @property
    def certificate(self) -> Path | None:
        """The file of its certificate; None for plain HTTP."""
        return self._settings.tls_cert

    async def run(
        self,
        stopping: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stopping` is set and the requests under way are answered.

        Raises:
            ConfigError: The port is taken, the address is not this machine's, or it lets other
                machines in and there is no token that they could show.
            StoreUnavailable: Nobody can tell whether there is one.
        """
        runner = self._runner()
        await runner.setup()
        try:
            await self._doors.load()
            await self._keys.load()
            self._check_reach()
            await self._pressure.look()
            await self._listen(runner)
            log.info("api.listening", url=self.url)
            async with anyio.create_task_group() as group:
                for follow in self._followers():
                    group.start_soon(follow)
                task_status.started()
                await stopping.wait()
                group.cancel_scope.cancel()
        finally:
            self._bells.stop()
            with anyio.move_on_after(self._settings.drain_seconds + _CLOSE_SECONDS, shield=True):
                await runner.cleanup()

    def _followers(self) -> Iterator[Callable[[], Coroutine[None, None, None]]]:
        yield self._doors.follow
        yield self._keys.follow
        yield self._diary.follow
        yield self._live.run
        yield self._pressure.follow
        yield self._links.watch
        if self._certificate is not None:
            yield self._certificate.follow

    def _check_reach(self) -> None:
        host = self._settings.host
        if is_local(host):
            return
        if not self._keys.known:
            raise StoreUnavailable("nobody can tell who may ask: Postgres is out of reach")
        check_reach(host, tokens=self._keys.some)
        if self._certificate is None:
            log.warning(
                "api.unencrypted",
                host=host,
                advice="tokens travel in clear: give --tls-cert, or let only a TLS proxy reach it",
            )

    def _runner(self) -> web.AppRunner:
        routes = [route for part in self._parts for route in part.routes()]
        gate = Gate(routes, self._keys, self._diary)
        settings = self._settings
        app = web.Application(
            middlewares=[
                self._figures.middleware(),
                traced(self._tracing),
                problems,
                self._links.middleware,
                gate.middleware(),
            ],
            client_max_size=settings.max_body_bytes,
        )
        app.add_routes(self._intake.guarded(route).served() for route in routes)
        app.on_response_prepare.append(Headers(tls=self._certificate is not None).add)
        return Runner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=settings.drain_seconds,
            keepalive_timeout=settings.idle_seconds,
            max_line_size=settings.max_header_bytes,
            max_field_size=settings.max_header_bytes,
            max_headers=settings.max_headers,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )

    async def _listen(self, runner: web.AppRunner) -> None:
        host, port = self._settings.host, self._settings.port
        context = None if self._certificate is None else self._certificate.context
        site = GuardedSite(
            runner,
            host,
            port,
            links=self._links,
            handshake_seconds=self._settings.header_seconds,
            backlog=_BACKLOG,
            ssl_context=context,
        )
        try:
            await site.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of {host} is taken by another program: choose another one with "
                    "--port, or --port 0 for any that is free"
                ) from error
            raise ConfigError(
                f"nothing can listen on {host}:{port} ({error.strerror}): choose with --host and "
                "--port"
            ) from error
        name = f"[{host}]" if ":" in host else host
        self._url = f"{'http' if context is None else 'https'}://{name}:{runner.addresses[0][1]}"
