"""What people are told about connections: never a secret."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from pubsubflow.model.connections import MASK, Connection
from pubsubflow.model.revisions import connection_revision


class ConnectionView(Struct, frozen=True, kw_only=True):
    """A connection as people see it.

    Attributes:
        secrets: Field → `***`.
        revision: Another one after each change.
        updated_at: When it was last set.
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
    updated_at: datetime

    @classmethod
    def of(cls, connection: Connection, version: int, updated_at: datetime) -> "ConnectionView":
        """Return what may be seen of a connection."""
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
        )


class RotatedKeys(Struct, frozen=True, kw_only=True):
    """What a rotation of the keys has done.

    Attributes:
        connections: How many are encrypted anew.
        key: Id of the key that encrypts from now on.
    """

    connections: int
    key: str
