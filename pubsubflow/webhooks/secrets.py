"""Where the secrets are that webhooks name."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from pubsubflow.errors import ConfigError, InvalidInput, NotFound
from pubsubflow.model.connections import Connection, read_reference
from pubsubflow.model.webhooks import OneSecret, Secret

PREFIX = "PUBSUBFLOW_SECRET_"


class SecretSource(Protocol):
    """Knows secrets by their names."""

    async def find(self, name: str) -> str | None:
        """Return a secret, or None when there is none by that name.

        Raises:
            Unavailable: Nobody can tell now.
            InvalidInput: The name does not tell which secret is meant.
            ConfigError: It cannot be decrypted.
        """


class ReadsConnections(Protocol):
    """Knows connections by their names."""

    async def read(self, name: str) -> Connection:
        """Return a connection with its secrets.

        Raises:
            NotFound: There is none by that name.
            ConfigError: Its secrets cannot be decrypted.
            Unavailable: Nobody can tell now.
        """


class EnvironmentSecrets:
    """Secrets in environment variables: of `NAME`, that is `PUBSUBFLOW_SECRET_NAME`, or `NAME`.

    Args:
        environ: The variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    async def find(self, name: str) -> str | None:
        """Return a secret without the line end that files put behind it."""
        found = self._environ.get(PREFIX + name) or self._environ.get(name)
        return found.rstrip("\r\n") if found else None


class DaemonSecrets:
    """Secrets of the environment, and of connections.

    `connection:NAME` and `connection:NAME.field` are a connection's; any other name is looked for
    in the environment first, then among the connections.

    Args:
        environment: Those of the environment.
        connections: The stored ones.
    """

    def __init__(self, environment: SecretSource, connections: ReadsConnections) -> None:
        self._environment = environment
        self._connections = connections

    async def find(self, name: str) -> str | None:
        """Return a secret, or None when there is none by that name."""
        reference = read_reference(name)
        if reference is not None:
            return reference.secret(await self._connections.read(reference.name))
        found = await self._environment.find(name)
        if found is not None:
            return found
        try:
            return (await self._connections.read(name)).secret()
        except NotFound:
            return None


class Found(Struct, frozen=True):
    """Secrets that were looked up.

    Attributes:
        missing: Why others were not found, each in one line.
    """

    secrets: tuple[str, ...]
    missing: tuple[str, ...]


async def look_up(asked: Sequence[OneSecret], source: SecretSource) -> Found:
    """Look up the secrets that are only named.

    Raises:
        Unavailable: The source cannot tell now.
    """
    secrets: list[str] = []
    missing: list[str] = []
    for each in asked:
        if isinstance(each, Secret):
            try:
                value = await source.find(each.name)
            except (NotFound, InvalidInput, ConfigError) as error:
                missing.append(str(error))
                continue
            if value is None:
                missing.append(f"no secret {each.name} is known to this daemon")
            else:
                secrets.append(value)
        else:
            secrets.append(each)
    return Found(tuple(secrets), tuple(missing))
