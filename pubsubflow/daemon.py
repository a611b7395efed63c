"""The composition root: builds the services of a daemon and runs them in one task group."""

import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from pubsubflow.api import Api
from pubsubflow.api.routes.connections import ConnectionRoutes
from pubsubflow.api.routes.metrics import Metrics
from pubsubflow.api.routes.subscriptions import SubscriptionRoutes
from pubsubflow.api.server.metrics import ApiFigures
from pubsubflow.api.server.metrics_server import ScrapeServer
from pubsubflow.api.settings import is_local
from pubsubflow.bus import STREAM_IN, STREAM_TASK, Bus
from pubsubflow.config import Config
from pubsubflow.deliveries import Subscriptions
from pubsubflow.embedded import EmbeddedServers
from pubsubflow.errors import ConfigError
from pubsubflow.instruments import Figure
from pubsubflow.lineage import Lineage
from pubsubflow.loader import PRELOAD, Loader
from pubsubflow.manager import Manager, Sweeper, SweeperSettings
from pubsubflow.manager.metrics import ManagerFigures
from pubsubflow.metrics import Cluster, Exposition, LoopLag
from pubsubflow.model.traces import Tracing
from pubsubflow.model.wire.messages import GoneMessage, TriggersOrder, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.services import Service, run_services
from pubsubflow.store.auth import AuditLog, Tokens
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.database import Database
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import SUBSCRIPTIONS, Lease, free_lease
from pubsubflow.store.migrate import migrate
from pubsubflow.store.read.read_models import Reading
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import FILE, KeyFile
from pubsubflow.store.subscribers import Subscribers
from pubsubflow.store.timers import Timers
from pubsubflow.store.triggers import TriggerLeases, free_all_triggers
from pubsubflow.store.workers import list_workers
from pubsubflow.timers import Clock
from pubsubflow.tracing import open_tracing
from pubsubflow.triggerer.service import Triggerer
from pubsubflow.webhooks.secrets import DaemonSecrets, EnvironmentSecrets
from pubsubflow.worker import Worker

log = structlog.get_logger()

ROLES = frozenset({"api", "manager", "scheduler", "triggerer", "worker"})
STOP_SECONDS = 10.0


async def run_daemon(
    config: Config,
    *,
    roles: frozenset[str] = ROLES,
    dags: Path | None = None,
    embedded: bool = True,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Run a daemon until SIGINT or SIGTERM.

    Args:
        config: All settings.
        roles: Which of `ROLES` it plays.
        dags: The folder or file whose DAGs it loads, if it plays `scheduler`.
        embedded: Whether it starts NATS and Postgres of its own, in `config.home`.
        on_ready: Called with the URL (empty without the role `api`) once all is ready.

    Raises:
        ConfigError: Something is in the way; the text says what to do.
        Unavailable: NATS or Postgres cannot be reached at the start.
    """
    unknown = roles - ROLES
    if unknown or not roles:
        raise ConfigError(f"unknown roles {sorted(unknown)}; there are {', '.join(sorted(ROLES))}")
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        await group.start(_stop_on_signal, stop)
        try:
            async with Daemon.build(config, roles=roles, dags=dags, embedded=embedded) as daemon:
                await group.start(daemon.run, stop)
                on_ready(daemon.url)
                log.info("daemon.ready", url=daemon.url, roles=sorted(roles))
                await daemon.stopped.wait()
        finally:
            group.cancel_scope.cancel()


async def _stop_on_signal(stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            log.info("daemon.stopping", signal=signal.Signals(number).name)
            stop.set()


class Daemon:
    """The services of one daemon, connected and ready to run; see `build`.

    Args:
        services: Names and services in the order of their start.
        api: The one that serves HTTP, if it plays that role.
        servers: The servers of its own, if it has.
        drain_seconds: How long its stop may take.

    Attributes:
        stopped: Set when all services have ended.
    """

    def __init__(
        self,
        services: list[tuple[str, Service]],
        *,
        api: Api | None,
        servers: EmbeddedServers | None,
        drain_seconds: float,
    ) -> None:
        self._services = services
        self._api = api
        self._servers = servers
        self._drain_seconds = drain_seconds
        self.stopped = anyio.Event()

    @property
    def url(self) -> str:
        """Where its HTTP answers, once it runs; empty without the role `api`."""
        return self._api.url if self._api is not None else ""

    async def run(
        self,
        stop: anyio.Event,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run all services until `stop` is set."""
        try:
            async with anyio.create_task_group() as group:
                services = partial(
                    run_services, self._services, stop, drain_seconds=self._drain_seconds
                )
                await group.start(services)
                if self._servers is not None:
                    self._announce(self._servers)
                task_status.started()
        finally:
            self.stopped.set()

    def _announce(self, servers: EmbeddedServers) -> None:
        """Tell the owner of the home where this daemon answers, and by which token."""
        if self._api is None:
            servers.announce("")
        else:
            servers.announce(
                self._api.url, token=self._api.own_token, certificate=self._api.certificate
            )

    @classmethod
    @asynccontextmanager
    async def build(
        cls, config: Config, *, roles: frozenset[str], dags: Path | None, embedded: bool
    ) -> AsyncIterator["Daemon"]:
        """Start or reach the servers, and put the services together."""
        async with AsyncExitStack() as stack:
            collecting = open_tracing(config.traces, os.environ, needed=bool(roles - {"worker"}))
            tracing = await stack.enter_async_context(collecting)
            builder = _Builder(config, roles=roles, dags=dags, tracing=tracing)
            await builder.start_forks(stack)
            if embedded:
                await builder.start_servers(stack)
            await builder.connect(stack)
            if embedded:
                await builder.take_over()
            yield cls(
                builder.services(),
                api=builder.api,
                servers=builder.servers,
                drain_seconds=config.worker.drain_seconds + STOP_SECONDS,
            )


class _Builder:
    """Builds a daemon step by step; every part gets what it needs by its constructor."""

    def __init__(
        self, config: Config, *, roles: frozenset[str], dags: Path | None, tracing: Tracing
    ) -> None:
        self._config = config
        self._tracing = tracing
        self._roles = roles
        self._dags = dags
        self.servers: EmbeddedServers | None = None
        self.api: Api | None = None
        self._figures: list[Iterable[Figure]] = []
        self._database: Database | None = None
        self._fork_server: ForkServer | None = None

    async def start_forks(self, stack: AsyncExitStack) -> None:
        """Start what warm processes are forked from, if a role needs it, beside all else."""
        loads = "scheduler" in self._roles and self._dags is not None
        if loads or self._roles & {"worker", "triggerer"}:
            self._fork_server = await stack.enter_async_context(ForkServer.start(preload=PRELOAD))

    async def start_servers(self, stack: AsyncExitStack) -> None:
        """Start NATS and Postgres of our own."""
        servers = await stack.enter_async_context(EmbeddedServers(self._config.home))
        self.servers = servers
        self._config = msgspec.structs.replace(
            self._config,
            nats=msgspec.structs.replace(
                self._config.nats, url=servers.nats.url, token=servers.nats.token
            ),
            postgres=msgspec.structs.replace(self._config.postgres, url=servers.postgres.dsn),
        )

    async def connect(self, stack: AsyncExitStack) -> None:
        """Connect to what the roles need."""
        config, roles = self._config, self._roles
        self._bus = await stack.enter_async_context(Bus.connect(config.nats))
        await self._bus.ensure_streams()
        if roles - {"worker"}:
            self._database = await stack.enter_async_context(Database.open(config.postgres))
            await migrate(self._database)
            keys = KeyFile(config.secrets.key_file or config.home / FILE)
            self._connections = Connections(self._database, keys)

    async def take_over(self) -> None:
        """Hand on at once what a daemon that died on this home had taken.

        On a home of its own nobody else holds messages: the consumers start anew, and the workers
        and triggerers that were known are gone.
        """
        await self._bus.reset_consumer(STREAM_IN, "managers")
        for queue in self._config.worker.queues:
            for kind in ("sync", "async"):
                await self._bus.reset_consumer(STREAM_TASK, f"{queue}-{kind}")
        if self._database is not None:
            for worker in await list_workers(self._database):
                message = encode(GoneMessage(worker))
                await self._bus.publish_durable(Subjects.inbound(Subjects.GONE, 0), message)
            await free_all_triggers(self._database)
            await free_lease(self._database, SUBSCRIPTIONS)

    def services(self) -> list[tuple[str, Service]]:
        """Return the services in the order of their start."""
        config, roles = self._config, self._roles
        services: list[tuple[str, Service]] = [("lag", self._measure())]
        if self.servers is not None:
            services.append(("servers", self.servers))
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        if self._database is not None:
            services += self._core(self._database)
        if self._database is not None and "scheduler" in roles:
            services.append(("subscriptions", self._deliveries(self._database, name)))
        if self._database is not None and self._fork_server is not None and "triggerer" in roles:
            triggerer = Triggerer(
                leases=TriggerLeases(self._database, name),
                bus=self._bus,
                fork_server=self._fork_server,
                name=name,
                settings=config.triggerer,
                connections=self._connections,
            )
            self._figures.append(triggerer.figures)
            services.append(("triggerer", triggerer))
        if self._fork_server is not None and "worker" in roles:
            worker = Worker(
                bus=self._bus,
                fork_server=self._fork_server,
                settings=config.worker,
                worker_id=name,
                succeeds=self.servers is not None,
            )
            self._figures.append(worker.figures)
            services.append(("worker", worker))
        return services + self._serving()

    def _serving(self) -> list[tuple[str, Service]]:
        """Return what listens: it starts last, when all it may be asked for is there."""
        config, exposition = self._config, self._exposition()
        services: list[tuple[str, Service]] = []
        if self._database is not None and "api" in self._roles:
            http = ApiFigures()
            self._figures.append(http)
            self.api = Api(
                calls=self._manager,
                reading=Reading(self._database),
                bus=self._bus,
                settings=config.api,
                live=config.live,
                secrets=DaemonSecrets(EnvironmentSecrets(os.environ), self._connections),
                tokens=Tokens(self._database),
                audit=AuditLog(self._database),
                figures=http,
                tracing=self._tracing,
                backlog=self._manager.backlog,
                disk=config.home if self.servers is not None else None,
                further=(
                    ConnectionRoutes(self._connections, self._bus),
                    SubscriptionRoutes(
                        Subscribers(self._database, self._connections),
                        self._bus,
                        allow_private=self._allow_private,
                    ),
                    Metrics(exposition.expose),
                ),
            )
            services.append(("api", self.api))
        if config.metrics.port:
            scraping = ScrapeServer(
                host=config.metrics.host,
                port=config.metrics.port,
                token=config.metrics.token,
                expose=exposition.expose,
            )
            services.append(("metrics", scraping))
        return services

    def _measure(self) -> LoopLag:
        """Begin the list of what is shown at `/metrics` with what every daemon has."""
        lag = LoopLag()
        self._figures += [lag, self._bus.figures]
        if self._database is not None:
            self._figures.append(self._database.figures)
        return lag

    def _exposition(self) -> Exposition:
        refresh_seconds = self._config.metrics.refresh_seconds
        cluster = Cluster(bus=self._bus, database=self._database, refresh_seconds=refresh_seconds)
        return Exposition(self._figures, cluster)

    @property
    def _allow_private(self) -> bool:
        """Whether subscribers may be on this machine or its networks."""
        allowed = self._config.subscriptions.allow_private
        return (
            "api" in self._roles and is_local(self._config.api.host) if allowed is None else allowed
        )

    def _deliveries(self, database: Database, name: str) -> Subscriptions:
        lease = Lease(database, SUBSCRIPTIONS, name)
        return Subscriptions(
            subscribers=Subscribers(database, self._connections),
            deliveries=Deliveries(database, lease),
            lease=lease,
            bus=self._bus,
            settings=self._config.subscriptions,
            allow_private=self._allow_private,
        )

    def _tell_clocks(self) -> None:
        self._bus.publish(Subjects.TIMERS_CHANGED, b"")

    def _tell_doors(self) -> None:
        self._bus.publish(Subjects.DAGS_CHANGED, b"")
        self._bus.publish(Subjects.TRIGGERS, encode(TriggersOrder(fresh=True)))

    def _core(self, database: Database) -> list[tuple[str, Service]]:
        figures = ManagerFigures(dag_labels=self._config.metrics.dag_labels)
        manager = self._manager = Manager(
            database=database,
            bus=self._bus,
            listens="manager" in self._roles,
            connections=self._connections,
            figures=figures,
            tracing=self._tracing,
        )
        self._figures.append(figures)
        services: list[tuple[str, Service]] = [("manager", manager)]
        if "manager" in self._roles:
            sweeper = Sweeper(
                database=database,
                bus=self._bus,
                calls=manager,
                settings=SweeperSettings(news_hours=self._config.live.history_hours),
            )
            services.append(("sweeper", sweeper))
            if self._config.lineage.url:
                lineage = Lineage(database=database, bus=self._bus, settings=self._config.lineage)
                services.append(("lineage", lineage))
        if "scheduler" in self._roles:
            clock = Clock(timers=Timers(database), bus=self._bus, calls=manager)
            services.append(("clock", clock))
            if self._dags is not None and self._fork_server is not None:
                loader = Loader(
                    self._dags,
                    fork_server=self._fork_server,
                    sink=Catalog(
                        database, timers_changed=self._tell_clocks, dags_changed=self._tell_doors
                    ),
                    settings=self._config.loader,
                )
                services.append(("loader", loader))
        return services
