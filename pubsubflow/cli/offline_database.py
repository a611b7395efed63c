"""Opens the database of a daemon that does not run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from pubsubflow.config import Config
from pubsubflow.embedded import EmbeddedServers
from pubsubflow.errors import ConfigError
from pubsubflow.store.database import Database


@asynccontextmanager
async def opened(config: Config, *, make: bool = False) -> AsyncIterator[Database]:
    """Open the database that is named, or that of the home, whose servers run meanwhile.

    Args:
        config: Names them.
        make: Whether to make a home that is none yet.

    Raises:
        ConfigError: The home is none, or a daemon holds it.
    """
    if config.postgres.url:
        async with Database.open(config.postgres) as database:
            yield database
        return
    if not (make or (config.home / "VERSION").exists()):
        raise ConfigError(
            f"home {config.home} has no database yet: `pubsubflow up` makes one; name yours with "
            "--home or --postgres-url"
        )
    async with EmbeddedServers(config.home) as servers:
        settings = msgspec.structs.replace(config.postgres, url=servers.postgres.dsn)
        async with Database.open(settings) as database:
            yield database
