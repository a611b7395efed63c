"""The first connection to NATS: wait for a server that listens, then log in.

nats-py sleeps two seconds after a first refusal, and retries a wrong token without end.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import anyio

from pubsubflow.bus.client import NatsClient, NatsError, ServerWithoutTls, allow_websockets
from pubsubflow.bus.credentials import NkeyFile, retryable, secret_source
from pubsubflow.bus.settings import BusSettings, without_credentials
from pubsubflow.errors import BusUnavailable, ConfigError

_PORT = 4222
_WEBSOCKETS = ("ws", "wss")
_POLL_SECONDS = 0.05
_RECONNECT_SECONDS = 0.1
# A server that hangs, or is cut off, keeps its sockets open: only a PING without PONG shows that.
# What was answered since the last one stands for it; so the third that would be on its way ends the
# connection 4.5 to 6 seconds after the last answer.
_PING_SECONDS = 1.5
_MAX_SILENT_PINGS = 2
_DEFINITIVE = ("authorization", "authentication", "credentials", "permissions")


async def connect(
    settings: BusSettings,
    client: NatsClient,
    *,
    on_connected: Callable[[], Awaitable[None]],
    on_disconnected: Callable[[], Awaitable[None]],
    on_error: Callable[[Exception], Awaitable[None]],
) -> None:
    """Connect a client; from then on nats-py reconnects it without limit.

    Args:
        settings: The servers and the credentials.
        client: The client to connect.
        on_connected: Called after each reconnect, not after the first connection.
        on_disconnected: Called when the connection is lost.
        on_error: Called with errors in between.

    Raises:
        BusUnavailable: No server answers within ``settings.connect_seconds``.
        ConfigError: A server refuses the credentials, or the settings are malformed.
    """
    failure: Exception | None = None

    async def remember(error: Exception) -> None:
        nonlocal failure
        failure = error
        await on_error(error)

    options = _options(settings)
    if any(urlsplit(each).scheme in _WEBSOCKETS for each in settings.urls):
        allow_websockets()
    client.requires_tls = settings.encrypted
    if settings.nkey_file is not None:
        client.set_nkey(NkeyFile(settings.nkey_file).nkey().public)
    with anyio.move_on_after(settings.connect_seconds) as scope:
        await _wait_for_port(settings)
        try:
            await client.connect(
                **options,
                allow_reconnect=False,
                error_cb=remember,
                reconnected_cb=on_connected,
                disconnected_cb=on_disconnected,
            )
        except (NatsError, OSError, TimeoutError) as error:
            raise _translate_error(settings, error) from error
    if scope.cancelled_caught:
        reason = f": {failure}" if failure else ""
        raise BusUnavailable(
            f"no NATS server answers at {_addresses(settings)} within "
            f"{settings.connect_seconds:g} s{reason}; start it, or correct the address"
        )
    # Off until here: nats-py would otherwise retry a refusal of the first connection itself.
    client.options["allow_reconnect"] = True
    # They are in an order of chance already, with the present one last: one that has just died, or
    # that is left, is to be tried after the others.
    client.options["dont_randomize"] = True


def _options(settings: BusSettings) -> dict[str, Any]:
    if not settings.urls:
        raise ConfigError("the address of NATS is empty: give one such as nats://127.0.0.1:4222")
    options: dict[str, Any] = {
        "servers": settings.urls,
        "name": settings.name,
        "token": secret_source(settings.token_file, settings.token),
        "user": settings.user,
        "password": secret_source(settings.password_file, settings.password),
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": _RECONNECT_SECONDS,
        "ping_interval": _PING_SECONDS,
        "max_outstanding_pings": _MAX_SILENT_PINGS,
        "pending_size": settings.buffer_bytes,
    }
    return options | _signing(settings) | _tls(settings)


def _signing(settings: BusSettings) -> dict[str, Any]:
    """Return the callbacks that sign the server's nonce."""
    if settings.credentials_file is not None:
        # Read once now, so that a wrong file is an error of the configuration and not a retry.
        creds = NkeyFile(settings.credentials_file)
        creds.jwt()
        creds.nkey()
        return {"signature_cb": retryable(creds.sign), "user_jwt_cb": retryable(creds.jwt)}
    if settings.nkey_file is None:
        return {}
    return {"signature_cb": retryable(NkeyFile(settings.nkey_file).sign)}


def _tls(settings: BusSettings) -> dict[str, ssl.SSLContext]:
    if settings.tls_ca_file is None and settings.tls_cert_file is None:
        return {}
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except OSError as error:
        raise ConfigError(f"a TLS file for NATS cannot be used: {error}") from error
    return {"tls": context}


async def _wait_for_port(settings: BusSettings) -> None:
    """Wait until one of the servers accepts a TCP connection."""
    places = [_address(url) for url in settings.urls]
    while True:
        for host, port in places:
            try:
                stream = await anyio.connect_tcp(host, port)
            except OSError:
                continue
            await stream.aclose()
            return
        await anyio.sleep(_POLL_SECONDS)


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise ConfigError(
            f"{without_credentials(url)} is not an address of NATS: write nats://host:4222"
        )
    return host, port or _PORT


def _addresses(settings: BusSettings) -> str:
    return ", ".join("{}:{}".format(*_address(url)) for url in settings.urls)


def _translate_error(settings: BusSettings, error: Exception) -> BusUnavailable | ConfigError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"NATS at {_addresses(settings)} has a certificate that is not trusted "
            f"({error.verify_message}): check nats.tls_ca_file and the host's name"
        )
    if isinstance(error, ServerWithoutTls):
        return ConfigError(
            f"NATS at {_addresses(settings)} offers no TLS: give it a certificate, or leave out "
            "tls:// and the TLS files"
        )
    text = str(error).removeprefix("nats: ").strip("'\" ") or type(error).__name__
    if any(word in text.lower() for word in _DEFINITIVE):
        return ConfigError(
            f"NATS at {_addresses(settings)} refuses the credentials ({text}): check the token, "
            "password or key"
        )
    return BusUnavailable(f"NATS at {_addresses(settings)} refuses the connection: {text}")
