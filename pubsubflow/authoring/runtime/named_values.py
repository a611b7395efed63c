"""Variables and connections by name, for templates: `{{ var.name }}`, `{{ conn.name.host }}`."""

from collections.abc import Callable
from typing import Any

import msgspec

from pubsubflow.authoring.runtime.context import Context
from pubsubflow.errors import ConfigError, NotFound
from pubsubflow.model.connections import Connection
from pubsubflow.model.values.variables import as_text


class NamedValues:
    """Values by attribute, and by `get` with a default.

    Args:
        read: Returns the value of a name, or raises NotFound.
        kind: What the names are of: `variable` or `connection`.
    """

    def __init__(self, read: Callable[[str], Any], kind: str = "variable") -> None:
        self._read = read
        self._kind = kind

    def describe_missing(self, name: str) -> str:
        """Return what a template says that uses a name which is not set."""
        return str(
            NotFound(
                self._kind,
                name,
                f"set it with `pubsubflow {self._kind}s set {name}`, or write "
                f"{{{{ … | default(…) }}}}",
            )
        )

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name, or the default when it is not set."""
        try:
            return self._read(name)
        except NotFound:
            return default

    def __getitem__(self, name: str) -> Any:
        try:
            return self._read(name)
        except NotFound as error:
            raise KeyError(str(error)) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._read(name)
        except NotFound as error:
            # So that jinja2's `default` works on it.
            raise AttributeError(str(error)) from error


class VariableNames(NamedValues):
    """Variables: `var.name`; `var.value.name` as text, `var.json.name` parsed, as in Airflow.

    Attributes:
        value: Variables as texts.
        json: Variables, with texts that hold JSON parsed.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context.variable)
        self.value = NamedValues(lambda name: as_text(context.variable(name)))
        self.json = NamedValues(lambda name: _parsed(context.variable(name)))


class ConnectionNames(NamedValues):
    """Connections: `conn.name.host`, with Airflow's `login`, `schema`, `conn_type` beside ours."""

    def __init__(self, context: Context) -> None:
        super().__init__(lambda name: ConnectionFields(_found(context, name)), "connection")


class ConnectionFields:
    """The fields of a connection, ours and Airflow's; its text hides its secrets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.conn_id, self.conn_type, self.kind = connection.name, connection.kind, connection.kind
        self.host, self.port, self.uri = connection.host, connection.port, connection.uri
        self.login = self.user = connection.user
        self.schema = self.path = connection.path
        self.password = connection.password
        self.extra = self.extra_dejson = connection.extra
        self.secrets = connection.secrets

    @property
    def url(self) -> str:
        """`uri` with the password in it."""
        return self._connection.url

    def get_uri(self) -> str:
        """Return `uri` with the password in it."""
        return self._connection.url

    def __repr__(self) -> str:
        return repr(self._connection)


def _found(context: Context, name: str) -> Connection:
    try:
        return context.connection(name)
    except ConfigError as error:
        if "no connection named" in str(error):
            raise NotFound("connection", name) from error
        raise


def _parsed(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str) else value
