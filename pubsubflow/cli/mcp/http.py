"""The server of tools over streamable HTTP: on loopback, calls have the token of their request."""

import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

import uvicorn

from pubsubflow.cli import output
from pubsubflow.cli.mcp.operations import Operation
from pubsubflow.cli.mcp.server import make_server
from pubsubflow.cli.target import Target
from pubsubflow.client import Client
from pubsubflow.errors import ConfigError

_HOST = "127.0.0.1"
_BEARER = "bearer "
_REFUSAL = b'{"error": "send a token of the daemon: Authorization: Bearer psf_..."}\n'

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]


async def serve_http(target: Target, tools: Mapping[str, Operation], port: int) -> None:
    """Serve tools at `/mcp` of a loopback port until SIGINT or SIGTERM.

    Args:
        target: The daemon. Its token is not used for calls: each has the rights of its own.
        tools: Name → operation.
        port: The port; 0 for a free one.

    Raises:
        ConfigError: The port is taken.
    """

    def connect(context: Any) -> Client:
        return replace(target, token=_token(context.request.scope)).client()

    # The SDK refuses requests for other hosts and from pages of other origins.
    app = make_server(connect, tools).streamable_http_app(host=_HOST, stateless_http=True)
    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        raise ConfigError(f"port {port} of {_HOST} cannot be used: {error.strerror}") from error
    with listener:
        output.warn(f"tools at http://{_HOST}:{listener.getsockname()[1]}/mcp; Ctrl-C stops them")
        settings = uvicorn.Config(_demanding_tokens(app), log_level="warning", lifespan="on")
        server = uvicorn.Server(settings)
        try:
            await server.serve(sockets=[listener])
        finally:
            # One that is cancelled leaves the loop listening to the number of a closed descriptor:
            # whatever gets that number next would never be read.
            for each in getattr(server, "servers", ()):
                each.close()


def _demanding_tokens(app: App) -> App:
    """Return an app that refuses requests without a token."""

    async def guarded(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http" or _token(scope):
            await app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})

    return guarded


def _token(scope: Scope) -> str:
    """Return the token of a request; empty if it has none."""
    value = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    text = value.decode("latin-1")
    return text[len(_BEARER) :].strip() if text.lower().startswith(_BEARER) else ""
