"""JSON responses."""

import msgspec
from aiohttp import web

from pubsubflow.api.http.shown import shown

encode = msgspec.json.Encoder().encode
_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a response with what the principal may see of a value, in JSON."""
    return web.Response(body=encode(shown(value)), status=status, headers=_HEADERS)
