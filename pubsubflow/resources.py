"""The resources of a daemon: its processes and connections, which its services share."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import structlog
from msgspec import Struct

from pubsubflow.bus import STREAM_IN, STREAM_TASK, Bus
from pubsubflow.config import Config
from pubsubflow.embedded import AnnouncedHome, EmbeddedServers
from pubsubflow.embedded.daemon_record import DaemonRecord
from pubsubflow.model.traces import Tracing
from pubsubflow.model.wire.executor_spec import ExecutorSpec, bundle_queue, executor_queue
from pubsubflow.model.wire.messages import WorkerLostMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.processes import AirflowResources, DaemonProcesses
from pubsubflow.runner.caches.bundle_cache import BundleCache
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.task_account import TaskAccount
from pubsubflow.secrets_backends.chain import SecretsChain
from pubsubflow.secrets_backends.opening import open_backends
from pubsubflow.store.database import Database
from pubsubflow.store.leases import SUBSCRIPTIONS, release_leases, revoke_lease
from pubsubflow.store.migrate import migrate
from pubsubflow.store.read.workers import has_managers, list_worker_names
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import KEY_FILE_NAME, Keyring
from pubsubflow.store.secrets.links import SignedLinks
from pubsubflow.store.secrets.variables import Variables
from pubsubflow.store.triggers import TriggerLeases, release_all_triggers
from pubsubflow.tracing import open_tracing

log = structlog.get_logger()


class DaemonStore(Struct, frozen=True):
    """The database, with the connections and variables whose secrets are in it."""

    database: Database
    connections: Connections
    variables: Variables
    backends: SecretsChain
    links: SignedLinks


class DaemonResources(Struct, frozen=True, kw_only=True):
    """What the services of a daemon share.

    Attributes:
        config: All settings, with the addresses of embedded servers.
        store: None for a daemon that is only a worker.
        fork_server: None unless a role runs user code.
        servers: NATS and Postgres of the daemon's own, if it has.
        home: The home by which commands find a daemon without servers of its own.
        airflow: None unless the configuration has bundles of Airflow's files, and a role uses them.
        record: Where this daemon writes its names, if it has no servers of its own.
    """

    config: Config
    bus: Bus
    tracing: Tracing
    store: DaemonStore | None
    fork_server: ForkServer | None
    servers: EmbeddedServers | None
    home: AnnouncedHome | None = None
    airflow: AirflowResources | None = None
    record: DaemonRecord | None = None


@asynccontextmanager
async def open_resources(
    processes: DaemonProcesses, *, roles: frozenset[str]
) -> AsyncIterator[DaemonResources]:
    """Open the connections that the roles need, for the length of a block.

    Args:
        processes: The daemon's, which have been started.
        roles: The daemon's.

    Raises:
        ConfigError: A setting or the environment does not allow it.
        Unavailable: NATS or Postgres cannot be reached.
    """
    config, embedded = processes.config, processes.servers is not None
    uses_store = bool(roles - {"worker"})
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(
            open_tracing(config.traces, os.environ, needed=uses_store)
        )
        home = None
        if not embedded and "api" in roles:
            home = await stack.enter_async_context(AnnouncedHome.open(config.home))
        record = None if embedded else stack.enter_context(DaemonRecord.open(config.home))
        bus = await stack.enter_async_context(Bus.connect(config.nats))
        store = None
        if not uses_store:
            await bus.ensure_streams()
        else:
            database = await stack.enter_async_context(Database.open(config.postgres))
            async with anyio.create_task_group() as group:
                group.start_soon(bus.ensure_streams)
                group.start_soon(migrate, database)
            keyring = Keyring(config.secrets.key_file or config.home / KEY_FILE_NAME)
            backends = open_backends(config.secrets)
            store = DaemonStore(
                database,
                Connections(database, keyring, backends=backends),
                Variables(database, keyring, backends=backends),
                backends,
                SignedLinks(database, keyring),
            )
        resources = DaemonResources(
            config=config,
            bus=bus,
            tracing=tracing,
            store=store,
            fork_server=processes.fork_server,
            servers=processes.servers,
            home=home,
            airflow=processes.airflow,
            record=record,
        )
        if embedded:
            await _take_over(resources)
        elif record is not None:
            with record.killed() as names:
                await _take_over_from(names, resources)
        yield resources


def open_bundle_cache(config: Config, account: TaskAccount | None) -> BundleCache:
    """Return a cache of bundles, on the folder that all services share.

    Args:
        config: All settings.
        account: The account of user code; None for the daemon's own.
    """
    settings = config.worker
    # The home is root's alone: another account reaches nothing in it.
    home = Path(account.shared) if account is not None else config.home
    folder = settings.cache_dir or home / "bundles"
    try:
        return BundleCache(folder, max_bytes=settings.max_cache_bytes, account=account)
    except OSError as error:
        # A new folder: one that exists there already may be another account's.
        place = Path(tempfile.mkdtemp(prefix="pubsubflow-bundles-"))
        log.warning("daemon.cache_moved", wanted=str(folder), to=str(place), error=str(error))
        return BundleCache(place, max_bytes=settings.max_cache_bytes, account=account)


async def _take_over(resources: DaemonResources) -> None:
    """Release at once all that a daemon held that died on this home.

    Embedded servers serve one daemon at a time: the consumers can be reset, and the workers and
    triggerers that are registered are gone.
    """
    bus = resources.bus
    await bus.reset_consumer(STREAM_IN, "managers")
    for queue in resources.config.worker.queues:
        for kind in ("sync", "async"):
            await bus.reset_consumer(STREAM_TASK, f"{queue}-{kind}")
            for bundle in resources.config.bundles:
                await bus.reset_consumer(STREAM_TASK, f"{bundle_queue(queue, bundle)}-{kind}")
        for name in resources.config.executors:
            await bus.reset_consumer(STREAM_TASK, executor_queue(queue, ExecutorSpec(name)))
    if resources.store is None:
        return
    database = resources.store.database
    for worker in await list_worker_names(database):
        await _declare_lost(bus, worker)
    await release_all_triggers(database)
    await revoke_lease(database, SUBSCRIPTIONS)


async def _take_over_from(names: Sequence[str], resources: DaemonResources) -> None:
    """Release at once what daemons held that were killed on this home, beside others that live.

    Without it others would do so when these have been silent for some seconds.

    Args:
        names: Of the workers and triggerers that are gone.
        resources: Of this daemon.
    """
    if not names:
        return
    log.info("daemon.taken_over", killed=names)
    bus, store = resources.bus, resources.store
    if store is not None:
        for name in names:
            await TriggerLeases(store.database, name).deregister()
        await release_leases(store.database, names)
        # What was delivered to a manager comes again after seconds, unless none is there at all.
        if not await has_managers(store.database):
            await bus.reset_consumer(STREAM_IN, "managers")
    for name in names:
        await _declare_lost(bus, name, message_id=f"g.{name}")


async def _declare_lost(bus: Bus, worker: str, *, message_id: str | None = None) -> None:
    message = encode(WorkerLostMessage(worker))
    subject = Subjects.inbound(Subjects.WORKER_LOST, 0)
    await bus.publish_durable(subject, message, message_id=message_id)
