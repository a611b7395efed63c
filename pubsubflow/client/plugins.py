"""Client methods for plugins."""

from pubsubflow.client.transport import Transport
from pubsubflow.model.api.plugins import PluginView


class PluginApi:
    """Methods of the client for plugins."""

    _server: Transport

    async def plugins(self) -> list[PluginView]:
        """Return the plugins beside the daemon, with why any of them cannot be imported."""
        return await self._server.get("/api/v1/plugins", list[PluginView])
