"""Client methods for connections."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pubsubflow.client.transport import Transport, if_match, quoted
from pubsubflow.model.api.resources import Page
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model.api import connection_types as types
    from pubsubflow.model.api import connections as views
else:
    types = lazy_module("pubsubflow.model.api.connection_types")
    views = lazy_module("pubsubflow.model.api.connections")


class ConnectionApi:
    """Methods of the client for connections."""

    _server: Transport

    def connections(self, *, limit: int | None = None) -> "AsyncIterator[views.ConnectionView]":
        """Yield connections by name, with masks for their secrets."""
        return self._server.list("/api/v1/connections", Page[views.ConnectionView], {}, limit)

    async def connection(self, name: str) -> "views.ConnectionView":
        """Return a connection, with masks for its secrets."""
        return await self._server.get(_path(name), views.ConnectionView)

    async def set_connection(
        self,
        name: str,
        *,
        kind: str | None = None,
        uri: str | None = None,
        extra: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
        revision: str | None = None,
        type: str | None = None,
        dags: Sequence[str] | None = None,
    ) -> "views.ConnectionView":
        """Set a connection, whole; return it with masks for its secrets.

        Args:
            name: Its name.
            kind: Its kind; the scheme of `uri` if left out.
            uri: Its URI; a password in it becomes the secret `password`.
            extra: Further fields, none of them secret.
            secrets: Field → value; `***` keeps the value that is stored.
            revision: The revision that it must have, `absent` if it must not exist; any if left
                out.
            type: Its type, against whose fields it is checked; it becomes its kind.
            dags: Ids of the DAGs that may use it, and patterns such as `etl_*`; empty for all, and
                those that are stored if left out.
        """
        body: dict[str, Any] = {
            "kind": kind,
            "uri": uri,
            "extra": extra or {},
            "secrets": secrets or {},
        }
        body |= {} if type is None else {"type": type}
        body |= {} if dags is None else {"dags": list(dags)}
        headers = if_match(revision)
        return await self._server.send(
            "PUT", _path(name), body, views.ConnectionView, headers=headers
        )

    async def delete_connection(self, name: str, *, revision: str | None = None) -> None:
        """Delete a connection, if it still has the revision."""
        await self._server.delete(_path(name), headers=if_match(revision))

    async def test_connection(
        self, name: str, *, seconds: float | None = None
    ) -> "views.ConnectionTestView":
        """Try a connection, by the check of its type, and return what it came to.

        Args:
            name: Its name.
            seconds: The time limit; 10 if left out.
        """
        body = {} if seconds is None else {"seconds": seconds}
        return await self._server.send(
            "POST", f"{_path(name)}/test", body, views.ConnectionTestView
        )

    async def export_connections(self) -> "list[views.ExportedConnection]":
        """Return all stored connections with their secrets, by name, to an admin."""
        path = "/api/v1/connections/export"
        found = await self._server.send("POST", path, None, views.ExportedConnections)
        return found.connections

    async def connection_types(self) -> "list[types.ConnectionType]":
        """Return the types of connections by name."""
        return await self._server.get("/api/v1/connection-types", list[types.ConnectionType])

    async def rotate_connections(self) -> "views.RotatedKeys":
        """Encrypt the secrets of all connections with a new key."""
        path = "/api/v1/connections/rotate"
        return await self._server.send("POST", path, None, views.RotatedKeys)


def _path(name: str) -> str:
    return f"/api/v1/connections/{quoted(name)}"
