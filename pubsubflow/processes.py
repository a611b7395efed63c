"""The processes of a daemon: its own servers, and the fork server of user code.

They take longer to get ready than all else. So they are started before what talks to them is
imported, and little is imported here.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog
from anyio import to_thread
from msgspec import Struct

from pubsubflow.config import Config
from pubsubflow.connection_shares import share_open_files
from pubsubflow.embedded import EmbeddedServers, check_space
from pubsubflow.embedded.os_account import choose_account
from pubsubflow.errors import ConfigError
from pubsubflow.loader.settings import PRELOAD
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.open_files import OpenFileLimit
from pubsubflow.runner.forkserver import RUNNER_MODULES, ForkServer
from pubsubflow.runner.task_account import (
    AUTO,
    TaskAccount,
    choose_task_account,
    make_folders,
    needed_paths,
)

if TYPE_CHECKING:
    from pubsubflow.airflow.outside.hosts import AirflowBundle

hosts = lazy_module("pubsubflow.airflow.outside.hosts")
log = structlog.get_logger(__name__)


class DaemonProcesses(Struct, frozen=True, kw_only=True):
    """The processes of a daemon.

    Attributes:
        config: All settings, with the addresses of embedded servers.
        fork_server: None unless a role runs user code.
        servers: NATS and Postgres of the daemon's own, if it has.
        airflow: None unless the configuration has bundles of Airflow's files, and a role uses them.
    """

    config: Config
    fork_server: ForkServer | None
    servers: EmbeddedServers | None
    airflow: "AirflowResources | None"


class AirflowResources(Struct, frozen=True):
    """The bundles of Airflow's files, and the folder of their hosts' sockets."""

    bundles: "list[AirflowBundle]"
    folder: Path


@asynccontextmanager
async def open_processes(
    config: Config,
    *,
    roles: frozenset[str],
    dags: Path | None,
    embedded: bool,
    meanwhile: Callable[[], object] = lambda: None,
    on_new_home: Callable[[TaskAccount | None], object] = lambda _account: None,
) -> AsyncIterator[DaemonProcesses]:
    """Start the processes that the roles need, for the length of a block.

    Args:
        config: All settings.
        roles: The daemon's.
        dags: The folder or file whose DAGs it loads, if any.
        embedded: Whether it starts NATS and Postgres of its own.
        meanwhile: Called once all have been started, while they get ready; may block.
        on_new_home: Called after that where a new cluster is made, which takes longer, with the
            account of user code, if a role runs it.

    Raises:
        ConfigError: A setting or the environment does not allow it.
    """
    limit = OpenFileLimit.raised()
    config = share_open_files(limit.now, config, roles)
    if embedded:
        check_space(config.home)
    # A new cluster takes longest, and its processes need the cores: the zygote comes after it.
    is_first = embedded and not (config.bundles or (config.home / "postgres" / "data").exists())
    runs_code = bool(roles & {"worker", "triggerer"}) or ("scheduler" in roles and dags is not None)
    find_account = cache(partial(find_task_account, config, embedded))

    def prepare() -> None:
        meanwhile()
        if is_first and runs_code:
            on_new_home(find_account())

    async with AsyncExitStack() as stack:
        start_fork_server = partial(
            _start_fork_server,
            stack,
            config,
            find_account,
            open_files=limit.before,
            later=RUNNER_MODULES if "worker" in roles else (),
        )
        fork_server, airflow, servers = None, None, None
        if runs_code and not is_first:
            fork_server, airflow = await start_fork_server()
        if embedded:
            servers = await stack.enter_async_context(
                EmbeddedServers(config.home, meanwhile=prepare)
            )
            config = _with_addresses(config, servers)
        else:
            prepare()
        if runs_code and is_first:
            fork_server, airflow = await start_fork_server()
        yield DaemonProcesses(
            config=config, fork_server=fork_server, servers=servers, airflow=airflow
        )


async def _start_fork_server(
    stack: AsyncExitStack,
    config: Config,
    find_account: Callable[[], TaskAccount | None],
    *,
    open_files: int,
    later: tuple[str, ...],
) -> tuple[ForkServer, AirflowResources | None]:
    account, airflow = await to_thread.run_sync(find_account), None
    if config.bundles:
        # Before the processes that find the hosts by their environment.
        find = partial(hosts.find_bundles, config.bundles, config.home, account)
        bundles = await to_thread.run_sync(find)
        airflow = AirflowResources(bundles, stack.enter_context(hosts.hosts_folder(account)))
    fork_server = await stack.enter_async_context(
        ForkServer.start(preload=PRELOAD, open_files=open_files, account=account, later=later)
    )
    return fork_server, airflow


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
