"""Trace contexts that a manager gives to runs and to the events of their tasks.

Spans are recorded after the commit, in `outbox.spans`.
"""

from collections.abc import Iterable

from pubsubflow.model.traces import MAX_CAUSES, Tracing, task_context
from pubsubflow.model.wire.messages import ResultMessage, RunInfo, RunTrace


def trace_of_run(
    tracing: Tracing, requested_by: str | None, events: Iterable[str | None]
) -> RunTrace | None:
    """Return a new run's position in a trace: below its request, or below its last event.

    Whatever else led to it becomes links, at most `MAX_CAUSES` in all.

    Args:
        tracing: Draws contexts.
        requested_by: The trace context of the request.
        events: Those of the events that it consumes, in order.
    """
    causes = dict.fromkeys([requested_by, *reversed(list(events))])
    found = tuple(cause for cause in causes if cause is not None)[:MAX_CAUSES]
    context = tracing.begin(found[0] if found else None)
    return None if context is None else RunTrace(context, found, tracing.on)


def attempt_context(info: RunInfo, result: ResultMessage | None) -> str | None:
    """Return the trace context of a task's attempt; that of its run without a result."""
    if result is None:
        return None if info.trace is None else info.trace.context
    return task_context(info, result.node, result.map_index, result.attempt, result.delivery)
