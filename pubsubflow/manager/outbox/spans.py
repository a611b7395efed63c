"""Spans that a committed batch ends, of events, tasks and runs.

They are recorded after the commit: so each is there once, and only if its subject did happen.
"""

from datetime import UTC, datetime

from pubsubflow.manager.traces import attempt_context
from pubsubflow.manager.unit_of_work import UnitOfWork
from pubsubflow.manager.working_state import LoggedEvent, RunWork
from pubsubflow.model.runs.states import RunState
from pubsubflow.model.traces import Span, Tracing
from pubsubflow.model.wire.messages import Outcome, ResultMessage, RunTrace

_FAILED = (Outcome.FAILED, Outcome.CRASHED)


def record_spans(tracing: Tracing, uow: UnitOfWork) -> None:
    """Record the spans of all that ended in a batch that was committed."""
    now = datetime.now(UTC).timestamp()
    for event in uow.outbox.trace_roots:
        _record_event(tracing, event, now)
    for attempt in uow.outbox.attempts:
        trace = attempt.run.info.trace
        if trace is not None and trace.recorded:
            _record_task(tracing, attempt.run, attempt.result)
    for run in uow.runs.by_id.values():
        trace = run.info.trace if run.outcome is not None else None
        if trace is not None and trace.recorded:
            _record_run(tracing, run, trace, now)


def _record_event(tracing: Tracing, event: LoggedEvent, now: float) -> None:
    info = event.info
    if info.trace is None or event.id == 0:
        return
    tracing.record(
        Span(
            name=f"publish {info.dataset}",
            kind="producer",
            context=info.trace,
            started_at=event.accepted_at.timestamp() if event.accepted_at is not None else now,
            ended_at=now,
            attributes={
                "pubsubflow.event_id": info.event_id,
                "pubsubflow.dataset": info.dataset,
                "pubsubflow.source": info.source,
            },
        )
    )


def _record_run(tracing: Tracing, run: RunWork, trace: RunTrace, now: float) -> None:
    info = run.info
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
            attributes=facts,
            error=None if run.outcome == RunState.SUCCESS else run.error or str(run.outcome),
        )
    )


def _record_task(tracing: Tracing, run: RunWork, result: ResultMessage) -> None:
    info, task = run.info, run.version.spec.tasks[result.node]
    context = attempt_context(info, result)
    if context is None or info.trace is None:
        return
    error = None
    if result.outcome in _FAILED:
        error = str(result.outcome) if result.error is None else result.error.message
    tracing.record(
        Span(
            name=f"task {info.dag_id}.{task.task_id}",
            kind="internal",
            context=context,
            parent=info.trace.context,
            started_at=result.started_at,
            ended_at=result.ended_at,
            attributes={
                "pubsubflow.dag_id": info.dag_id,
                "pubsubflow.run_id": info.run_id,
                "pubsubflow.task_id": task.task_id,
                "pubsubflow.map_index": result.map_index,
                "pubsubflow.attempt": result.attempt,
                "pubsubflow.delivery": result.delivery,
                "pubsubflow.outcome": str(result.outcome),
                "pubsubflow.worker": result.worker,
            },
            error=error,
        )
    )
