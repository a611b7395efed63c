"""Idempotency keys of requests that start runs."""

from hashlib import blake2b
from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from pubsubflow.api.auth.middleware import PRINCIPAL
from pubsubflow.model.wire.commands import RequestKey, StartRun

IDEMPOTENCY = {
    "Idempotency-Key": "The same key again is the same request, which started one run; with "
    "another body it is refused (422). A `run_key` in the body counts in its place."
}
"""The request header that routes which start runs read."""


def with_request_key(command: StartRun, request: web.Request) -> StartRun:
    """Return a command with the idempotency key of its request, if it has one.

    Keys of different tokens are different ones, and so are those for different DAGs.
    """
    given = request.headers.get("Idempotency-Key")
    if not given or command.run_key is not None:
        return command
    principal = request[PRINCIPAL]
    key = f"{principal.token or principal.name}\n{command.dag_id}\n{given}"
    # The bytes of a header may be other than UTF-8.
    digest = blake2b(key.encode(errors="surrogateescape"), digest_size=20).hexdigest()
    # Of the values, not of the bytes: a client may write the same JSON in another order. How long
    # it waits, and the cause that it names, make no other request.
    body: list[Any] = [command.params, command.logical_time, command.partition, command.preset]
    content = msgspec.json.encode([*body, command.tags], order="sorted")
    run_key = f"request-key:{digest}"
    claim = RequestKey(run_key, blake2b(content, digest_size=20).digest())
    return replace(command, run_key=run_key, request=claim)
