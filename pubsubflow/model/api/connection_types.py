"""Connection types declare the fields of connections, and name the check of one."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.model.connections import Connection

FieldKind = Literal["text", "integer", "number", "boolean", "object", "uri"]

_KINDS: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "uri": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
}


class ConnectionField(Struct, frozen=True, kw_only=True):
    """A field of a connection type.

    Attributes:
        name: `uri`, the name of a secret, or a name in `extra`.
        kind: `text`, `integer`, `number`, `boolean`, `object`, `uri`.
        required: Whether every connection of the type has it.
        secret: Whether it is stored encrypted, and never shown.
        default: What holds without it.
        help: One line for people.
    """

    name: str
    kind: FieldKind = "text"
    required: bool = False
    secret: bool = False
    default: Any = None
    help: str = ""


class ConnectionType(Struct, frozen=True, kw_only=True):
    """A type of connections, such as `http`.

    A type of your own is an object under the group `pubsubflow.connection_types`, whose entry point
    has the type's name.

    Attributes:
        name: Small letters, digits, `-`.
        help: One line for people.
        fields: Its fields; others are refused, unless it is open.
        schemes: The schemes of its `uri`; any if there are none.
        check: `package.module:function` of an `async def` that gets the connection, returns one
            line and raises if it cannot be used; None if nothing can be tried.
        open: Whether it may have further fields.
    """

    name: str
    help: str = ""
    fields: tuple[ConnectionField, ...] = ()
    schemes: tuple[str, ...] = ()
    check: str | None = None
    open: bool = False


def misfits(connection: Connection, declared: ConnectionType) -> list[str]:
    """Return why a connection is not one of a type: a line for each fault, none with a secret."""
    fields = {field.name: field for field in declared.fields}
    given = dict(connection.extra) | dict(connection.secrets)
    if connection.uri is not None:
        given["uri"] = connection.uri
    found = [
        f"{field.name} is missing ({field.help})" if field.help else f"{field.name} is missing"
        for field in declared.fields
        if field.required and field.name not in given
    ]
    for name, value in given.items():
        field = fields.get(name)
        if field is not None:
            found += _misfits_of(field, value, secret=name in connection.secrets)
        elif not declared.open:
            known = ", ".join(fields) or "none"
            found.append(f"{name} is not a field of type {declared.name} (fields: {known})")
    return found + _scheme_misfits(connection, declared)


def _misfits_of(field: ConnectionField, value: object, *, secret: bool) -> list[str]:
    if field.secret and not secret:
        return [f"{field.name} is a secret: put it under secrets"]
    if secret and not field.secret:
        return [f"{field.name} is not a secret: put it under extra"]
    # A secret is a string of any form.
    wanted = _KINDS[field.kind]
    fits = secret or (isinstance(value, wanted) and (bool in wanted) == isinstance(value, bool))
    return [] if fits else [f"{field.name} must be of kind {field.kind}, not {value!r}"]


def _scheme_misfits(connection: Connection, declared: ConnectionType) -> list[str]:
    if connection.uri is None or not declared.schemes:
        return []
    scheme = urlsplit(connection.uri).scheme
    if scheme in declared.schemes:
        return []
    return [f"uri must begin with {' or '.join(f'{each}:' for each in declared.schemes)}"]


def check_type(connection: Connection, declared: ConnectionType) -> None:
    """Check a connection against its type.

    Raises:
        InvalidInput: It does not fit; the message never shows a secret.
    """
    found = misfits(connection, declared)
    if found:
        raise InvalidInput(
            f"connection {connection.name!r} of type {declared.name}: {'; '.join(found)}"
        )


def _uri(help: str, *, required: bool = True) -> ConnectionField:
    return ConnectionField(name="uri", kind="uri", required=required, help=help)


def _secret(name: str, help: str, *, required: bool = False) -> ConnectionField:
    return ConnectionField(name=name, secret=True, required=required, help=help)


_TIMEOUT = ConnectionField(
    name="timeout", kind="number", default=30, help="Seconds for one request or connect"
)
_PASSWORD = _secret("password", "Password of the user in the uri")

CONNECTION_TYPES: Mapping[str, ConnectionType] = {
    each.name: each
    for each in (
        ConnectionType(
            name="http",
            help="An HTTP server: its base URL, and what authenticates requests",
            schemes=("http", "https"),
            check="pubsubflow.hooks.http:check",
            fields=(
                _uri("Base URL, such as https://ann@crm.example.com/v2; a user means Basic"),
                _PASSWORD,
                _secret("token", "Sent as a bearer token"),
                _secret("api_key", "Sent in the header named by api_key_header"),
                _secret("signing_key", "whsec_…: signs what notify.Webhook posts"),
                ConnectionField(name="api_key_header", default="X-API-Key", help="See api_key"),
                ConnectionField(name="headers", kind="object", help="Sent with every request"),
                ConnectionField(name="check_path", default="", help="Path that `test` requests"),
                ConnectionField(
                    name="verify", kind="boolean", default=True, help="Verify its certificate"
                ),
                _TIMEOUT,
            ),
        ),
        ConnectionType(
            name="smtp",
            help="A mail server",
            schemes=("smtp", "smtps"),
            check="pubsubflow.hooks.smtp:check",
            fields=(
                _uri("smtp://ann@mail.example.com:587, or smtps:// for TLS from the start"),
                _PASSWORD,
                ConnectionField(name="from", help="Sender of mails that name none"),
                ConnectionField(
                    name="starttls",
                    kind="boolean",
                    help="Whether TLS is required after the greeting; if offered when left out",
                ),
                _TIMEOUT,
            ),
        ),
        ConnectionType(
            name="postgres",
            help="A PostgreSQL database",
            schemes=("postgres", "postgresql"),
            check="pubsubflow.hooks.sql:check",
            fields=(_uri("postgres://ann@db.example.com:5432/sales"), _PASSWORD, _TIMEOUT),
        ),
        ConnectionType(
            name="sqlite",
            help="A SQLite file",
            schemes=("sqlite",),
            check="pubsubflow.hooks.sql:check",
            fields=(_uri("sqlite:///data/sales.db; four slashes for an absolute path"), _TIMEOUT),
        ),
        ConnectionType(
            name="sqlalchemy",
            help="Any database that SQLAlchemy knows",
            check="pubsubflow.hooks.sql:check",
            fields=(
                _uri("A SQLAlchemy URL, such as duckdb:///sales.duckdb"),
                _PASSWORD,
                ConnectionField(name="connect_args", kind="object", help="Of its driver"),
                _TIMEOUT,
            ),
        ),
        ConnectionType(
            name="aws",
            help="An account of Amazon Web Services; without a key the machine's own",
            check="pubsubflow.hooks.aws:check",
            fields=(
                ConnectionField(name="region", help="Such as eu-central-1"),
                ConnectionField(name="access_key_id", help="Of a key"),
                _secret("secret_access_key", "Of that key"),
                _secret("session_token", "Of a temporary key"),
                ConnectionField(name="role_arn", help="Role to assume"),
                ConnectionField(name="endpoint_url", help="In place of AWS's own"),
            ),
        ),
        ConnectionType(
            name="slack",
            help="A workspace of Slack: an incoming webhook, or a bot's token",
            check="pubsubflow.hooks.slack:check",
            fields=(
                _secret("webhook_url", "URL of an incoming webhook"),
                _secret("token", "Bot token, xoxb-…"),
                ConnectionField(name="channel", help="Channel, with a token"),
                ConnectionField(
                    name="api_url", default="https://slack.com/api", help="Of the Web API"
                ),
                _TIMEOUT,
            ),
        ),
        ConnectionType(
            name="pagerduty",
            help="A service of PagerDuty, by its integration of the Events API v2",
            schemes=("https", "http"),
            fields=(
                _uri("In place of https://events.pagerduty.com", required=False),
                _secret("routing_key", "Integration key", required=True),
            ),
        ),
        ConnectionType(
            name="kafka",
            help="A Kafka cluster: a broker to begin with, and what authenticates",
            schemes=("kafka",),
            check="pubsubflow.hooks.kafka:check",
            fields=(
                _uri("kafka://ann@broker.example.com:9092; a user means SASL"),
                ConnectionField(name="brokers", help="Further ones: host:port, host:port"),
                ConnectionField(
                    name="mechanism",
                    help="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; PLAIN for a user",
                ),
                _PASSWORD,
                _secret("token", "Bearer token of OAUTHBEARER"),
                ConnectionField(
                    name="tls", kind="boolean", default=False, help="Whether brokers speak TLS"
                ),
                ConnectionField(name="ca", help="PEM that vouches for them, not the system's own"),
                ConnectionField(
                    name="verify", kind="boolean", default=True, help="Verify their certificates"
                ),
                ConnectionField(name="certificate", help="PEM by which they know the client"),
                _secret("private_key", "PEM of that certificate's key"),
                _secret("private_key_password", "Of that key"),
                _TIMEOUT,
            ),
        ),
        ConnectionType(
            name="docker",
            help="A Docker engine",
            schemes=("unix", "tcp", "http", "https"),
            check="pubsubflow.hooks.docker:check",
            fields=(
                _uri("unix:///var/run/docker.sock, or tcp://host:2375"),
                ConnectionField(name="registry_user", help="User of the registry to pull from"),
                _secret("registry_password", "Of that user"),
                _TIMEOUT,
            ),
        ),
        ConnectionType(name="generic", help="Anything: a uri, secrets, extra", open=True),
    )
}
"""The types that the project ships, by name."""
