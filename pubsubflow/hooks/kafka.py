"""Kafka hook: a connection's brokers and credentials, as the client library takes them."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import anyio

from pubsubflow.errors import ConfigError
from pubsubflow.hooks.connection import library
from pubsubflow.model.connections import Connection

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_PORT = 9092
_CLIENT = "pubsubflow"
_CLOSE_SECONDS = 2.0


def kafka_options(connection: Connection) -> dict[str, Any]:
    """Return keyword arguments of aiokafka's consumer, producer and admin client.

    Call it on the event loop that uses them.

    Args:
        connection: Of type `kafka`.

    Raises:
        ConfigError: The library is not installed, or a field is invalid; no secret is shown.
    """
    library("aiokafka", "kafka")
    return {
        "bootstrap_servers": list(_brokers(connection)),
        "client_id": _CLIENT,
        "request_timeout_ms": int(1000 * float(connection.extra.get("timeout", 30))),
        **_security(connection),
    }


def _brokers(connection: Connection) -> Iterator[str]:
    if connection.host is None:
        raise ConfigError(
            f"connection {connection.name!r} has no broker: its uri is kafka://host:{_PORT}"
        )
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    yield f"{host}:{connection.port or _PORT}"
    for further in str(connection.extra.get("brokers", "")).split(","):
        if not further.strip():
            continue
        try:
            parts = urlsplit(f"kafka://{further.strip()}")
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if not parts.hostname or parts.username is not None:
            raise ConfigError(
                f"connection {connection.name!r}: brokers is host:port, host:port, not {further!r}"
            )
        yield f"{parts.netloc if port else f'{parts.netloc}:{_PORT}'}"


def _security(connection: Connection) -> dict[str, Any]:
    tls = bool(connection.extra.get("tls", False))
    found: dict[str, Any] = {"ssl_context": _tls(connection)} if tls else {}
    sasl = _sasl(connection)
    if sasl:
        return {**found, **sasl, "security_protocol": "SASL_SSL" if tls else "SASL_PLAINTEXT"}
    return {**found, "security_protocol": "SSL" if tls else "PLAINTEXT"}


def _sasl(connection: Connection) -> dict[str, Any]:
    """Return how the client authenticates; nothing without a user, token or mechanism."""
    token = connection.secrets.get("token")
    mechanism = connection.extra.get("mechanism")
    if mechanism is None and connection.user is None and token is None:
        return {}
    mechanism = mechanism or ("PLAIN" if token is None else "OAUTHBEARER")
    if mechanism not in MECHANISMS:
        raise ConfigError(
            f"connection {connection.name!r}: mechanism is one of {', '.join(MECHANISMS)}, not "
            f"{mechanism!r}"
        )
    if mechanism == "OAUTHBEARER":
        if token is None:
            raise ConfigError(f"connection {connection.name!r}: OAUTHBEARER needs the secret token")
        return {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": _token_provider(token)}
    if connection.user is None or connection.password is None:
        raise ConfigError(
            f"connection {connection.name!r}: {mechanism} needs a user in the uri and the secret "
            "password"
        )
    return {
        "sasl_mechanism": mechanism,
        "sasl_plain_username": connection.user,
        "sasl_plain_password": connection.password,
    }


def _token_provider(token: str) -> Any:
    class StaticToken(library("aiokafka.abc", "kafka").AbstractTokenProvider):  # type: ignore[misc]
        async def token(self) -> str:
            return token

    return StaticToken()


def _tls(connection: Connection) -> ssl.SSLContext:
    extra, secrets = connection.extra, connection.secrets
    try:
        context = ssl.create_default_context(cadata=extra.get("ca"))
        if not extra.get("verify", True):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if "certificate" in extra:
            # OpenSSL reads these from files alone.
            with TemporaryDirectory() as folder:
                chain = Path(folder) / "chain.pem"
                chain.touch(mode=0o600)
                chain.write_text(f"{secrets.get('private_key', '')}\n{extra['certificate']}\n")
                context.load_cert_chain(chain, password=secrets.get("private_key_password", ""))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"connection {connection.name!r}: ca, certificate or private_key is not PEM, or they "
            f"do not fit: {type(error).__name__}"
        ) from None
    return context


async def why_unreachable(options: dict[str, Any]) -> Exception | None:
    """Return why no broker takes a connection; None if one does.

    The clients themselves log the reason, and raise that no broker was found.

    Args:
        options: Of `kafka_options`.
    """
    errors = library("aiokafka.errors", "kafka")
    connect = library("aiokafka.conn", "kafka").create_conn
    given = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    reason: Exception | None = None
    for broker in options["bootstrap_servers"]:
        host, _, port = broker.rpartition(":")
        try:
            connection = await connect(host.strip("[]"), int(port), **given)
        except (OSError, errors.KafkaError, TimeoutError) as error:
            reason = error
            continue
        connection.close()
        return None
    return reason


async def check(connection: Connection) -> str:
    """Return how many brokers the cluster has; raise if none takes the connection."""
    options = kafka_options(connection)
    reason = await why_unreachable(options)
    if reason is not None:
        raise ConfigError(f"Kafka refuses or does not answer: {reason or type(reason).__name__}")
    client = library("aiokafka.admin", "kafka").AIOKafkaAdminClient(**options)
    try:
        await client.start()
        brokers = (await client.describe_cluster())["brokers"]
    finally:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await client.close()
    names = ", ".join(sorted(f"{each['host']}:{each['port']}" for each in brokers))
    return f"Kafka, {len(brokers)} broker{'' if len(brokers) == 1 else 's'}: {names}"
