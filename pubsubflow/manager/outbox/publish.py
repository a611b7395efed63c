"""What goes out after a commit: orders for workers, news for whoever listens."""

from collections.abc import Iterator, Mapping
from functools import partial

import msgspec
import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import MessageRefused
from pubsubflow.manager.batch import Folded
from pubsubflow.manager.unit_of_work import Ledger
from pubsubflow.model.cloud_events import JSON, SOURCE, Told, to_headers, told_event
from pubsubflow.model.traces import carried
from pubsubflow.model.wire.messages import CancelOrder, TriggersOrder, encode
from pubsubflow.model.wire.subjects import Subjects

log = structlog.get_logger()

_json = msgspec.json.Encoder().encode
_TYPE = {"ce-datacontenttype": JSON, "content-type": JSON}


def publish_news(bus: Bus, folded: Folded) -> None:
    """Publish a committed batch: tasks, cancellations, then what happened.

    Raises:
        BusUnavailable: Too much waits for the socket already.
    """
    publish = partial(_publish, bus)
    ledger = folded.ledger
    for queue, order in folded.orders:
        publish(Subjects.task(queue, order), encode(order))
    for run in ledger.runs.values():
        if run.cancelled:
            publish(Subjects.CANCEL, encode(CancelOrder(run.number, run.error or "cancelled")))
    for called_off in ledger.called_off:
        publish(Subjects.CANCEL, encode(called_off))
    traces = _traces(ledger)
    at = ledger.now
    for change in ledger.run_news:
        news = {"run_id": change.run_id, "dag_id": change.dag_id, "state": change.state}
        name = f"{change.run_id}.{change.state}.{at.timestamp():.6f}"
        kind = f"org.pubsubflow.run.{change.state}"
        told = Told(name, SOURCE, kind, at, subject=change.dag_id, runid=change.run_id)
        headers = to_headers(told) | _TYPE | carried(traces.get(change.run_id))
        publish(f"psf.evt.run.{change.run_id}", _json(news), headers)
    for event in ledger.logged:
        headers = to_headers(told_event(event.info)) | _TYPE | carried(event.info.trace)
        headers["Nats-Msg-Id"] = event.info.event_id
        publish(f"psf.evt.dataset.{event.event_id}", _json(event.info.extra), headers)
    for subject, payload in ledger.republish:
        bus.publish(subject, payload)
    for subject, payload in _bells(folded):
        publish(subject, payload)


def _bells(folded: Folded) -> Iterator[tuple[str, bytes]]:
    """Yield what wakes those who look into the store when there is something new."""
    ledger = folded.ledger
    if ledger.told:
        yield Subjects.NEWS, b""
    for number in {row[0] for row in ledger.logs}:
        yield f"{Subjects.LIVE_LOG}.{number}", b""
    if ledger.timers:
        yield Subjects.TIMERS_CHANGED, b""
    fresh = any(wait.kind == "trigger" for *_, wait in ledger.waits)
    fresh = fresh or any(cancelled for *_, cancelled in ledger.unwaited)
    for subject in folded.replies:
        yield subject, b""
    if fresh or ledger.stopped:
        yield Subjects.TRIGGERS, encode(TriggersOrder(fresh, tuple(ledger.stopped)))


def _publish(
    bus: Bus, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
) -> None:
    """Publish one message; one that this NATS will never take must not keep back the others."""
    try:
        bus.publish(subject, payload, headers)
    except MessageRefused as error:
        log.error("manager.message_refused", subject=subject, reason=str(error))  # noqa: TRY400


def _traces(ledger: Ledger) -> dict[str, str]:
    """Return the trace contexts of runs that were made or have ended: run id → context."""
    starts = [(str(start.run_id), start.trace) for start in ledger.starts.values()]
    ended = [
        (run.facts.run_id, run.facts.trace)
        for run in ledger.runs.values()
        if run.outcome is not None
    ]
    return {run_id: trace.context for run_id, trace in starts + ended if trace is not None}
