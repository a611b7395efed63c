"""The resources of a daemon: servers, connections and the fork server that its services share."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog
from anyio import to_thread
from msgspec import Struct

from pubsubflow.airflow.outside.hosts import AirflowBundle, find_bundles, hosts_folder
from pubsubflow.bus import STREAM_IN, STREAM_TASK, Bus
from pubsubflow.config import Config
from pubsubflow.connection_shares import share_open_files
from pubsubflow.embedded import AnnouncedHome, EmbeddedServers, check_space
from pubsubflow.embedded.os_account import choose_account
from pubsubflow.errors import ConfigError
from pubsubflow.loader import PRELOAD
from pubsubflow.model.traces import Tracing
from pubsubflow.model.wire.executor_spec import ExecutorSpec, bundle_queue, executor_queue
from pubsubflow.model.wire.messages import WorkerLostMessage, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.open_files import OpenFileLimit
from pubsubflow.runner.forkserver import ForkServer
from pubsubflow.runner.task_account import (
    AUTO,
    TaskAccount,
    choose_task_account,
    make_folders,
    needed_paths,
)
from pubsubflow.secrets_backends.chain import SecretsChain
from pubsubflow.secrets_backends.opening import open_backends
from pubsubflow.store.database import Database
from pubsubflow.store.leases import SUBSCRIPTIONS, revoke_lease
from pubsubflow.store.migrate import migrate
from pubsubflow.store.read.workers import list_worker_names
from pubsubflow.store.secrets.connections import Connections
from pubsubflow.store.secrets.keyring import KEY_FILE_NAME, Keyring
from pubsubflow.store.secrets.links import SignedLinks
from pubsubflow.store.secrets.variables import Variables
from pubsubflow.store.triggers import release_all_triggers
from pubsubflow.tracing import open_tracing

log = structlog.get_logger(__name__)


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
    """

    config: Config
    bus: Bus
    tracing: Tracing
    store: DaemonStore | None
    fork_server: ForkServer | None
    servers: EmbeddedServers | None
    home: AnnouncedHome | None = None
    airflow: "AirflowResources | None" = None


class AirflowResources(Struct, frozen=True):
    """The bundles of Airflow's files, and the folder of their hosts' sockets."""

    bundles: list[AirflowBundle]
    folder: Path


@asynccontextmanager
async def open_resources(
    config: Config, *, roles: frozenset[str], dags: Path | None, embedded: bool
) -> AsyncIterator[DaemonResources]:
    """Open what the roles need, for the length of a block.

    Args:
        config: All settings.
        roles: The daemon's.
        dags: The folder or file whose DAGs it loads, if any.
        embedded: Whether it starts NATS and Postgres of its own.

    Raises:
        ConfigError: A setting or the environment does not allow it.
        Unavailable: NATS or Postgres cannot be reached.
    """
    limit = OpenFileLimit.raised()
    config = share_open_files(limit.now, config, roles)
    uses_store = bool(roles - {"worker"})
    if embedded:
        check_space(config.home)
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(
            open_tracing(config.traces, os.environ, needed=uses_store)
        )
        fork_server, airflow = None, None
        if roles & {"worker", "triggerer"} or ("scheduler" in roles and dags is not None):
            # First, because it gets ready in the background while the servers start.
            account = await to_thread.run_sync(find_task_account, config, embedded)
            if config.bundles:
                # Before the processes that find the hosts by their environment.
                find = partial(find_bundles, config.bundles, config.home, account)
                bundles = await to_thread.run_sync(find)
                airflow = AirflowResources(bundles, stack.enter_context(hosts_folder(account)))
            fork_server = await stack.enter_async_context(
                ForkServer.start(preload=PRELOAD, open_files=limit.before, account=account)
            )
        servers = None
        if embedded:
            servers = await stack.enter_async_context(EmbeddedServers(config.home))
            config = _with_addresses(config, servers)
        home = None
        if not embedded and "api" in roles:
            home = await stack.enter_async_context(AnnouncedHome.open(config.home))
        bus = await stack.enter_async_context(Bus.connect(config.nats))
        await bus.ensure_streams()
        store = None
        if uses_store:
            database = await stack.enter_async_context(Database.open(config.postgres))
            await migrate(database)
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
            fork_server=fork_server,
            servers=servers,
            home=home,
            airflow=airflow,
        )
        if embedded:
            await _take_over(resources)
        yield resources


def find_task_account(config: Config, embedded: bool) -> TaskAccount | None:  # noqa: FBT001
    """Return the account under which user code runs; None for the daemon's own.

    Args:
        config: All settings.
        embedded: Whether the daemon has servers of its own, whose account tasks must not have.

    Raises:
        ConfigError: The account that `worker.run_as` names cannot be used.
    """
    wanted, home = config.worker.run_as, config.home
    server = choose_account(home / "postgres" / "data") if embedded else None
    account = choose_task_account(wanted, home, () if server is None else (server.uid,))
    if account is None:
        return None
    reason = account.refusal([*needed_paths(), *_explicit_folders(config)])
    if reason is None:
        return make_folders(account, home)
    if wanted != AUTO:
        raise ConfigError(
            f"configuration: worker.run_as is {wanted!r}, and tasks cannot run under it: {reason}; "
            "move it to where that account can read it, or leave worker.run_as out"
        )
    log.warning(
        "daemon.tasks_run_as_root",
        reason=reason,
        hint="make that readable, run the daemon under an account of its own, or accept it by "
        'worker.run_as = ""',
    )
    return None


def _explicit_folders(config: Config) -> list[str]:
    """Return the parent of the folder of bundles, if the configuration names one."""
    folder = config.worker.cache_dir
    found = [] if folder is None else [each for each in folder.parents if each.exists()][:1]
    return [str(each) for each in found]


def _with_addresses(config: Config, servers: EmbeddedServers) -> Config:
    nats = msgspec.structs.replace(config.nats, url=servers.nats.url, token=servers.nats.token)
    postgres = msgspec.structs.replace(config.postgres, url=servers.postgres.dsn)
    return msgspec.structs.replace(config, nats=nats, postgres=postgres)


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
        message = encode(WorkerLostMessage(worker))
        await bus.publish_durable(Subjects.inbound(Subjects.WORKER_LOST, 0), message)
    await release_all_triggers(database)
    await revoke_lease(database, SUBSCRIPTIONS)
