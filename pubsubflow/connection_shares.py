"""Connection shares are fitted to the open files of the process.

What cannot be had is not promised: the API and the deliveries get as many connections as are left
when the daemon's own needs are met.
"""

import os

import structlog
from msgspec.structs import replace

from pubsubflow.config import Config
from pubsubflow.errors import ConfigError

log = structlog.get_logger(__name__)

_OWN_FILES = 64
"""Libraries, sockets, logs, pipes of the servers, the event loop; measured: 29 when idle."""
_FILES_A_PROCESS = 4
"""The stream, two pipes, and one more while it is forked."""
_RESERVED_CONNECTIONS = 16
"""Health checks beyond the limit; see `api.server.connections`."""
_LEAST_CONNECTIONS = 16
_DELIVERIES_SHARE = 4


def share_open_files(open_files: int, config: Config, roles: frozenset[str]) -> Config:
    """Return settings whose connections fit the limit.

    Args:
        open_files: How many files this process may open.
        config: All settings.
        roles: The daemon's.

    Raises:
        ConfigError: The limit is too low for the daemon.
    """
    own = _own_files(config, roles)
    left = open_files - own - _RESERVED_CONNECTIONS
    if left < _LEAST_CONNECTIONS:
        raise ConfigError(
            f"{open_files} files may be open, and this daemon needs {own} for itself: raise the "
            f"limit (`ulimit -n {own + 512}`), or lower worker.processes and "
            "postgres.pool_max_size"
        )
    deliveries = min(config.subscriptions.max_connections, max(1, left // _DELIVERIES_SHARE))
    deliveries = deliveries if "scheduler" in roles else config.subscriptions.max_connections
    left -= deliveries if "scheduler" in roles else 0
    connections = min(config.api.max_connections, left)
    if connections < config.api.max_connections and "api" in roles:
        log.warning(
            "daemon.connections_limited",
            open_files=open_files,
            max_connections=connections,
            configured=config.api.max_connections,
            advice=f"raise the limit of open files: ulimit -n {own + 1024}",
        )
    return replace(
        config,
        api=replace(config.api, max_connections=connections),
        subscriptions=replace(config.subscriptions, max_connections=deliveries),
    )


def _own_files(config: Config, roles: frozenset[str]) -> int:
    """Return how many files the daemon opens itself at most."""
    processes = 0
    if "worker" in roles:
        # Idle ones are kept warm beside those of tasks, and one serves all async tasks; a process
        # that is replaced exists for a moment beside its successor.
        processes += config.worker.processes + config.worker.warm_processes + 2
    if "scheduler" in roles:
        processes += config.loader.processes or os.cpu_count() or 1
    pool = config.postgres.pool_max_size if roles - {"worker"} else 0
    return _OWN_FILES + pool + _FILES_A_PROCESS * processes
