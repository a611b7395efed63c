"""Response headers that every response carries, error responses included."""

from collections.abc import Mapping

from aiohttp import hdrs, web

_ALWAYS: Mapping[str, str] = {
    hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff",
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.REFERRER_POLICY: "no-referrer",
    hdrs.CONTENT_SECURITY_POLICY: "default-src 'none'; frame-ancestors 'none'",
    hdrs.CROSS_ORIGIN_RESOURCE_POLICY: "same-origin",
}
_TLS: Mapping[str, str] = {hdrs.STRICT_TRANSPORT_SECURITY: "max-age=31536000"}


class ResponseHeaders:
    """Adds headers when a response begins; those that it sets itself stay.

    Args:
        tls: Whether the server speaks TLS; browsers are then required to keep using it (HSTS).
    """

    def __init__(self, *, tls: bool) -> None:
        self._headers: Mapping[str, str] = {**_ALWAYS, **(_TLS if tls else {})}

    async def add(self, _: web.Request, response: web.StreamResponse) -> None:
        """Add the headers; a signal handler of aiohttp."""
        add_headers(response, self._headers)


def add_headers(response: web.StreamResponse, headers: Mapping[str, str] = _ALWAYS) -> None:
    """Add headers to a response, those of every response unless others are named."""
    own = response.headers
    for name, value in headers.items():
        own.setdefault(name, value)
    # Overrides aiohttp's own value, which names its version and Python's.
    own[hdrs.SERVER] = "pubsubflow"
