"""Trace contexts identify the span of a distributed trace that an object belongs to.

A context is one text: a W3C `traceparent`, followed by a space and the `tracestate` if there is
one. The context of a run is drawn when the run is created, and stored with it. Those of tasks are
derived from their run's and their fence: runner and manager compute them independently, and a span
can be recorded by a daemon that did not run when it began.

Source: https://www.w3.org/TR/trace-context/ and the CloudEvents extension Distributed Tracing.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from hashlib import blake2b
from typing import Literal, Protocol

from msgspec import Struct

from pubsubflow.model.wire.messages import RunInfo

CURRENT: ContextVar[str | None] = ContextVar("pubsubflow_trace", default=None)
"""The context of the request that is being served."""

MAX_CAUSES = 32
"""Number of causes of a run that are kept: one is its parent, the others are links."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_STATE = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 1


class Span(Struct, frozen=True, kw_only=True):
    """A span of a trace, as it is exported to collectors.

    Attributes:
        name: Name of the operation, with few different values.
        kind: OpenTelemetry's kind of the span.
        context: Its own context.
        parent: The context of its parent; None for the first span of its trace.
        links: Further contexts that led to it.
        started_at: Seconds since 1970; likewise `ended_at`.
        attributes: Its attributes, by OpenTelemetry's names.
        error: The error that it ended with, if any.
    """

    name: str
    kind: Literal["server", "consumer", "producer", "internal"]
    context: str
    started_at: float
    ended_at: float
    parent: str | None = None
    links: tuple[str, ...] = ()
    attributes: Mapping[str, str | int | float | bool] = {}
    error: str | None = None


class Tracing(Protocol):
    """Records spans.

    Attributes:
        on: Whether spans are recorded at all.
    """

    on: bool

    def begin(self, parent: str | None) -> str | None:
        """Return the context of a new span under `parent`, or of the first of a new trace.

        With tracing off that is `parent` itself, which is passed on.
        """

    def record(self, span: Span) -> None:
        """Record a span that has ended; returns at once, and does not fail."""


class NoTracing:
    """Tracing that is off: contexts are passed on as they came."""

    on = False

    def begin(self, parent: str | None) -> str | None:
        """Return `parent`."""
        return parent

    def record(self, span: Span) -> None:
        """Do nothing."""


def parse_trace(traceparent: str | None, tracestate: str | None = None) -> str | None:
    """Return the context in headers or attributes; None if there is none, or it is malformed.

    A malformed context is dropped, and the request continues without it, as the standard requires.
    """
    found = _PARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE:
        return None
    if span_id == _NO_SPAN:
        return None
    parent = f"00-{trace_id}-{span_id}-{flags}"
    state = (tracestate or "").strip()
    return f"{parent} {state}" if _STATE.fullmatch(state) else parent


def trace_headers(context: str | None) -> dict[str, str]:
    """Return the headers of HTTP or NATS, or the CloudEvents attributes, that propagate a context.

    Returns:
        `traceparent`, and `tracestate` if there is one; nothing without a context.
    """
    if context is None:
        return {}
    parent, _, state = context.partition(" ")
    return {"traceparent": parent, "tracestate": state} if state else {"traceparent": parent}


def trace_id_of(context: str) -> str:
    """Return the id of a context's trace: 32 hexadecimal digits."""
    return context[3:35]


def span_id_of(context: str) -> str:
    """Return the id of a context's span: 16 hexadecimal digits."""
    return context[36:52]


def is_sampled(context: str) -> bool:
    """Whether the spans of a context's trace are sampled."""
    return bool(int(context[53:55], 16) & _SAMPLED)


def with_span(context: str, span_id: str) -> str:
    """Return the context of another span of the same trace."""
    return f"{context[:36]}{span_id}{context[52:]}"


def task_context(
    info: RunInfo, node: int, map_index: int, attempt: int, delivery: int
) -> str | None:
    """Return the context in which one delivery of a task runs; None without a trace.

    With tracing off that is the context that came with the run's events.
    """
    trace = info.trace
    if trace is None:
        return None
    if not trace.recorded:
        return trace.context
    # A digest of the fence: every process derives the same span id for this delivery.
    fence = f"{trace.context[3:52]} {node} {map_index} {attempt} {delivery}"
    return with_span(trace.context, blake2b(fence.encode(), digest_size=8).hexdigest())
