"""Trace contexts: which span of which distributed trace something belongs to.

A context is carried as one text: a W3C `traceparent`, followed by a space and the `tracestate` if
there is one. Contexts of runs are drawn when the run is made and kept with it; those of tasks
follow from their run's and their fence, so runner and manager know them without telling each
other, and a span can be written by a daemon that was not there when it began.

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
"""The context of the request that is being answered here."""

MOST_CAUSES = 32
"""So many causes of a run are kept: one is its parent, the others are links."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_STATE = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 1


class Span(Struct, frozen=True, kw_only=True):
    """Something that took time, as it is told to who collects traces.

    Attributes:
        name: What was done, with few different values.
        kind: Whether it answered a request, or took or gave an event.
        context: Its own.
        parent: The context under which it stands; None for the first of its trace.
        links: Further contexts that led to it.
        started_at: Seconds since 1970; likewise `ended_at`.
        facts: Attributes.
        error: What went wrong, if anything.
    """

    name: str
    kind: Literal["server", "consumer", "producer", "internal"]
    context: str
    started_at: float
    ended_at: float
    parent: str | None = None
    links: tuple[str, ...] = ()
    facts: Mapping[str, str | int | float | bool] = {}
    error: str | None = None


class Tracing(Protocol):
    """Who collects traces.

    Attributes:
        on: Whether anybody does.
    """

    on: bool

    def begin(self, parent: str | None) -> str | None:
        """Return the context of a new span under `parent`, or of the first of a new trace.

        Where nobody collects traces that is `parent` itself: it is passed on.
        """

    def record(self, span: Span) -> None:
        """Take a span that has ended; returns at once, whatever becomes of it."""


class NoTracing:
    """Nobody collects traces: contexts are passed on as they came."""

    on = False

    def begin(self, parent: str | None) -> str | None:
        """Return `parent`."""
        return parent

    def record(self, span: Span) -> None:
        """Do nothing."""


def read_trace(traceparent: str | None, tracestate: str | None = None) -> str | None:
    """Return the context that headers or attributes carry; None for none, or for a malformed one.

    As the standard asks, what is malformed is not passed on, and it harms nobody.
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


def carried(context: str | None) -> dict[str, str]:
    """Return what carries a context on: HTTP and NATS headers, or CloudEvents attributes.

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
    """Whether the spans of a context's trace are to be kept."""
    return bool(int(context[53:55], 16) & _SAMPLED)


def with_span(context: str, span_id: str) -> str:
    """Return the context of another span of the same trace."""
    return f"{context[:36]}{span_id}{context[52:]}"


def task_context(
    info: RunInfo, node: int, map_index: int, attempt: int, delivery: int
) -> str | None:
    """Return the context in which one delivery of a task runs; None without a trace.

    Where nobody collects traces that is the context that came with the run's events.
    """
    trace = info.trace
    if trace is None:
        return None
    if not trace.recorded:
        return trace.context
    place = f"{trace.context[3:52]} {node} {map_index} {attempt} {delivery}"
    return with_span(trace.context, blake2b(place.encode(), digest_size=8).hexdigest())
