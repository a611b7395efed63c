"""Where the secrets are that webhooks name."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from pubsubflow.model.hooks import OneSecret, Secret

PREFIX = "PUBSUBFLOW_SECRET_"


class SecretSource(Protocol):
    """Knows secrets by their names."""

    async def find(self, name: str) -> str | None:
        """Return a secret, or None when there is none by that name.

        Raises:
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


class Found(Struct, frozen=True):
    """Secrets that were looked up.

    Attributes:
        missing: Names that nobody knows.
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
            value = await source.find(each.name)
            if value is None:
                missing.append(each.name)
            else:
                secrets.append(value)
        else:
            secrets.append(each)
    return Found(tuple(secrets), tuple(missing))
