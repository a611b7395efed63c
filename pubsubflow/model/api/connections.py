"""JSON types of connections, with masks for their secrets."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from pubsubflow.model.connections import MASK, Connection
from pubsubflow.model.revisions import connection_revision

Source = Literal["store", "environment"]


class ConnectionView(Struct, frozen=True, kw_only=True):
    """A connection without its secrets.

    Attributes:
        secrets: Field → `***`.
        revision: Differs after every change; see `If-Match`.
        updated_at: When it was last set.
        source: `environment` when a daemon's `PUBSUBFLOW_CONN_NAME` stands before the store.
        dags: Ids of the DAGs that may use it, and patterns of them; empty for all.
    """

    name: str
    kind: str
    uri: str | None
    extra: dict[str, Any]
    secrets: dict[str, str]
    host: str | None
    port: int | None
    user: str | None
    revision: str
    updated_at: datetime | None = None
    source: Source = "store"
    dags: list[str] = []

    @classmethod
    def of(
        cls,
        connection: Connection,
        version: int | None = None,
        updated_at: datetime | None = None,
        source: Source = "store",
    ) -> "ConnectionView":
        """Return the representation of a connection, with masks for its secrets."""
        return cls(
            name=connection.name,
            kind=connection.kind,
            uri=connection.uri,
            extra=connection.extra,
            secrets=dict.fromkeys(connection.secrets, MASK),
            host=connection.host,
            port=connection.port,
            user=connection.user,
            revision=connection_revision(version),
            updated_at=updated_at,
            source=source,
            dags=list(connection.dags),
        )


class ConnectionTestView(Struct, frozen=True, kw_only=True):
    """What the test of a connection came to.

    Attributes:
        type: The type whose check was made.
        ok: Whether the connection can be used.
        outcome: One line, without secrets.
        seconds: How long it took.
    """

    name: str
    type: str
    ok: bool
    outcome: str
    seconds: float


class RotatedKeys(Struct, frozen=True, kw_only=True):
    """The result of a rotation of the keys.

    Attributes:
        connections: Number of connections that were encrypted anew.
        variables: Number of secret variables that were.
        key: Id of the new key.
    """

    connections: int
    key: str
    variables: int = 0


class ExportedConnection(Struct, frozen=True, kw_only=True):
    """A stored connection with its secrets, for an admin who moves it elsewhere.

    Attributes:
        secrets: Field → value.
        dags: Ids of the DAGs that may use it, and patterns of them; empty for all.
    """

    name: str
    kind: str
    uri: str | None
    extra: dict[str, Any]
    secrets: dict[str, str]
    dags: list[str] = []


class ExportedConnections(Struct, frozen=True, kw_only=True):
    """All stored connections with their secrets, by name."""

    connections: list[ExportedConnection]
