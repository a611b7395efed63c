"""Serves the API of a daemon as tools to AI assistants."""

from importlib import import_module
from typing import Annotated, Any

import msgspec

from pubsubflow.cli.event_loop import on_event_loop
from pubsubflow.cli.mcp.operations import operations
from pubsubflow.cli.shell.parameter import Number, Parameter
from pubsubflow.cli.target import DEFAULT, Target
from pubsubflow.errors import ConfigError


@on_event_loop
async def serve_tools(
    *,
    allow_writes: bool = False,
    http: Annotated[int | None, Parameter(validator=Number(gte=0, lte=65_535))] = None,
    target: Target = DEFAULT,
) -> None:
    """Serve the API of a daemon as tools of the Model Context Protocol, on stdin and stdout.

    What a tool may do is decided by the token, as for any other client.

    Args:
        allow_writes: Also offer the operations that change something; only those that read if left
            out.
        http: Serve them at /mcp of this port of 127.0.0.1 instead, 0 for a free one; each request
            sends a token of its own, whose rights it has.
        target: The daemon, and the format of the output.
    """
    async with target.client() as client:
        document = msgspec.json.decode(await client.request("GET", "/api/v1/openapi.json"))
    tools = operations(document, writes=allow_writes)
    if http is not None:
        await _import("http").serve_http(target, tools, http)
        return
    async with target.client() as client:
        await _import("server").serve(client, tools)


def _import(name: str) -> Any:
    """Import a module of the server, which needs the extra.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(f"pubsubflow.cli.mcp.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the SDK of the Model Context Protocol is not installed: "
            "python -m pip install 'pubsubflow[mcp]'"
        ) from error
