"""Secrets that webhooks name are looked up in the environment and in connections."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from pubsubflow.errors import ConfigError, InvalidInput, NotFound
from pubsubflow.model.connections import Connection, read_reference
from pubsubflow.model.webhooks import OneSecret, Secret

PREFIX = "PUBSUBFLOW_SECRET_"


class SecretSource(Protocol):
    """A source of secrets by name."""

    async def find(self, name: str) -> str | None:
        """Return a secret; None if the name is unknown.

        Raises:
            Unavailable: The source is out of reach.
            InvalidInput: The name is ambiguous.
            ConfigError: The secret cannot be decrypted.
        """


class ReadsConnections(Protocol):
    """A source of connections by name."""

    async def read_for(self, name: str, dag_id: str | None, user: str) -> Connection:
        """Return a connection with its secrets, for what belongs to no DAG.

        Raises:
            NotFound: The name is unknown.
            ConfigError: It is for some DAGs alone, or its secrets cannot be decrypted.
            Unavailable: The source is out of reach.
        """


class ReadsSecrets(Protocol):
    """The secrets backends."""

    async def find(self, kind: Literal["secrets"], name: str) -> str | None:
        """Return a secret; None if no backend holds it.

        Raises:
            Unavailable: A backend is out of reach.
            ConfigError: A backend refuses this daemon.
        """


class EnvironmentSecrets:
    """Secrets in environment variables: `NAME` is read from `PUBSUBFLOW_SECRET_NAME`, or `NAME`.

    Args:
        environ: The environment variables.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    async def find(self, name: str) -> str | None:
        """Return a secret, without the line ends that files have at their end."""
        found = self._environ.get(PREFIX + name) or self._environ.get(name)
        return found.rstrip("\r\n") if found else None


class DaemonSecrets:
    """Secrets of the environment and of connections.

    `connection:NAME` and `connection:NAME.field` name a connection's secret; any other name is
    looked up in the environment first, then among the connections.

    Args:
        environment: Secrets of the environment.
        connections: The stored connections.
        backends: Secrets backends, looked at after the environment.
    """

    def __init__(
        self,
        environment: SecretSource,
        connections: ReadsConnections,
        backends: ReadsSecrets | None = None,
    ) -> None:
        self._backends = backends
        self._environment = environment
        self._connections = connections

    async def find(self, name: str) -> str | None:
        """Return a secret; None if the name is unknown."""
        reference = read_reference(name)
        if reference is not None:
            return reference.secret(await self._read(reference.name))
        found = await self._environment.find(name)
        if found is None and self._backends is not None:
            found = await self._backends.find("secrets", name)
        if found is not None:
            return found
        try:
            return (await self._read(name)).secret()
        except NotFound:
            return None

    async def _read(self, name: str) -> Connection:
        return await self._connections.read_for(name, None, "a webhook")


class FoundSecrets(Struct, frozen=True):
    """Secrets that were looked up.

    Attributes:
        secrets: Those that were found.
        missing: Why each of the others was not found, in one line.
    """

    secrets: tuple[str, ...]
    missing: tuple[str, ...]


async def look_up(declared: Sequence[OneSecret], source: SecretSource) -> FoundSecrets:
    """Look up the declared secrets that are references by name.

    Raises:
        Unavailable: The source is out of reach.
    """
    secrets: list[str] = []
    missing: list[str] = []
    for each in declared:
        if isinstance(each, Secret):
            try:
                value = await source.find(each.name)
            except (NotFound, InvalidInput, ConfigError) as error:
                missing.append(str(error))
                continue
            if value is None:
                missing.append(f"the secret {each.name} is not known to this daemon")
            else:
                secrets.append(value)
        else:
            secrets.append(each)
    return FoundSecrets(tuple(secrets), tuple(missing))
