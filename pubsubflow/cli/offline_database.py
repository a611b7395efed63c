"""The database of a daemon that does not run, for commands that work without one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from pubsubflow.config import Config
from pubsubflow.embedded import EmbeddedServers, find_running
from pubsubflow.errors import ConfigError
from pubsubflow.store.database import Database


@asynccontextmanager
async def open_offline_database(
    config: Config, *, make: bool = False, beside: bool = False
) -> AsyncIterator[Database]:
    """Open the configured database, or that of the home folder on servers started for it.

    Args:
        config: Holds the database's URL, or the home folder.
        make: Whether to create the home folder's database if there is none.
        beside: Whether to use the servers of a daemon that runs on the home folder.

    Raises:
        ConfigError: The home folder has no database, or a daemon runs on it.
    """
    if config.postgres.url:
        async with Database.open(config.postgres) as database:
            yield database
        return
    running = find_running(config.home) if beside else None
    if running is not None:
        settings = msgspec.structs.replace(config.postgres, url=running.postgres.dsn)
        async with Database.open(settings) as database:
            yield database
        return
    if not (make or (config.home / "VERSION").exists()):
        raise ConfigError(
            f"home {config.home} has no database yet: create it with `pubsubflow up`, or name "
            "another with --home or --postgres-url"
        )
    # Takes the home folder's lock, so that no daemon starts on these servers meanwhile.
    async with EmbeddedServers(config.home) as servers:
        settings = msgspec.structs.replace(config.postgres, url=servers.postgres.dsn)
        async with Database.open(settings) as database:
            yield database
