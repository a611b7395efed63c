"""Where runs and tasks stand in distributed traces, and the spans that a committed batch ends.

A manager writes the spans of events, runs and tasks alike, after the commit: so each is there
once, and only if what it tells of did happen.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from pubsubflow.manager.unit_of_work import Ledger, LoggedEvent, RunWork
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.traces import MOST_CAUSES, Span, Tracing, task_context
from pubsubflow.model.wire.messages import EventInfo, Outcome, ResultMessage, RunInfo, RunTrace

_FAILED = (Outcome.FAILED, Outcome.CRASHED)


def trace_of_run(
    tracing: Tracing, asked_by: str | None, events: Sequence[EventInfo]
) -> RunTrace | None:
    """Return where a new run stands: under who asked for it, or under the last of its events.

    What else led to it becomes links, at most `MOST_CAUSES` in all.
    """
    causes = dict.fromkeys([asked_by, *(event.trace for event in reversed(events))])
    found = tuple(cause for cause in causes if cause is not None)[:MOST_CAUSES]
    context = tracing.begin(found[0] if found else None)
    return None if context is None else RunTrace(context, found, tracing.on)


def begin_trace(tracing: Tracing, ledger: Ledger, event: LoggedEvent) -> None:
    """Let a trace begin with an event that came without one, so that all it leads to is one."""
    if event.info.trace is None and tracing.on:
        event.info = replace(event.info, trace=tracing.begin(None))
        ledger.traced.append(event)


def context_of(info: RunInfo, message: ResultMessage | None) -> str | None:
    """Return the context in which a task ran; that of its run without a result."""
    if message is None:
        return None if info.trace is None else info.trace.context
    return task_context(info, message.node, message.map_index, message.attempt, message.delivery)


def record_spans(tracing: Tracing, ledger: Ledger) -> None:
    """Tell of all that ended in a batch that was committed, if anybody collects traces."""
    if not tracing.on:
        return
    now = datetime.now(UTC).timestamp()
    for event in ledger.traced:
        _record_event(tracing, event, now)
    for run, message in ledger.finished:
        if run.facts.trace is not None and run.facts.trace.recorded:
            _record_task(tracing, run, message)
    for run in ledger.runs.values():
        if run.outcome is not None and run.facts.trace is not None and run.facts.trace.recorded:
            _record_run(tracing, run, run.facts.trace, now)


def _record_event(tracing: Tracing, event: LoggedEvent, now: float) -> None:
    info = event.info
    if info.trace is None or event.number == 0:
        return
    tracing.record(
        Span(
            name=f"publish {info.dataset}",
            kind="producer",
            context=info.trace,
            started_at=event.accepted_at.timestamp() if event.accepted_at is not None else now,
            ended_at=now,
            facts={
                "pubsubflow.event_id": info.event_id,
                "pubsubflow.dataset": info.dataset,
                "pubsubflow.source": info.source,
            },
        )
    )


def _record_run(tracing: Tracing, run: RunWork, trace: RunTrace, now: float) -> None:
    info = run.facts
    facts: dict[str, str | int | float | bool] = {
        "pubsubflow.dag_id": info.dag_id,
        "pubsubflow.run_id": info.run_id,
        "pubsubflow.run_kind": info.kind,
        "pubsubflow.state": str(run.outcome),
        "pubsubflow.cause": info.cause,
    }
    if info.partition is not None:
        facts["pubsubflow.partition"] = info.partition
    tracing.record(
        Span(
            name=f"run {info.dag_id}",
            kind="consumer" if trace.causes else "internal",
            context=trace.context,
            parent=trace.causes[0] if trace.causes else None,
            links=trace.causes[1:],
            started_at=info.created_at.timestamp(),
            ended_at=now,
            facts=facts,
            error=None if run.outcome == RunState.SUCCESS else run.error or str(run.outcome),
        )
    )


def _record_task(tracing: Tracing, run: RunWork, message: ResultMessage) -> None:
    info, task = run.facts, run.version.spec.tasks[message.node]
    context = context_of(info, message)
    if context is None or info.trace is None:
        return
    error = None
    if message.outcome in _FAILED:
        error = str(message.outcome) if message.error is None else message.error.message
    tracing.record(
        Span(
            name=f"task {info.dag_id}.{task.task_id}",
            kind="internal",
            context=context,
            parent=info.trace.context,
            started_at=message.started_at,
            ended_at=message.ended_at,
            facts={
                "pubsubflow.dag_id": info.dag_id,
                "pubsubflow.run_id": info.run_id,
                "pubsubflow.task_id": task.task_id,
                "pubsubflow.map_index": message.map_index,
                "pubsubflow.attempt": message.attempt,
                "pubsubflow.delivery": message.delivery,
                "pubsubflow.outcome": str(message.outcome),
                "pubsubflow.worker": message.worker,
            },
            error=error,
        )
    )
