"""Serves the API of a daemon as tools to AI assistants."""

from importlib import import_module
from typing import Any

import msgspec

from pubsubflow.cli.event_loop import on_event_loop
from pubsubflow.cli.mcp.operations import operations
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.errors import ConfigError


@on_event_loop
async def serve_tools(*, allow_writes: bool = False, target: Target = DEFAULT) -> None:
    """Serve the API of a daemon as tools of the Model Context Protocol, on stdin and stdout.

    What a tool may do is decided by the token, as for any other client.

    Args:
        allow_writes: Also offer the operations that change something; only those that read if left
            out.
        target: The daemon, and the format of the output.
    """
    async with target.client(blocking=False) as client:
        document = msgspec.json.decode(await client.request("GET", "/api/v1/openapi.json"))
        await _server().serve(client, operations(document, writes=allow_writes))


def _server() -> Any:
    """Import the server, which needs the extra.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module("pubsubflow.cli.mcp.server")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the SDK of the Model Context Protocol is not installed: "
            "python -m pip install 'pubsubflow[mcp]'"
        ) from error
