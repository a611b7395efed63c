"""Secrets backend HashiCorp Vault, or OpenBao: the key-value engine, version 2.

Source: Vault's HTTP API, https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2.
"""

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import anyio.to_thread
import msgspec

from pubsubflow.errors import ConfigError, SecretsUnavailable
from pubsubflow.secrets_backends.chain import SecretKind
from pubsubflow.secrets_backends.settings import VaultSettings

_NOT_FOUND = 404
_FORBIDDEN = 403
_FAILED = 400
_BROKEN = 500
_TIMEOUT = aiohttp.ClientTimeout(total=10)


_ACCOUNT_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class VaultBackend:
    """Reads secrets from Vault.

    Args:
        settings: Where it is, and how this daemon signs in.
    """

    name = "vault"

    def __init__(self, settings: VaultSettings) -> None:
        if not settings.address:
            raise ConfigError("configuration: secrets.vault.address is missing")
        self._settings = settings
        self._token = ""

    async def find(self, kind: SecretKind, name: str) -> str | None:
        """Return what Vault holds: of secrets and variables the field `value`, or the only one.

        Raises:
            SecretsUnavailable: Vault is sealed, or out of reach.
            ConfigError: It refuses this daemon.
        """
        path = "/".join(quote(part, safe="") for part in (self._settings.prefix, kind, name))
        url = f"{self._settings.address.rstrip('/')}/v1/{quote(self._settings.mount)}/data/{path}"
        async with self._session() as session:
            status, body = await self._get(session, url)
            if status == _FORBIDDEN and self._token:
                # A token of a role ends: sign in once more.
                self._token = ""
                status, body = await self._get(session, url)
        if status == _NOT_FOUND:
            return None
        if status >= _FAILED:
            raise ConfigError(f"it answers {status} for {kind}/{name}")
        return _text(kind, name, body)

    async def _get(self, session: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
        headers = {"X-Vault-Token": await self._sign_in(session)}
        return await self._request(session, "GET", url, headers=headers)

    async def _sign_in(self, session: aiohttp.ClientSession) -> str:
        settings = self._settings
        if settings.token_file is not None:
            return await _file(settings.token_file)
        if self._token:
            return self._token
        if settings.kubernetes_role is not None:
            method = "kubernetes"
            body = {"role": settings.kubernetes_role, "jwt": await _file(_ACCOUNT_FILE)}
        elif settings.role_id is not None and settings.secret_id_file is not None:
            method = "approle"
            secret_id = await _file(settings.secret_id_file)
            body = {"role_id": settings.role_id, "secret_id": secret_id}
        else:
            raise ConfigError(
                "set secrets.vault.token_file, or role_id and secret_id_file, or kubernetes_role"
            )
        url = f"{settings.address.rstrip('/')}/v1/auth/{method}/login"
        status, answer = await self._request(session, "POST", url, json=body)
        if status >= _FAILED:
            raise ConfigError(f"it answers {status} to the sign-in by {method}")
        self._token = str(answer["auth"]["client_token"])
        return self._token

    async def _request(
        self, session: aiohttp.ClientSession, method: str, url: str, **more: Any
    ) -> tuple[int, Any]:
        try:
            async with session.request(method, url, allow_redirects=False, **more) as response:
                data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SecretsUnavailable(
                f"{self._settings.address} is out of reach ({error!r})"
            ) from error
        if response.status >= _BROKEN:
            raise SecretsUnavailable(f"{self._settings.address} answers {response.status}")
        try:
            return response.status, msgspec.json.decode(data) if data else {}
        except msgspec.DecodeError:
            raise SecretsUnavailable(
                f"{self._settings.address} does not answer as Vault does"
            ) from None

    def _session(self) -> aiohttp.ClientSession:
        settings = self._settings
        headers = {} if settings.namespace is None else {"X-Vault-Namespace": settings.namespace}
        return aiohttp.ClientSession(
            headers=headers, timeout=_TIMEOUT, connector=aiohttp.TCPConnector(ssl=_tls(settings))
        )


def _tls(settings: VaultSettings) -> Any:
    return True if settings.ca_file is None else ssl.create_default_context(cafile=settings.ca_file)


async def _file(path: str) -> str:
    try:
        return (await anyio.to_thread.run_sync(Path(path).read_text)).strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error


def _text(kind: SecretKind, name: str, body: Any) -> str:
    fields = body["data"]["data"]
    if kind == "connections" and "value" not in fields:
        return msgspec.json.encode(fields).decode()
    found = fields.get("value", next(iter(fields.values())) if len(fields) == 1 else None)
    if not isinstance(found, str):
        raise ConfigError(f"{kind}/{name} has several fields and none named value")
    return found
