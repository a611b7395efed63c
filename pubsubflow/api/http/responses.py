"""JSON responses."""

import msgspec
from aiohttp import hdrs, web

from pubsubflow.api.http.shown import shown

encode = msgspec.json.Encoder().encode
_HEADERS = {hdrs.CONTENT_TYPE: "application/json"}


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a response with what the principal may see of a value, in JSON."""
    return web.Response(body=encode(shown(value)), status=status, headers=_HEADERS)
