"""Client methods for variables."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pubsubflow.client.transport import Transport, if_match, quoted
from pubsubflow.model.api.resources import Page
from pubsubflow.model.lazy_import import lazy_module

if TYPE_CHECKING:
    from pubsubflow.model.api import variables as views
else:
    views = lazy_module("pubsubflow.model.api.variables")


class VariableApi:
    """Methods of the client for variables."""

    _server: Transport

    def variables(self, *, limit: int | None = None) -> "AsyncIterator[views.VariableView]":
        """Yield variables by name, with masks for secret values."""
        return self._server.list("/api/v1/variables", Page[views.VariableView], {}, limit)

    async def variable(self, name: str) -> "views.VariableView":
        """Return a variable, with a mask for a secret value."""
        return await self._server.get(_path(name), views.VariableView)

    async def set_variable(
        self,
        name: str,
        value: Any,
        *,
        secret: bool | None = None,
        description: str | None = None,
        revision: str | None = None,
    ) -> "views.VariableView":
        """Set a variable, whole; return it with a mask for a secret value.

        Args:
            name: Its name.
            value: A JSON value; `***` keeps the stored value of a secret one.
            secret: Whether it is stored encrypted and never shown; as its name says if left out.
            description: For people.
            revision: The revision that it must have, `absent` if it must not exist; any if left
                out.
        """
        body = {"value": value, "secret": secret, "description": description}
        headers = if_match(revision)
        return await self._server.send(
            "PUT", _path(name), body, views.VariableView, headers=headers
        )

    async def delete_variable(self, name: str, *, revision: str | None = None) -> None:
        """Delete a variable, if it still has the revision."""
        await self._server.delete(_path(name), headers=if_match(revision))


def _path(name: str) -> str:
    return f"/api/v1/variables/{quoted(name)}"
