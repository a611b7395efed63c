"""The composition root: builds the services that the roles of a daemon need."""

import os
import secrets
import socket
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pubsubflow.alerts import AlertService
from pubsubflow.alerts.announcer import Announcer
from pubsubflow.alerts.bundles import CallbackBundles
from pubsubflow.alerts.calls import CallbackCaller
from pubsubflow.alerts.freshness import FreshnessWatch
from pubsubflow.api import Api
from pubsubflow.api.routes.alerts import AlertRoutes
from pubsubflow.api.routes.answers.approvals import ApprovalRoutes
from pubsubflow.api.routes.answers.links import ApprovalLinkRoutes
from pubsubflow.api.routes.connections import ConnectionRoutes
from pubsubflow.api.routes.metrics import MetricsRoutes
from pubsubflow.api.routes.plugins import PluginRoutes
from pubsubflow.api.routes.reload import ReloadRoutes
from pubsubflow.api.routes.runs.simulations import SimulationRoutes
from pubsubflow.api.routes.state import StateRoutes
from pubsubflow.api.routes.subscriptions import SubscriptionRoutes
from pubsubflow.api.routes.variables import VariableRoutes
from pubsubflow.api.routes.versions.changes import VersionChangeRoutes
from pubsubflow.api.server.metrics import ApiMetrics
from pubsubflow.api.server.metrics_server import MetricsServer
from pubsubflow.api.settings import is_local
from pubsubflow.bus.stream_keeper import StreamKeeper
from pubsubflow.child_calls.catalogue import PluginCatalogue
from pubsubflow.child_calls.simulation import Simulations
from pubsubflow.deliveries import DeliveryService
from pubsubflow.instruments import Instrument
from pubsubflow.loader import Loader
from pubsubflow.loader.snapshot import EarlyReading
from pubsubflow.manager import Manager, Sweeper, SweeperSettings
from pubsubflow.manager.metrics import ManagerMetrics
from pubsubflow.metrics import ClusterMetrics, EventLoopLag
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.source.compiled import CompiledFolder
from pubsubflow.model.wire.messages import TriggersChangedMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.object_store import FileStore, open_log_store
from pubsubflow.open_files import OpenFileWatch
from pubsubflow.processes import find_task_account
from pubsubflow.resources import DaemonResources, open_bundle_cache
from pubsubflow.retention import Archive, LogMover, Pruner, RetentionService
from pubsubflow.roles import ROLES
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.task_account import TaskAccount
from pubsubflow.services import Service
from pubsubflow.store.alerts.alerts import AlertStore
from pubsubflow.store.alerts.calls import CallbackStore
from pubsubflow.store.alerts.freshness import FreshnessStore
from pubsubflow.store.auth import AuditLog, SessionStore, TokenStore
from pubsubflow.store.catalog import Catalog
from pubsubflow.store.deliveries import Deliveries
from pubsubflow.store.leases import SUBSCRIPTIONS, Lease
from pubsubflow.store.questions.answers import TaskQuestionQueries
from pubsubflow.store.read.read_models import ReadModels
from pubsubflow.store.read.timers import Timers
from pubsubflow.store.read.worker_requests import WorkerRequestQueries
from pubsubflow.store.subscribers import Subscribers
from pubsubflow.store.triggers import EndedRuns, TriggerLeases
from pubsubflow.store.values.approvals import ApprovalStore
from pubsubflow.store.values.state import StateStore
from pubsubflow.timers import TimerService
from pubsubflow.triggerer.service import Triggerer
from pubsubflow.webhooks.secrets import DaemonSecrets, EnvironmentSecrets
from pubsubflow.worker import ResultStore, Worker
from pubsubflow.worker.executors.settings import load_executor

if TYPE_CHECKING:
    from pubsubflow.airflow.outside.hosts import AirflowHosts
    from pubsubflow.metrics.exposition import Exposition

# Of those who have Airflow's files, an endpoint of lineage, or a reader of metrics.
airflow_hosts = lazy_module("pubsubflow.airflow.outside.hosts")
lineage = lazy_module("pubsubflow.lineage")
exposition = lazy_module("pubsubflow.metrics.exposition")

T = TypeVar("T")


class Composition:
    """Builds the services of a daemon; each gets what it needs by its constructor.

    Args:
        resources: Servers, connections and the fork server.
        roles: The daemon's.
        dags: The folder or file whose DAGs it loads, if any.

    Attributes:
        api: The service of the role `api`, once it is built.
        on_import: Called while DAG files are imported: how many are, of how many.
    """

    def __init__(
        self, resources: DaemonResources, *, roles: frozenset[str], dags: Path | None
    ) -> None:
        self._resources = resources
        self._config = resources.config
        self._bus = resources.bus
        self._roles = roles
        self._dags = dags
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        if resources.record is not None:
            resources.record.add(self._name)
        self._metrics: list[Iterable[Instrument]] = []
        self._stores: dict[str, Callable[[], bool]] = {}
        url = self._config.logs.store
        self._log_store = open_log_store(url) if url else None
        url = self._config.results.store
        self._result_store = FileStore(url, setting="results.store") if url else None
        self._airflow_hosts: AirflowHosts | None = None
        self._exposition: Exposition | None = None
        self.api: Api | None = None
        self.on_import: Callable[[int, int], None] | None = None
        self.compiled: CompiledFolder | None = None
        self.early: EarlyReading | None = None

    def services(self) -> list[tuple[str, Service]]:
        """Return the services of the roles, in the order of their start.

        Each may rely on those before it. What listens comes last, when all that it serves is
        there.
        """
        table: tuple[tuple[str, AbstractSet[str], Callable[[], Service | None]], ...] = (
            # service       in daemons with one of these roles   built by
            ("files",       ROLES,                               OpenFileWatch),
            ("lag",         ROLES,                               self._event_loop_lag),
            ("streams",     ROLES,                               self._stream_keeper),
            ("servers",     ROLES,                               self._servers),
            ("manager",     ROLES - {"worker"},                  self._manager),
            ("sweeper",     {"manager"},                         self._sweeper),
            ("retention",   {"manager"},                         self._retention),
            ("logs",        {"manager"},                         self._log_mover),
            ("lineage",     {"manager"},                         self._lineage),
            ("timers",      {"scheduler"},                       self._timers),
            ("airflow",     {"scheduler", "triggerer", "worker"}, self._airflow),
            ("loader",      {"scheduler"},                       self._loader),
            ("deliveries",  {"scheduler"},                       self._deliveries),
            ("alerts",      {"scheduler"},                       self._alerts),
            ("triggerer",   {"triggerer"},                       self._triggerer),
            ("worker",      {"worker"},                          self._worker),
            ("simulations", {"api"},                             self._simulator),
            ("api",         {"api"},                             self._api),
            ("metrics",     ROLES,                               self._metrics_server),
        )  # fmt: skip
        built = ((name, build()) for name, roles, build in table if roles & self._roles)
        return [(name, service) for name, service in built if service is not None]

    def _event_loop_lag(self) -> Service:
        lag = EventLoopLag()
        self._metrics += [lag, self._bus.metrics]
        if self._resources.store is not None:
            self._metrics.append(self._resources.store.database.metrics)
        return lag

    def _servers(self) -> Service | None:
        servers = self._resources.servers
        if servers is not None:
            servers.watch_streams(lambda: self._bus.stalled_seconds)
            servers.watch_answers(lambda: self._commands.uptime.unanswered_seconds)
        return servers

    def _stream_keeper(self) -> Service:
        self._streams = StreamKeeper(self._bus)
        return self._streams

    def _manager(self) -> Service:
        store = _built(self._resources.store)
        metrics = ManagerMetrics(dag_labels=self._config.metrics.dag_labels)
        self._metrics.append(metrics)
        # Without the role it consumes no messages, but executes the commands of the services here.
        self._commands = Manager(
            database=store.database,
            bus=self._bus,
            listens="manager" in self._roles,
            connections=store.connections,
            variables=store.variables,
            metrics=metrics,
            tracing=self._resources.tracing,
        )
        return self._commands

    def _sweeper(self) -> Service:
        sweeper = Sweeper(
            database=_built(self._resources.store).database.in_turn,
            bus=self._bus,
            commands=self._commands,
            settings=SweeperSettings(history_hours=self._config.live.history_hours),
            uptime=self._commands.uptime,
        )
        self._metrics.append(sweeper.metrics)
        return sweeper

    def _retention(self) -> Service:
        settings = self._config.retention
        archive = Archive(settings.archive, settings.archive_format) if settings.archive else None
        database = _built(self._resources.store).database
        pruner = Pruner(database, settings, archive, self._log_store, self._result_store)
        service = RetentionService(pruner, settings.every_seconds, self._bus)
        self._metrics.append(service.metrics)
        return service

    def _log_mover(self) -> Service | None:
        if self._log_store is None:
            return None
        database = _built(self._resources.store).database
        mover = LogMover(database, self._log_store, self._config.logs.every_seconds)
        self._metrics.append(mover.metrics)
        self._stores["log_store"] = lambda: mover.available
        return mover

    def _lineage(self) -> Service | None:
        settings = self._config.lineage
        if not settings.url:
            return None
        database = _built(self._resources.store).database
        service: Service = lineage.Lineage(database=database, bus=self._bus, settings=settings)
        return service

    def _timers(self) -> Service:
        timers = Timers(_built(self._resources.store).database)
        now = self._commands.clock.now
        return TimerService(timers=timers, bus=self._bus, commands=self._commands, now=now)

    def _airflow(self) -> Service | None:
        airflow = self._resources.airflow
        if airflow is None:
            return None
        fork_server = _built(self._resources.fork_server)
        hosts: AirflowHosts = airflow_hosts.AirflowHosts(
            airflow.bundles, fork_server, airflow.folder
        )
        self._airflow_hosts = hosts
        return hosts

    def _loader(self) -> Service | None:
        if self._dags is None:
            return None
        catalog = Catalog(
            _built(self._resources.store).database,
            timers_changed=self._publish_timers_changed,
            dags_changed=self._publish_dags_changed,
            now=self._commands.clock.now,
        )
        hosts, airflow = self._airflow_hosts, self._resources.airflow
        loader = Loader(
            self._dags,
            fork_server=_built(self._resources.fork_server),
            store=catalog,
            cache=self._bundle_cache() if self.early is None else self.early.cache,
            bus=self._bus,
            settings=self._config.loader,
            read_variables=_built(self._resources.store).variables.read_plain,
            on_progress=self.on_import,
            kinds=hosts.kinds if hosts else None,
            elsewhere=airflow_hosts.elsewhere_of(airflow.bundles) if airflow else None,
            compiled=self.compiled,
            early=self.early,
        )
        if hosts is not None:
            hosts.on_change = loader.look_again
        return loader

    def _bundle_cache(self) -> BundleCache:
        """Return a cache of the services' own, on the folder that they share."""
        server = self._resources.fork_server
        return open_bundle_cache(self._config, None if server is None else server.account)

    def _deliveries(self) -> Service:
        store = _built(self._resources.store)
        idle = store.database.in_turn
        lease = Lease(idle, SUBSCRIPTIONS, self._name)
        return DeliveryService(
            subscribers=Subscribers(idle, store.connections),
            deliveries=Deliveries(store.database, lease),
            lease=lease,
            bus=self._bus,
            settings=self._config.subscriptions,
            allow_private=self._allow_private,
        )

    def _alerts(self) -> Service:
        store, settings = _built(self._resources.store), self._config.alerts
        queries = WorkerRequestQueries(store.database)
        callbacks = CallbackStore(store.database.in_turn)
        caller = CallbackCaller(
            callbacks,
            CallbackBundles(queries, self._bundle_cache()),
            store.connections,
            store.variables,
            settings=settings,
            account=self._task_account(),
            now=self._commands.clock.now,
        )
        idle = store.database.in_turn
        alerts = AlertStore(idle)
        return AlertService(
            callbacks=callbacks,
            caller=caller,
            alerts=alerts,
            announcer=Announcer(alerts, self._commands),
            freshness=FreshnessWatch(FreshnessStore(idle), self._bus),
            bus=self._bus,
            settings=settings,
        )

    def _triggerer(self) -> Service:
        store = _built(self._resources.store)
        triggerer = Triggerer(
            leases=TriggerLeases(store.database.in_turn, self._name),
            bus=self._bus,
            fork_server=_built(self._resources.fork_server),
            name=self._name,
            settings=self._config.triggerer,
            connections=store.connections,
            ended_runs=EndedRuns(store.database.in_turn),
            questions=TaskQuestionQueries(store.database, store.variables),
        )
        self._metrics.append(triggerer.metrics)
        return triggerer

    def _worker(self) -> Service:
        results = ResultStore(self._result_store, self._config.results.wait_seconds)
        if self._result_store is not None:
            self._stores["result_store"] = lambda: results.available
        worker = Worker(
            bus=self._bus,
            fork_server=_built(self._resources.fork_server),
            settings=self._config.worker,
            cache=self._bundle_cache(),
            worker_id=self._name,
            results=results,
            result_settings=self._config.results,
            takes_over=self._resources.servers is not None,
            executors=[load_executor(*each) for each in self._config.executors.items()],
            bundles=tuple(self._config.bundles),
        )
        self._metrics.append(worker.metrics)
        if "manager" in self._roles:
            self._commands.hand_to(worker)
        return worker

    def _simulator(self) -> Service:
        self._simulations = Simulations(self._task_account())
        return self._simulations

    def _api(self) -> Service:
        store, metrics = _built(self._resources.store), ApiMetrics()
        catalogue = PluginCatalogue(account=self._task_account())
        approvals, now = ApprovalStore(store.database), self._commands.clock.now
        read_models = ReadModels(store.database, self._log_store, self._result_store)
        self._metrics.append(metrics)
        self.api = Api(
            commands=self._commands,
            read_models=read_models,
            bus=self._bus,
            settings=self._config.api,
            oidc=self._config.oidc,
            stream=self._config.live,
            secrets=DaemonSecrets(
                EnvironmentSecrets(os.environ), store.connections, store.backends
            ),
            tokens=TokenStore(store.database.in_turn),
            audit=AuditLog(store.database),
            sessions=SessionStore(store.database),
            ready=lambda: {"nats": self._bus.connected and self._streams.available},
            stores=lambda: {name: works() for name, works in self._stores.items()},
            metrics=metrics,
            tracing=self._resources.tracing,
            backlog=self._commands.backlog,
            run_ends=self._commands.run_ends,
            now=now,
            disk=self._config.home if self._resources.servers is not None else None,
            retention=self._config.retention.numbers(),
            further=(
                VariableRoutes(store.variables, self._bus),
                ConnectionRoutes(store.connections, self._bus, catalogue),
                PluginRoutes(catalogue),
                SimulationRoutes(read_models, self._simulations),
                AlertRoutes(AlertStore(store.database)),
                StateRoutes(StateStore(store.database)),
                VersionChangeRoutes(store.database, self._commands, read_models, self._bus, now),
                ApprovalRoutes(self._commands, approvals, store.links),
                ApprovalLinkRoutes(
                    self._commands, approvals, store.links, AuditLog(store.database)
                ),
                SubscriptionRoutes(
                    Subscribers(store.database, store.connections),
                    self._bus,
                    allow_private=self._allow_private,
                ),
                MetricsRoutes(self._expose),
                ReloadRoutes(self._bus),
            ),
        )
        return self.api

    def _task_account(self) -> TaskAccount | None:
        server, embedded = self._resources.fork_server, self._resources.servers is not None
        return server.account if server else find_task_account(self._config, embedded)

    def _metrics_server(self) -> Service | None:
        settings = self._config.metrics
        if not settings.port:
            return None
        return MetricsServer(
            host=settings.host,
            port=settings.port,
            token=settings.token,
            expose=self._expose,
        )

    async def _expose(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text; what writes them is imported for the first request."""
        if self._exposition is None:
            store = self._resources.store
            cluster = ClusterMetrics(
                bus=self._bus,
                database=None if store is None else store.database,
                refresh_seconds=self._config.metrics.refresh_seconds,
            )
            self._exposition = exposition.Exposition(self._metrics, cluster)
        found: tuple[bytes, str] = await self._exposition.expose(accept)
        return found

    def _allow_private(self) -> bool:
        """Return whether subscribers may be on this machine or its networks now."""
        allowed = self._config.subscriptions.allow_private
        if allowed is not None:
            return allowed
        # With tokens there are people who may not do all that the account of this daemon may. A
        # URL of theirs must not lead to what listens for that account on loopback.
        api = self.api
        return api is not None and is_local(self._config.api.host) and not api.needs_token

    def _publish_timers_changed(self) -> None:
        self._bus.publish(Subjects.TIMERS_CHANGED, b"")

    def _publish_dags_changed(self) -> None:
        self._bus.publish(Subjects.DAGS_CHANGED, b"")
        # A new version may watch datasets with triggers that no triggerer runs yet.
        self._bus.publish(Subjects.TRIGGERS_CHANGED, encode(TriggersChangedMessage(has_new=True)))


def _built(resource: T | None) -> T:
    """Return a resource that the roles of a service imply; see `open_resources`."""
    if resource is None:
        raise LookupError("a service is built for a role whose resources are not open")
    return resource
