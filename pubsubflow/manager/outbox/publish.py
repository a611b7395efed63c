"""Publication of a committed batch: cancellations, run and dataset events, wake-ups."""

from collections.abc import Iterator

import msgspec
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import MessageRefused
from pubsubflow.manager.unit_of_work import OutgoingMessage, UnitOfWork
from pubsubflow.model.cloud_events import JSON, SOURCE, CloudEvent, cloud_event_of, to_headers
from pubsubflow.model.traces import trace_headers
from pubsubflow.model.wire.messages import CancelMessage, TriggersChangedMessage, encode
from pubsubflow.model.wire.subjects import Subjects

log = structlog.get_logger()

_json = msgspec.json.Encoder().encode
_TYPE = {"ce-datacontenttype": JSON, "content-type": JSON}


def publish_changes(bus: Bus, uow: UnitOfWork) -> None:
    """Publish what a committed batch has changed; its orders are published before.

    Raises:
        BusUnavailable: Too much waits for the socket already.
    """
    for message in _messages(uow):
        try:
            bus.publish(message.subject, message.payload, message.headers)
        except MessageRefused as error:
            subject = message.subject
            log.error("manager.message_refused", subject=subject, reason=str(error))  # noqa: TRY400


def _messages(uow: UnitOfWork) -> Iterator[OutgoingMessage]:
    for run in uow.runs.by_id.values():
        if run.cancelled:
            cancel = CancelMessage(run.id, run.error or "cancelled")
            yield OutgoingMessage(Subjects.CANCEL, encode(cancel))
    for cancel in uow.outbox.cancellations:
        yield OutgoingMessage(Subjects.CANCEL, encode(cancel))
    yield from _run_events(uow)
    for event in uow.log.recorded:
        headers = to_headers(cloud_event_of(event.info)) | _TYPE | trace_headers(event.info.trace)
        headers["Nats-Msg-Id"] = event.info.event_id
        subject = f"psf.evt.dataset.{event.info.event_id}"
        yield OutgoingMessage(subject, bytes(event.extra), headers)
    yield from uow.outbox.messages
    yield from _wake_ups(uow)


def _run_events(uow: UnitOfWork) -> Iterator[OutgoingMessage]:
    """Yield a CloudEvent for each state that a run has entered."""
    traces = _traces(uow)
    for change in uow.outbox.run_changes:
        data = {"run_id": change.run_id, "dag_id": change.dag_id, "state": change.state}
        name = f"{change.run_id}.{change.state}.{uow.now.timestamp():.6f}"
        kind = f"org.pubsubflow.run.{change.state}"
        event = CloudEvent(name, SOURCE, kind, uow.now, subject=change.dag_id, runid=change.run_id)
        headers = to_headers(event) | _TYPE | trace_headers(traces.get(change.run_id))
        yield OutgoingMessage(f"psf.evt.run.{change.run_id}", _json(data), headers)


def _traces(uow: UnitOfWork) -> dict[str, str]:
    """Return the trace contexts of runs that were made or have ended: run id → context."""
    drafts = [(str(draft.run_id), draft.trace) for draft in uow.schedule.drafts.values()]
    ended = [
        (run.info.run_id, run.info.trace)
        for run in uow.runs.by_id.values()
        if run.outcome is not None
    ]
    return {run_id: trace.context for run_id, trace in drafts + ended if trace is not None}


def _wake_ups(uow: UnitOfWork) -> Iterator[OutgoingMessage]:
    """Yield what wakes the readers of tables that have changed."""
    if uow.outbox.has_changes:
        yield OutgoingMessage(Subjects.CHANGES)
    for run in {message.run for message in uow.runs.output}:
        yield OutgoingMessage(f"{Subjects.LIVE_LOG}.{run}")
    if uow.timers:
        yield OutgoingMessage(Subjects.TIMERS_CHANGED)
    if uow.callbacks or uow.outbox.has_alerts:
        yield OutgoingMessage(Subjects.CALLBACKS_CHANGED)
    # Cancelled ones as well: triggerers run the `cancelled` method of their triggers.
    new = any(each.wait.kind == "trigger" for each in uow.waits.begun)
    new = new or any(each.cancelled for each in uow.waits.ended)
    if new or uow.waits.stopped:
        message = TriggersChangedMessage(new, tuple(uow.waits.stopped))
        yield OutgoingMessage(Subjects.TRIGGERS_CHANGED, encode(message))
