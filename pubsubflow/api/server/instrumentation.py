"""The tracing middleware continues a request's distributed trace and records its server span."""

import time
from http import HTTPStatus

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr

from pubsubflow.api.server.metrics import route_of
from pubsubflow.model.traces import CURRENT, Span, Tracing, parse_trace, trace_id_of

_TRACEPARENT = istr("traceparent")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Polled by probes and scrapers: spans of these would only be noise."""


def tracing_middleware(tracing: Tracing) -> Middleware:
    """Return the middleware that sets the trace context of requests, also in the log."""

    @web.middleware
    async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        sent = headers.get(_TRACEPARENT)
        if sent is None and not tracing.on:
            return await handler(request)
        parent = parse_trace(sent, ",".join(headers.getall("tracestate", ())) or None)
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

    return traced


def _span(
    request: web.Request, status: int, context: str, parent: str | None, started_at: float
) -> Span:
    """Return the span of a request, by OpenTelemetry's conventions for HTTP servers."""
    route = route_of(request)
    return Span(
        name=f"{request.method} {route}" if route != "none" else "other",
        kind="server",
        context=context,
        parent=parent,
        started_at=started_at,
        ended_at=time.time(),
        attributes={
            "http.request.method": request.method,
            "http.route": route,
            "http.response.status_code": status,
            "url.scheme": request.scheme,
            "server.address": request.headers.get(hdrs.HOST, ""),
        },
        error=HTTPStatus(status).phrase if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None,
    )
