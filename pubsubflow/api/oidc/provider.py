"""The provider: its endpoints and keys, and the exchange of a code for an ID token."""

import base64
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import anyio
import msgspec
import structlog
from msgspec import Struct

from pubsubflow.api.http.problems import BadRequest
from pubsubflow.api.oidc.id_token import Expected, UnknownKey, not_valid, read_claims
from pubsubflow.api.oidc.settings import OidcSettings, check_provider_url
from pubsubflow.errors import ConfigError

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 3600.0
_KEY_PAUSE_SECONDS = 10.0
_MAX_BODY = 1 << 20
_ENDPOINTS = (
    *("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"),
    "end_session_endpoint",
)
T = TypeVar("T")


class Metadata(Struct, frozen=True):
    """What a provider says about itself (OpenID Connect Discovery 1.0, §3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Answer(Struct, frozen=True):
    """The answer to a code."""

    id_token: str
    access_token: str | None = None


class _Refusal(Struct, frozen=True):
    """Why a code was refused (RFC 6749, §5.2)."""

    error: str = ""
    error_description: str = ""


def load_library() -> Any:
    """Return the library that reads keys.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module("joserfc.jwk")
    except ImportError as error:
        raise ConfigError(
            "signing in by OpenID Connect needs a library: pip install 'pubsubflow[oidc]'"
        ) from error


class Provider:
    """The provider of the settings; nothing is requested before the first sign-in.

    Args:
        settings: Where it is, and who this installation is there.
        clock: Returns seconds since 1970.

    Raises:
        ConfigError: The library is not installed, or the secret cannot be read.
    """

    def __init__(self, settings: OidcSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._jwk = load_library()
        self._settings = settings
        self._secret = settings.secret()
        self._clock = clock
        self._metadata: Metadata | None = None
        self._keys: Any = None
        self._read_at = self._keys_read_at = float("-inf")
        self._lock = anyio.Lock()

    async def metadata(self) -> Metadata:
        """Return what the provider says about itself, at most an hour old.

        Raises:
            BadRequest: It is away (502), or says what cannot be used.
        """
        async with self._lock:
            if self._metadata is None or self._read_at + _FRESH_SECONDS < self._clock():
                self._metadata = await self._discover()
                self._read_at = self._clock()
            return self._metadata

    async def authorization_url(self, query: Mapping[str, str]) -> str:
        """Return the address at which a person signs in.

        Raises:
            BadRequest: The provider is away (502).
        """
        found = await self.metadata()
        given = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "scope": " ".join(self._settings.scopes),
            **query,
        }
        mark = "&" if "?" in found.authorization_endpoint else "?"
        return f"{found.authorization_endpoint}{mark}{urlencode(given, quote_via=quote)}"

    async def sign_out_url(self, back: str) -> str | None:
        """Return the address at which the provider signs a person out too; None if it has none."""
        try:
            found = await self.metadata()
        except BadRequest:
            return None
        if found.end_session_endpoint is None:
            return None
        given = {"client_id": self._settings.client_id, "post_logout_redirect_uri": back}
        mark = "&" if "?" in found.end_session_endpoint else "?"
        return f"{found.end_session_endpoint}{mark}{urlencode(given, quote_via=quote)}"

    async def claims(
        self, code: str, verifier: str, redirect_uri: str, nonce: str
    ) -> dict[str, Any]:
        """Return what the provider says about the person that a code stands for.

        Raises:
            BadRequest: The provider is away (502), or the code or the ID token is not valid (401).
        """
        answer = await self._exchange(code, verifier, redirect_uri)
        settings = self._settings
        expected = Expected(
            issuer=settings.issuer,
            client_id=settings.client_id,
            nonce=nonce,
            now=self._clock(),
            leeway=settings.leeway_seconds,
        )
        try:
            claims = read_claims(answer.id_token, await self._key_set(), expected)
        except UnknownKey:
            # Keys rotate: read them again, but no more often than every ten seconds.
            try:
                keys = await self._key_set(again=True)
                claims = read_claims(answer.id_token, keys, expected)
            except UnknownKey:
                raise not_valid("it is signed by a key that the provider does not list") from None
        return await self._completed(claims, answer.access_token)

    async def _completed(self, claims: dict[str, Any], access_token: str | None) -> dict[str, Any]:
        """Add what the ID token leaves to the endpoint of user information (§5.3)."""
        wanted = (self._settings.groups_claim, self._settings.name_claim)
        found = await self.metadata()
        if all(name in claims for name in wanted) or not (access_token and found.userinfo_endpoint):
            return claims
        headers = {"Authorization": f"Bearer {access_token}"}
        more = await self._request("GET", found.userinfo_endpoint, dict[str, Any], headers=headers)
        if more.get("sub") != claims["sub"]:
            raise not_valid("the user information is of another person (sub)")
        return {**more, **claims}

    async def _discover(self) -> Metadata:
        issuer = self._settings.issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._request("GET", url, Metadata)
        if found.issuer != issuer:
            raise _unusable(f"it calls itself {found.issuer!r}: set oidc.issuer to exactly that")
        for name in _ENDPOINTS:
            url = getattr(found, name)
            try:
                if url is not None:
                    check_provider_url(url, name)
            except ConfigError as error:
                raise _unusable(str(error)) from error
        return found

    async def _key_set(self, *, again: bool = False) -> Any:
        found = await self.metadata()
        async with self._lock:
            age = self._clock() - self._keys_read_at
            if self._keys is None or age > (_KEY_PAUSE_SECONDS if again else _FRESH_SECONDS):
                keys = await self._request("GET", found.jwks_uri, dict[str, Any])
                try:
                    self._keys = self._jwk.KeySet.import_key_set(keys)
                except Exception as error:  # whatever the library makes of it
                    raise _unusable(f"its keys cannot be read: {error}") from error
                self._keys_read_at = self._clock()
            return self._keys

    async def _exchange(self, code: str, verifier: str, redirect_uri: str) -> _Answer:
        found = await self.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        }
        headers = {"Accept": "application/json"}
        client_id = self._settings.client_id
        if not self._secret:
            form["client_id"] = client_id
        elif "client_secret_basic" in found.token_endpoint_auth_methods_supported:
            # Both are form-encoded first (RFC 6749, §2.3.1).
            pair = f"{quote(client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form.update(client_id=client_id, client_secret=self._secret)
        return await self._request(
            "POST", found.token_endpoint, _Answer, data=form, headers=headers
        )

    async def _request(self, method: str, url: str, kind: type[T], **options: Any) -> T:
        """Return the JSON of an answer.

        Raises:
            BadRequest: The provider is away or its answer cannot be used (502), or it refuses a
                code (401).
        """
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, url, allow_redirects=False, **options) as response,
            ):
                status = response.status
                body = b""
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _MAX_BODY:
                        raise _unusable(f"{url} answers with more than 1 MiB")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("oidc.provider_away", url=url, reason=str(error) or type(error).__name__)
            raise BadRequest(
                f"the provider {self._settings.issuer} cannot be reached now: try again, or sign "
                "in with a token or `pubsubflow open`",
                status=502,
            ) from error
        if status != HTTPStatus.OK:
            raise self._refused(url, status, body)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise _unusable(f"{url} answers what is not expected: {error}") from error

    def _refused(self, url: str, status: int, body: bytes) -> BadRequest:
        try:
            refusal = msgspec.json.decode(body, type=_Refusal)
        except msgspec.DecodeError:
            refusal = _Refusal()
        log.warning("oidc.refused", url=url, status=status, error=refusal.error)
        if refusal.error == "invalid_grant":
            return BadRequest(
                "the provider's code was used, or has expired: sign in again", status=401
            )
        if refusal.error in ("invalid_client", "unauthorized_client"):
            return _unusable(
                f"it does not accept client {self._settings.client_id!r}: check oidc.client_id and "
                "oidc.client_secret"
            )
        detail = f" ({refusal.error}: {refusal.error_description})" if refusal.error else ""
        return _unusable(f"{url} answers {status}{detail}")


def _unusable(reason: str) -> BadRequest:
    return BadRequest(f"the provider cannot be used: {reason}", status=502)
