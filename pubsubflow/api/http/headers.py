"""Headers that every answer carries, whatever answers."""

from collections.abc import Mapping

from aiohttp import web

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TLS = {"Strict-Transport-Security": "max-age=31536000"}


class Headers:
    """Adds headers as an answer begins; those that it has already stay.

    Args:
        tls: Whether the server speaks TLS, so that browsers may be told never to do without.
    """

    def __init__(self, *, tls: bool) -> None:
        self._headers: Mapping[str, str] = {**_ALWAYS, **(_TLS if tls else {})}

    async def add(self, _: web.Request, response: web.StreamResponse) -> None:
        """Add them; `Server` tells no versions."""
        dress(response, self._headers)


def dress(response: web.StreamResponse, headers: Mapping[str, str] = _ALWAYS) -> None:
    """Add headers to an answer, those of every answer if none are named."""
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "pubsubflow"
