"""The server: lists the tools, and makes each call of one a request to the daemon."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.metadata import version
from typing import Any

import mcp
import mcp_types as types
from mcp.server.lowlevel import Server

from pubsubflow.cli.mcp.operations import Operation
from pubsubflow.client import Client
from pubsubflow.errors import InvalidInput, PubsubflowError

_MOST_CHARACTERS = 200_000
_INSTRUCTIONS = (
    "pubsubflow runs DAGs of tasks when the datasets that they subscribe to have events. Lists are "
    "paged: pass `next` of an answer as `after`. To learn why a run exists use "
    "get_runs_by_run_id_explain; why none starts, get_dags_by_dag_id_why_not."
)


Connect = Callable[[Any], AbstractAsyncContextManager[Client]]
"""Returns the client for a call, made of the context of the call's request."""


async def serve(client: Client, tools: Mapping[str, Operation]) -> None:
    """Serve tools over stdin and stdout until stdin is closed.

    Args:
        client: Reaches the daemon, with the rights of its token.
        tools: Name → operation.
    """
    server = make_server(lambda _context: nullcontext(client), tools)
    async with mcp.stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def make_server(connect: Connect, tools: Mapping[str, Operation]) -> Server[Any]:
    """Return a server of tools; see `serve`."""
    listed = [_tool(each) for each in tools.values()]

    async def list_tools(*_: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(context: Any, request: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            async with connect(context) as client:
                text = await _call(client, tools, request.name, request.arguments or {})
        except PubsubflowError as error:
            return _answer(str(error), failed=True)
        return _answer(text, failed=False)

    return Server(
        "pubsubflow",
        version=version("pubsubflow"),
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _tool(operation: Operation) -> types.Tool:
    return types.Tool(
        name=operation.name,
        description=operation.summary,
        input_schema=operation.schema,
        annotations=types.ToolAnnotations(
            read_only_hint=operation.reads,
            destructive_hint=not operation.reads,
            idempotent_hint=operation.method in ("GET", "PUT", "DELETE"),
            open_world_hint=False,
        ),
    )


async def _call(
    client: Client, tools: Mapping[str, Operation], name: str, arguments: Mapping[str, Any]
) -> str:
    """Make the request of a tool and return the body of its response.

    Raises:
        InvalidInput: The tool or an argument is unknown.
    """
    operation = tools.get(name)
    if operation is None:
        raise InvalidInput(
            f"tool {name!r} is unknown: without --allow-writes those that change something are "
            "left out"
        )
    unknown = arguments.keys() - operation.schema["properties"].keys()
    if unknown:
        raise InvalidInput(f"{name} takes no {', '.join(sorted(unknown))}")
    text = await client.request(
        operation.method,
        operation.url(arguments),
        params={key: arguments[key] for key in operation.query if key in arguments},
        body=arguments.get("body"),
    )
    if len(text) > _MOST_CHARACTERS:
        return f"{text[:_MOST_CHARACTERS]}\n… cut: {len(text):,} characters; narrow the request"
    return text


def _answer(text: str, *, failed: bool) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text or "done")], is_error=failed
    )
