"""The API service serves HTTP: it assembles routes, middlewares and limits into one server."""

import errno
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import structlog
from aiohttp import web
from anyio.abc import TaskStatus

from pubsubflow.api.auth.audit import AuditRecorder
from pubsubflow.api.auth.dag_tags import DagTags
from pubsubflow.api.auth.middleware import AuthMiddleware
from pubsubflow.api.auth.token_cache import TokenCache
from pubsubflow.api.http.headers import ResponseHeaders
from pubsubflow.api.http.openapi import OpenApiRoutes
from pubsubflow.api.http.packing import packed
from pubsubflow.api.http.problems import problem_middleware
from pubsubflow.api.http.routing import RouteProvider
from pubsubflow.api.oidc.routes import OidcRoutes, SignInMethodRoutes
from pubsubflow.api.oidc.settings import OidcSettings
from pubsubflow.api.page.routes import PageRoutes
from pubsubflow.api.routes.answers.calls import CallRoutes
from pubsubflow.api.routes.answers.checks import CheckRoutes
from pubsubflow.api.routes.cloud_events import CloudEventRoutes
from pubsubflow.api.routes.dags import DagRoutes
from pubsubflow.api.routes.dead_letters import DeadLetterRoutes
from pubsubflow.api.routes.events import EventRoutes
from pubsubflow.api.routes.health import HealthRoutes
from pubsubflow.api.routes.history.causality import CausalityRoutes
from pubsubflow.api.routes.history.output import OutputRoutes
from pubsubflow.api.routes.history.timeline import TimelineRoutes
from pubsubflow.api.routes.overview.summary import SummaryRoutes
from pubsubflow.api.routes.overview.system import SystemRoutes
from pubsubflow.api.routes.pools import PoolRoutes
from pubsubflow.api.routes.replay import ReplayRoutes
from pubsubflow.api.routes.runs.backfills import BackfillRoutes
from pubsubflow.api.routes.runs.bulk import BulkRoutes
from pubsubflow.api.routes.runs.clearing import ClearingRoutes
from pubsubflow.api.routes.runs.marking import MarkingRoutes
from pubsubflow.api.routes.runs.runs import RunRoutes
from pubsubflow.api.routes.runs.tasks_of_runs import TasksOfRunsRoutes
from pubsubflow.api.routes.sessions import SessionRoutes
from pubsubflow.api.routes.tasks import TaskRoutes
from pubsubflow.api.routes.tokens import TokenRoutes
from pubsubflow.api.routes.triggers import TriggerRoutes
from pubsubflow.api.routes.versions.versions import VersionRoutes
from pubsubflow.api.routes.webhooks import WebhookRoutes
from pubsubflow.api.server.backpressure import Backpressure
from pubsubflow.api.server.connections import LimitedSite, OpenConnections
from pubsubflow.api.server.fair_queue import FairQueue
from pubsubflow.api.server.http_errors import ProblemRunner
from pubsubflow.api.server.instrumentation import tracing_middleware
from pubsubflow.api.server.limits import RequestLimits
from pubsubflow.api.server.metrics import ApiMetrics
from pubsubflow.api.server.tls import certificate_of
from pubsubflow.api.settings import ApiSettings, check_host_needs_token, is_local
from pubsubflow.api.stream.routes import StreamRoutes
from pubsubflow.api.stream.settings import StreamSettings
from pubsubflow.api.webhook_cache import WebhookCache
from pubsubflow.bus import Bus
from pubsubflow.errors import ConfigError, StoreUnavailable
from pubsubflow.model.traces import NoTracing, Tracing
from pubsubflow.model.wire.backlog import QueueBacklog
from pubsubflow.model.wire.commands import CommandHandler
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.auth import AuditLog, SessionStore, TokenStore
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.wakeup import RunEnds, Wakeups
from pubsubflow.webhooks.secrets import EnvironmentSecrets, SecretSource

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_CLOSE_SECONDS = 2.0
LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read, so that its sender gets to read the response."""


class Api:
    """The HTTP service; it acknowledges nothing that is not durable.

    Args:
        commands: Carries out commands: the manager.
        read_models: Reads what is shown.
        bus: Announces changes to those who wait for them.
        settings: Address and limits.
        oidc: The provider at which people sign in; none if left out.
        tokens: The stored tokens.
        audit: The stored audit log.
        sessions: The stored sessions of browsers.
        ready: Further conditions of readiness by name, for example whether the DAGs are loaded.
        stores: Whether each object store works, by name; a daemon is ready without.
        secrets: Looks up the secrets that webhooks name; none if left out.
        stream: Settings of the live stream.
        metrics: Its metrics; new ones unless given.
        tracing: Collects spans; they are dropped unless given.
        backlog: Returns the commands that the manager has not processed yet.
        run_ends: Announces ends of runs that the manager of this daemon commits.
        disk: A folder on the disk of the daemon's own servers; None if they are not its own.
        retention: The settings of retention, to show them.
        further: Routes that need more than this, such as those of connections.
        now: The time, by which tokens expire.
        oidc_clock: Returns seconds since 1970, by which ID tokens expire.

    Raises:
        ConfigError: The certificate is invalid.
    """

    def __init__(
        self,
        *,
        commands: CommandHandler,
        read_models: ReadModels,
        bus: Bus,
        settings: ApiSettings,
        oidc: OidcSettings | None = None,
        tokens: TokenStore,
        audit: AuditLog,
        sessions: SessionStore,
        ready: Callable[[], Mapping[str, bool]] = dict,
        stores: Callable[[], Mapping[str, bool]] = dict,
        secrets: SecretSource | None = None,
        stream: StreamSettings | None = None,
        metrics: ApiMetrics | None = None,
        tracing: Tracing | None = None,
        backlog: Callable[[], QueueBacklog] = QueueBacklog,
        run_ends: RunEnds | None = None,
        disk: Path | None = None,
        retention: Mapping[str, float] | None = None,
        further: Sequence[RouteProvider] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        oidc_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._certificate = certificate_of(settings.tls_cert, settings.tls_key)
        self._metrics = metrics or ApiMetrics()
        self._tracing = tracing or NoTracing()
        self._wakeups = Wakeups(bus)
        oidc = oidc or OidcSettings()
        self._people = people = bool(oidc.issuer)
        self._tokens = TokenCache(
            tokens,
            sessions,
            self._wakeups,
            always=not is_local(settings.host) or people,
            people=people,
            publish=lambda: bus.publish(Subjects.TOKENS_CHANGED, b""),
            now=now,
        )
        self._audit = AuditRecorder(audit, keep=timedelta(days=settings.audit_days))
        self._tags = DagTags(read_models.dags, self._wakeups)
        self._read_models = read_models
        self._webhooks = WebhookCache(
            read_models.webhooks, secrets or EnvironmentSecrets({}), self._wakeups
        )
        self._oidc = OidcRoutes(
            *(oidc, settings, sessions, self._tokens, self._audit), clock=oidc_clock
        )
        self._stream = StreamRoutes(read_models.changes, self._wakeups, stream or StreamSettings())
        self._connections = OpenConnections(settings)
        self._backpressure = Backpressure(settings, backlog, bus, disk=disk)
        self._limits = RequestLimits(
            settings, self._connections, self._backpressure, self._webhooks
        )
        commands, ends = FairQueue(commands), RunEnds() if run_ends is None else run_ends
        webhooks = WebhookRoutes(commands, self._webhooks)
        parts: tuple[RouteProvider, ...] = (
            HealthRoutes(
                read_models,
                bus,
                ready,
                self._backpressure,
                stores=stores,
                max_overdue_seconds=settings.max_overdue_seconds,
            ),
            EventRoutes(commands, read_models, settings.max_events),
            CloudEventRoutes(commands, settings.max_events),
            DagRoutes(commands, read_models),
            SummaryRoutes(read_models, now),
            SystemRoutes(read_models, bus, retention or {}),
            VersionRoutes(read_models),
            RunRoutes(commands, read_models, self._wakeups),
            CausalityRoutes(read_models),
            TimelineRoutes(read_models),
            OutputRoutes(read_models),
            CallRoutes(commands, read_models, self._wakeups, ends, most=settings.max_calls),
            ClearingRoutes(commands),
            BulkRoutes(commands, read_models),
            MarkingRoutes(commands),
            PoolRoutes(commands, read_models),
            TasksOfRunsRoutes(commands, read_models),
            TaskRoutes(read_models, self._wakeups),
            TriggerRoutes(read_models),
            CheckRoutes(commands, read_models.checks),
            ReplayRoutes(commands, read_models),
            BackfillRoutes(commands, read_models, self._wakeups),
            webhooks,
            DeadLetterRoutes(commands, read_models, webhooks),
            self._stream,
            TokenRoutes(tokens, self._audit, self._tokens),
            SessionRoutes(
                *(sessions, self._tokens, self._audit, settings, self._tags),
                self._oidc.sign_out_url,
            ),
            SignInMethodRoutes(self._oidc.name, self._tokens),
            *further,
        )
        self._parts = (*parts, OpenApiRoutes(parts))
        self._page = PageRoutes()
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Its address, such as `http://127.0.0.1:8080`; known once it runs."""
        if self._url is None:
            raise RuntimeError("the API does not run yet")
        return self._url

    @property
    def needs_token(self) -> bool:
        """Whether requests need a token, also while that is not known yet."""
        return self._tokens.required

    @property
    def own_token(self) -> str:
        """A token with which the owner of this daemon's home may do everything; new each start."""
        return self._tokens.own

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
            ConfigError: The port is in use, the address is not this machine's, or it is reachable
                from other machines and no token exists.
            StoreUnavailable: Whether there is a token cannot be read.
        """
        runner = self._runner()
        await runner.setup()
        try:
            # Before it listens: the first request must meet the webhooks, the tokens and the
            # limits in force.
            await self._webhooks.load()
            await self._tokens.load()
            self._check_host()
            await self._backpressure.measure()
            await self._listen(runner)
            log.info("api.listening", url=self.url)
            async with anyio.create_task_group() as group:
                for run in self._background_tasks():
                    group.start_soon(run)
                task_status.started()
                await stopping.wait()
                group.cancel_scope.cancel()
        finally:
            # First, so that streams and waits end: cleanup would wait for them in vain.
            self._wakeups.stop()
            with anyio.move_on_after(self._settings.drain_seconds + _CLOSE_SECONDS, shield=True):
                await runner.cleanup()

    def _background_tasks(self) -> Iterator[Callable[[], Coroutine[None, None, None]]]:
        yield self._webhooks.run
        yield self._tokens.run
        yield self._tags.run
        yield self._audit.run
        yield self._stream.run
        yield self._backpressure.run
        yield self._connections.run
        if self._certificate is not None:
            yield self._certificate.run

    def _check_host(self) -> None:
        host = self._settings.host
        if is_local(host):
            return
        if not self._tokens.loaded:
            raise StoreUnavailable("tokens cannot be checked: Postgres is out of reach")
        check_host_needs_token(host, tokens=self._tokens.has_live or self._people)
        if self._certificate is None:
            log.warning(
                "api.tls_missing",
                host=host,
                advice="tokens are sent unencrypted: set --tls-cert, or put a TLS proxy in front",
            )

    def _runner(self) -> web.AppRunner:
        # The page is no part of the API: its description does not have it.
        parts = (*self._parts, self._page, self._oidc)
        routes = [route for part in parts for route in part.routes()]
        auth = AuthMiddleware(routes, self._tokens, self._audit, self._tags, self._read_models)
        settings = self._settings
        app = web.Application(
            # From the outermost to the innermost. Metrics and traces see the status that problem
            # documents give to errors; authorisation comes after the limit of connections.
            middlewares=[
                self._metrics.middleware(),
                tracing_middleware(self._tracing),
                problem_middleware,
                self._connections.middleware,
                auth.middleware(),
            ],
            client_max_size=settings.max_body_bytes,
        )
        placed = map(self._stream.places.applied_to, routes)
        app.add_routes(packed(self._limits.applied_to(route)).definition() for route in placed)
        app.on_response_prepare.append(ResponseHeaders(tls=self._certificate is not None).add)
        return ProblemRunner(
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
        site = LimitedSite(
            runner,
            host,
            port,
            connections=self._connections,
            handshake_seconds=self._settings.header_seconds,
            backlog=_BACKLOG,
            ssl_context=context,
        )
        try:
            await site.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of {host} is in use by another program: choose another one with "
                    "--port, or --port 0 for any that is free"
                ) from error
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}): choose with --host and --port"
            ) from error
        name = f"[{host}]" if ":" in host else host
        self._url = f"{'http' if context is None else 'https'}://{name}:{runner.addresses[0][1]}"
