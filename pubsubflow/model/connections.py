"""Connections: named targets such as a warehouse, with their credentials."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from pubsubflow.errors import InvalidInput
from pubsubflow.model.connection_dags import normalise_dags, split_dags

MASK = "***"
"""Replaces a secret in all output; in an update it keeps the stored secret."""

PREFIX = "connection:"
ENVIRONMENT = "PUBSUBFLOW_CONN_"
AIRFLOW = "airflow"
"""Of `extra`: fields of a connection of Airflow's that its URI cannot hold."""
MAX_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}\Z")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}\Z")
_KIND = re.compile(r"[a-z][a-z0-9+_-]{0,49}\Z")
_SECRET_LIKE = re.compile(
    r"pass(word|wd|phrase)?|pwd|(.*_)?(secret|token)|api_?key|private_?key|sslpassword",
    re.IGNORECASE,
)
_WRITTEN = (
    *("kind", "uri", "extra", "secrets", "dags"),
    *("conn_type", "host", "port", "login", "password", "schema", "description"),
)
_PLAIN = ("uri", "host", "port", "user", "path")


class Connection(Struct, frozen=True, kw_only=True):
    """A named target. Printing one does not show its secrets.

    Args:
        name: Letters, digits, `_` and `-`, at most 100.
        kind: Its kind, such as `postgres`; the scheme of `uri` when left out.
        uri: Its address, such as `postgres://ann@db.example.com:5432/sales`, without a password.
        extra: A JSON object of further settings, none of them secret.
        secrets: Field → value, such as `{"password": …}`.
        dags: Ids of the DAGs that may use it, and patterns such as `etl_*`; empty for all.
    """

    name: str
    kind: str = "generic"
    uri: str | None = None
    extra: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    dags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Connection({fields})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        plain = [("name", self.name), ("kind", self.kind), ("uri", self.uri), ("extra", self.extra)]
        limits = [("dags", self.dags)] if self.dags else []
        return [*plain, ("secrets", dict.fromkeys(self.secrets, MASK)), *limits]

    @property
    def host(self) -> str | None:
        """Its host, from `uri`."""
        return None if self.uri is None else urlsplit(self.uri).hostname

    @property
    def port(self) -> int | None:
        """Its port, from `uri`."""
        return None if self.uri is None else urlsplit(self.uri).port

    @property
    def user(self) -> str | None:
        """The user, from `uri`."""
        user = None if self.uri is None else urlsplit(self.uri).username
        return None if user is None else unquote(user)

    @property
    def path(self) -> str | None:
        """The path in `uri`, without the leading slash: of a database, its name."""
        return None if self.uri is None else unquote(urlsplit(self.uri).path.removeprefix("/"))

    @property
    def password(self) -> str | None:
        """The secret `password`, if it has one."""
        return self.secrets.get("password")

    @property
    def url(self) -> str:
        """`uri` with the password in it, where there is one.

        Raises:
            InvalidInput: It has no `uri`.
        """
        if self.uri is None:
            raise InvalidInput(f"connection {self.name!r} has no uri: set one")
        if self.password is None:
            return self.uri
        parts = urlsplit(self.uri)
        account, _, server = parts.netloc.rpartition("@")
        account = f"{account}:{quote(self.password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{account}@{server}"))

    def secret(self) -> str:
        """Return its only secret.

        Raises:
            InvalidInput: It has none, or several.
        """
        if len(self.secrets) == 1:
            return next(iter(self.secrets.values()))
        if not self.secrets:
            raise InvalidInput(f"connection {self.name!r} has no secret: set one")
        names = " or ".join(f"{PREFIX}{self.name}.{field}" for field in sorted(self.secrets))
        raise InvalidInput(f"connection {self.name!r} has several secrets: write {names}")

    def field(self, name: str) -> str:
        """Return a field as a text: a secret, one of `extra`, or `url uri host port user path`.

        Raises:
            InvalidInput: The field is unknown, or it is neither a string nor a number.
        """
        if name in self.secrets:
            return self.secrets[name]
        if name == "url":
            return self.url
        value = self.extra.get(name, getattr(self, name) if name in _PLAIN else None)
        if value is None:
            known = ", ".join([*sorted(self.secrets), *self.extra, "url", *_PLAIN])
            raise InvalidInput(f"connection {self.name!r} has no {name!r}; there are {known}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InvalidInput(f"{name!r} of connection {self.name!r} is not a string")
        return str(value)

    def redacted_values(self) -> frozenset[str]:
        """Return the strings to mask in logs: its secrets, also percent-encoded as in a URL."""
        found = set(self.secrets.values())
        return frozenset(found | {quote(value, safe="") for value in found})


class ConnectionReference(Struct, frozen=True):
    """A reference `connection:NAME` or `connection:NAME.field` in place of a secret or a URL."""

    name: str
    field: str | None = None

    def secret(self, connection: Connection) -> str:
        """Return its value in place of a secret.

        Raises:
            InvalidInput: The connection does not have it.
        """
        return connection.secret() if self.field is None else connection.field(self.field)

    def url(self, connection: Connection) -> str:
        """Return its value in place of a URL.

        Raises:
            InvalidInput: The connection does not have it.
        """
        return connection.url if self.field is None else connection.field(self.field)


def read_reference(text: str) -> ConnectionReference | None:
    """Return the reference in a string; None for a string that is not a reference.

    Raises:
        InvalidInput: It begins like a reference, but is malformed.
    """
    if not text.startswith(PREFIX):
        return None
    name, _, field = text.removeprefix(PREFIX).partition(".")
    if not _NAME.match(name) or (field and not _FIELD.match(field)) or text.endswith("."):
        raise InvalidInput(f"{text!r}: write {PREFIX}NAME or {PREFIX}NAME.field")
    return ConnectionReference(name, field or None)


def check_name(name: str) -> str:
    """Return the name of a connection.

    Raises:
        InvalidInput: It is not a valid name.
    """
    if not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} cannot name a connection: take letters, digits, _ and -, at most 100"
        )
    return name


def make_connection(
    name: str,
    *,
    kind: str | None = None,
    uri: str | None = None,
    extra: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    dags: Iterable[str] = (),
) -> Connection:
    """Return a connection, checked; a password in the URI becomes the secret `password`.

    Raises:
        InvalidInput: An argument is invalid; the message never shows a secret.
    """
    check_name(name)
    secrets, extra = dict(secrets or {}), dict(extra or {})
    parts = None if uri is None else _split(uri)
    # Without a host there is no account; such a path may begin with several slashes.
    if parts is not None and parts.netloc:
        uri, password = _without_password(parts)
        if password is not None:
            secrets.setdefault("password", password)
    if kind is None:
        kind = "generic" if parts is None else parts.scheme.partition("+")[0]
    if not _KIND.match(kind):
        raise InvalidInput(f"kind {kind!r}: take small letters and digits, such as postgres")
    _check_fields(secrets, extra)
    made = Connection(
        name=name,
        kind=kind,
        uri=uri,
        extra=extra,
        secrets=secrets,
        dags=normalise_dags(name, dags),
    )
    if len(msgspec.json.encode(made)) > MAX_BYTES:
        raise InvalidInput(f"connection {name!r} has more than {MAX_BYTES // 1024} KiB")
    return made


def read_connection(name: str, text: str) -> Connection:
    """Return a connection that is written as a URI or as JSON, as in the environment.

    The JSON is an object of `kind`, `uri`, `extra`, `secrets`, `dags`, or as Airflow has it:
    `conn_type`, `host`, `port`, `login`, `password`, `schema`, `extra`. In a URI, `dags` is a
    parameter: `?dags=etl_*,report`.

    Raises:
        InvalidInput: It is neither; the message never shows a secret.
    """
    if not text.lstrip().startswith("{"):
        uri, dags = _without_dags(name, text)
        return make_connection(name, uri=uri, dags=dags)
    try:
        given = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise InvalidInput(f"connection {name!r} is not valid JSON, and not a URI") from None
    unknown = sorted(given.keys() - _WRITTEN)
    if unknown:
        raise InvalidInput(
            f"connection {name!r}: {', '.join(unknown)} is unknown; known: {', '.join(_WRITTEN)}"
        )
    extra = given.get("extra") or {}
    if isinstance(extra, str):
        with suppress(msgspec.DecodeError):
            extra = msgspec.json.decode(extra)
    secrets = given.get("secrets") or {}
    if not isinstance(extra, dict) or not isinstance(secrets, dict):
        raise InvalidInput(f"connection {name!r}: extra and secrets must be JSON objects")
    secrets = {field: str(value) for field, value in secrets.items()}
    if given.get("password"):
        secrets["password"] = str(given["password"])
    address: str | None = given.get("uri") or None
    if address is None:
        address, other = _uri_of_parts(given)
        extra = {**extra, AIRFLOW: other} if other else extra
    # Airflow has secrets in `extra`, too.
    hidden = {field for field in extra if _SECRET_LIKE.fullmatch(field)}
    secrets |= {field: str(extra[field]) for field in hidden if extra[field]}
    return make_connection(
        name,
        kind=given.get("kind") or given.get("conn_type"),
        uri=address,
        extra={field: value for field, value in extra.items() if field not in hidden},
        secrets=secrets,
        dags=_written_dags(name, given.get("dags")),
    )


def _written_dags(name: str, written: Any) -> tuple[str, ...]:
    """Return the allow-list of a JSON object."""
    if written is None:
        return ()
    if isinstance(written, str):
        return split_dags(name, written)
    if isinstance(written, list) and all(isinstance(each, str) for each in written):
        return normalise_dags(name, written)
    raise InvalidInput(f"connection {name!r}: dags must be a list of ids of DAGs")


def _without_dags(name: str, uri: str) -> tuple[str, tuple[str, ...]]:
    """Return a URI without its parameter `dags`, and the allow-list in that."""
    before, mark, rest = uri.partition("?")
    query, hash_, fragment = rest.partition("#")
    pairs = [each.partition("=") for each in query.split("&")]
    found = [unquote(value) for key, _, value in pairs if key == "dags"]
    if not found:
        return uri, ()
    kept = "&".join("".join(each) for each in pairs if each[0] != "dags")
    plain = f"{before}{mark if kept else ''}{kept}{hash_}{fragment}"
    return plain, split_dags(name, ",".join(found))


def _uri_of_parts(given: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the URI of host, port, login and schema; of them, what it cannot hold as it is.

    Airflow's connections may have an account without a host, or a host that is none, such as
    `local[2]` or `https://example.com`.
    """
    parts = {name: given[name] for name in ("host", "port", "login", "schema") if given.get(name)}
    if not parts.get("host"):
        return None, parts
    scheme, _, server = str(parts["host"]).rpartition("://")
    scheme = scheme or str(given.get("conn_type") or given.get("kind") or "generic")
    user = f"{quote(str(parts['login']), safe='')}@" if "login" in parts else ""
    port = f":{parts['port']}" if "port" in parts else ""
    path = f"/{quote(str(parts['schema']))}" if "schema" in parts else ""
    uri = f"{scheme}://{user}{server}{port}{path}"
    try:
        host = _split(uri).hostname
    except InvalidInput:
        return None, parts
    return uri, {} if host == parts["host"] else {"host": parts["host"]}


def _check_fields(secrets: Mapping[str, str], extra: Mapping[str, Any]) -> None:
    for field, value in secrets.items():
        if not _FIELD.match(field) or field in ("url", *_PLAIN):
            raise InvalidInput(f"{field!r} cannot name a secret: take letters, digits and _")
        if not value:
            raise InvalidInput(f"the secret {field!r} is empty")
    for field in extra:
        # `extra` is shown in full, so a secret there would leak.
        if _SECRET_LIKE.fullmatch(field):
            raise InvalidInput(f"extra.{field} looks like a secret: put it under secrets")


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        # Its message may hold a part of the password: report a general error instead.
        parts = urlsplit("")
    if not parts.scheme or not uri.isprintable() or " " in uri:
        raise InvalidInput("uri is not a URI: write one such as postgres://user@host:5432/database")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET_LIKE.fullmatch(name):
            raise InvalidInput(f"{name!r} in the uri is a secret: put it under secrets")
    return parts


def _without_password(parts: SplitResult) -> tuple[str, str | None]:
    account, at, server = parts.netloc.rpartition("@")
    user, colon, password = account.partition(":")
    plain = urlunsplit(parts._replace(netloc=f"{user}{at}{server}"))
    return plain, unquote(password) if colon and password else None
