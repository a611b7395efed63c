"""Access tokens of clouds, from the libraries of their vendors, which know who a machine is."""

import time
from importlib import import_module
from typing import Any, Protocol

import anyio
import anyio.to_thread

from pubsubflow.errors import ConfigError, SecretsUnavailable

_EARLY_SECONDS = 120.0
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_AZURE_SCOPE = "https://vault.azure.net/.default"


class AccessTokens(Protocol):
    """A source of access tokens."""

    async def token(self) -> str:
        """Return a token that is still good for a while.

        Raises:
            SecretsUnavailable: Who issues them is out of reach.
            ConfigError: This machine has no identity, or it is refused.
        """


class GoogleTokens:
    """Tokens by Google's application default credentials.

    A key file of `GOOGLE_APPLICATION_CREDENTIALS`, a federated identity, or the metadata server of
    the machine.
    """

    def __init__(self) -> None:
        self._credentials: Any = None
        self._lock = anyio.Lock()

    async def token(self) -> str:
        """Return a token."""
        async with self._lock:
            return await anyio.to_thread.run_sync(self._read)

    def _read(self) -> str:
        auth, errors, transport = (
            _library(f"google.auth{part}", "gcp")
            for part in ("", ".exceptions", ".transport.requests")
        )
        try:
            if self._credentials is None:
                self._credentials, _ = auth.default(scopes=[_GOOGLE_SCOPE])
            if not self._credentials.valid:
                self._credentials.refresh(transport.Request())
        except errors.TransportError as error:
            raise SecretsUnavailable(f"Google issues no token ({error})") from error
        except errors.GoogleAuthError as error:
            raise ConfigError(f"Google knows no identity of this daemon: {error}") from error
        return str(self._credentials.token)


class AzureTokens:
    """Tokens by the default credentials of Azure.

    A service principal of the environment, a workload identity, or the machine's managed identity.
    """

    def __init__(self) -> None:
        self._token = ""
        self._until = 0.0
        self._lock = anyio.Lock()

    async def token(self) -> str:
        """Return a token."""
        async with self._lock:
            if time.time() > self._until - _EARLY_SECONDS:
                self._token, self._until = await anyio.to_thread.run_sync(_azure_token)
            return self._token


def _azure_token() -> tuple[str, float]:
    """Return a token, and until when it is good."""
    identity = _library("azure.identity", "azure")
    errors = _library("azure.core.exceptions", "azure")
    try:
        with identity.DefaultAzureCredential(exclude_interactive_browser_credential=True) as found:
            token = found.get_token(_AZURE_SCOPE)
    except errors.ClientAuthenticationError as error:
        raise ConfigError(f"Azure knows no identity of this daemon: {_line(error)}") from error
    except errors.AzureError as error:
        raise SecretsUnavailable(f"Azure issues no token ({_line(error)})") from error
    return str(token.token), float(token.expires_on)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _library(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{module} is not installed here: pip install 'pubsubflow[{extra}]'"
        ) from error
