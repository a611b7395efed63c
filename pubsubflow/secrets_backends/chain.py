"""The chain of secrets backends, where names are looked up before the store."""

import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from pubsubflow.errors import ConfigError, InvalidInput, SecretsUnavailable
from pubsubflow.model.connections import Connection, read_connection
from pubsubflow.model.values.variables import Variable, make_variable, parse_value

SecretKind = Literal["connections", "variables", "secrets"]
_MAX_CACHED = 10_000


class SecretsBackend(Protocol):
    """A place outside of the store that holds secrets.

    Attributes:
        name: Its name, for errors.
    """

    name: str

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return what it holds under a name; None if it holds nothing.

        Args:
            kind: `connections`: a URI, or JSON of `uri`, `kind`, `extra`, `secrets`; `variables`:
                a JSON value, or text; `secrets`: the secret itself.
            name: The name, as users write it.

        Raises:
            SecretsUnavailable: It is out of reach.
            ConfigError: It refuses this daemon; the message holds no secret.
        """


class _Cached(Struct, frozen=True):
    text: str | None
    until: float


class SecretsChain:
    """Backends in their order; the first that holds a name has it.

    Args:
        backends: In the order of the configuration.
        cache_seconds: How long an answer is good for, also that there is nothing.
        clock: Seconds.
    """

    def __init__(
        self,
        backends: Sequence[SecretsBackend] = (),
        *,
        cache_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = tuple(backends)
        self._cache_seconds = cache_seconds
        self._clock = clock
        self._cache: dict[tuple[str, str], _Cached] = {}

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return what the first backend that knows a name holds; None if none does.

        Raises:
            SecretsUnavailable: A backend is out of reach; those behind it are not looked at, as it
                might hold another value.
            ConfigError: A backend refuses this daemon.
        """
        if not self._backends:
            return None
        key, now = (kind, name), self._clock()
        known = self._cache.get(key)
        if known is not None and known.until > now:
            return known.text
        text = await self._find(kind, name)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[key] = _Cached(text, now + self._cache_seconds)
        return text

    async def connection(self, name: str) -> Connection | None:
        """Return a connection that a backend holds.

        Raises:
            SecretsUnavailable: A backend is out of reach.
            ConfigError: A backend refuses this daemon, or holds what is not a connection.
        """
        text = await self.find("connections", name)
        if text is None:
            return None
        try:
            return read_connection(name, text)
        except InvalidInput as error:
            raise ConfigError(f"connection {name!r} of the secrets backends: {error}") from None

    async def variable(self, name: str) -> Variable | None:
        """Return a variable that a backend holds; its name says whether it is secret.

        Raises:
            SecretsUnavailable: A backend is out of reach.
            ConfigError: A backend refuses this daemon, or holds what is not a variable.
        """
        text = await self.find("variables", name)
        if text is None:
            return None
        try:
            return make_variable(name, parse_value(text))
        except InvalidInput as error:
            raise ConfigError(f"variable {name!r} of the secrets backends: {error}") from None

    async def _find(self, kind: SecretKind, name: str) -> str | None:
        for backend in self._backends:
            try:
                found = await backend.find(kind, name)
            except SecretsUnavailable as error:
                raise SecretsUnavailable(f"secrets backend {backend.name}: {error}") from error
            except ConfigError as error:
                raise ConfigError(f"secrets backend {backend.name}: {error}") from error
            if found is not None:
                return found
        return None
