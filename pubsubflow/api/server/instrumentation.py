"""Which distributed trace a request belongs to, and the span that answering it is."""

import time
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from pubsubflow.api.server.metrics import route_of
from pubsubflow.model.traces import CURRENT, Span, Tracing, read_trace, trace_id_of

_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for again and again: a trace of each would tell nothing."""


def traced(tracing: Tracing) -> Middleware:
    """Return what carries a request's trace to all that it leads to, also into the log."""

    @web.middleware
    async def carry(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        parent = read_trace(
            headers.get("traceparent"), ",".join(headers.getall("tracestate", ())) or None
        )
        quiet = not tracing.on or request.path in _QUIET
        context = parent if quiet else tracing.begin(parent)
        if context is None:
            return await handler(request)
        token = CURRENT.set(context)
        started_at = time.time()
        status = 499
        try:
            with structlog.contextvars.bound_contextvars(trace_id=trace_id_of(context)):
                answer = await handler(request)
            status = answer.status
        finally:
            CURRENT.reset(token)
            if not quiet:
                tracing.record(_span(request, status, context, parent, started_at))
        return answer

    return carry


def _span(
    request: web.Request, status: int, context: str, parent: str | None, started_at: float
) -> Span:
    """Return the span, as OpenTelemetry's conventions for HTTP servers name it."""
    route = route_of(request)
    return Span(
        name=f"{request.method} {route}" if route != "none" else "other",
        kind="server",
        context=context,
        parent=parent,
        started_at=started_at,
        ended_at=time.time(),
        facts={
            "http.request.method": request.method,
            "http.route": route,
            "http.response.status_code": status,
            "url.scheme": request.scheme,
            "server.address": request.headers.get(hdrs.HOST, ""),
        },
        error=HTTPStatus(status).phrase if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None,
    )
