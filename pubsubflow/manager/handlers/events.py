"""Handler of events to record: from the API, from the bus, from tasks that run."""

from collections.abc import Sequence

from msgspec.structs import replace

from pubsubflow.errors import InvalidInput
from pubsubflow.manager.chosen_keys import check_key
from pubsubflow.manager.cloud_events_in import DEAD_LETTER_KIND
from pubsubflow.manager.handlers.handler import BatchContext, Handler
from pubsubflow.manager.inbox import ANOTHER_BODY, InboxItem
from pubsubflow.manager.persistence.load import PublishingTask, RunLocks
from pubsubflow.manager.unit_of_work import DeadLetter
from pubsubflow.manager.working_state import LoggedEvent, new_event
from pubsubflow.model.cloud_events import structured_event
from pubsubflow.model.wire.commands import RecordedEvent, RecordEvents, RequestKey
from pubsubflow.model.wire.messages import EventInfo, FiredMessage, NewEvent, encode
from pubsubflow.model.wire.subjects import Subjects
from pubsubflow.store.database import printable

MAX_EVENT_BYTES = 256 * 1024


class RecordEventsHandler(Handler):
    """Records events: each once, whatever its sender repeats."""

    def __init__(self, context: BatchContext) -> None:
        super().__init__(context)
        self._events: dict[InboxItem, list[LoggedEvent]] = {}
        self._claims: dict[str, str] = {}
        self._recorded: set[str] = set()
        self._trace_roots: set[str] = set()

    async def before_runs(self, items: Sequence[InboxItem], locks: RunLocks) -> None:
        """Give every event its id, or the id it got when it was recorded before."""
        for item in items:
            try:
                self._events[item] = self._accept(item, item.message)
            except InvalidInput as error:
                item.error = error
                continue
            if item.message.origin is not None:
                locks.tasks.add(item.message.origin)
                locks.publishers.add(item.message.origin)
        requests = [item for item in self._events if item.message.request is not None]
        if requests:
            await self._claim_requests(requests)
        # Only now, or a command that is refused would keep others from using its keys.
        for item in self._events:
            for key, event_id in zip(item.message.keys, item.ids, strict=True):
                if key is not None:
                    self._claims.setdefault(key, event_id)
        if self._claims:
            await self._claim()
        # A transaction that broke may have recorded events without a key all the same.
        tried = [event_id for item in self._events if item.tried for event_id in item.ids]
        if tried:
            rows = await self._transaction.fetch("find_recorded_events", tried)
            self._recorded = {str(row["event_id"]) for row in rows}

    def _accept(self, item: InboxItem, command: RecordEvents) -> list[LoggedEvent]:
        """Return the events of a command, checked, encoded, and with ids of their own.

        Raises:
            InvalidInput: An event or a key is too large.
        """
        item.ids = item.ids or [self._context.new_event_id() for _ in command.events]
        events = []
        for posted, event_id in zip(command.events, item.ids, strict=True):
            trace: str | None = posted.trace or item.trace
            if trace is None and self._context.tracing.on:
                trace = self._context.tracing.begin(None)
                self._trace_roots.add(event_id)
            info = EventInfo(
                event_id,
                posted.dataset,
                posted.extra,
                None if posted.partition is None else printable(posted.partition),
                posted.time or self._uow.now,
                command.source,
                trace=trace,
            )
            event = new_event(info, command.origin, now=self._uow.now, accepted_at=item.arrived_at)
            size = len(event.encoded)
            if size > MAX_EVENT_BYTES:
                raise InvalidInput(
                    f"an event of {size} bytes is larger than {MAX_EVENT_BYTES}: "
                    "store the data elsewhere and send where it is"
                )
            events.append(event)
        for key in command.keys:
            if key is not None:
                check_key(key)
        return events

    async def _claim_requests(self, items: Sequence[InboxItem]) -> None:
        """Claim the keys of requests; refuse those that had another body the first time."""
        claims: dict[str, tuple[str, bytes]] = {}
        for item in items:
            request: RequestKey = item.message.request
            claims.setdefault(request.key, (item.ids[0], request.digest))
        await self._transaction.write(
            "claim_requests", [(key, *claim) for key, claim in claims.items()]
        )
        rows = await self._transaction.fetch("find_requests", sorted(claims))
        first = {row["key"]: row["body"] for row in rows}
        for item in items:
            request = item.message.request
            if first[request.key] != request.digest:
                del self._events[item]
                item.error = InvalidInput(ANOTHER_BODY)

    async def _claim(self) -> None:
        """Claim keys; put the first event's id in place of the new one where a key is taken."""
        free = await self._transaction.fetch_rows(
            "claim_idempotency_keys", list(self._claims.items())
        )
        taken = sorted(self._claims.keys() - {row["key"] for row in free})
        if taken:
            rows = await self._transaction.fetch("find_idempotency_keys", taken)
            self._claims.update((row["key"], str(row["event_id"])) for row in rows)

    def apply(self, item: InboxItem) -> None:
        """Take the events that are new; a refused one from the bus becomes a dead letter."""
        if item not in self._events:
            if item.subject:
                self._uow.outbox.dead_letters.append(_dead_letter(item))
            return
        item.answer = []
        for event, key in zip(self._events[item], item.message.keys, strict=True):
            first = event.info.event_id if key is None else self._claims[key]
            duplicate = first != event.info.event_id
            item.answer.append(RecordedEvent(first, duplicate=duplicate))
            if duplicate or first in self._recorded:
                continue
            if item.message.origin is not None:
                _attribute(event, self._context.publishers[item.message.origin])
            if first in self._trace_roots:
                self._uow.outbox.trace_roots.append(event)
            self._uow.log.undecided.append(event)


def _dead_letter(item: InboxItem) -> DeadLetter:
    if isinstance(item.received, FiredMessage):
        (event,), (key,) = item.message.events, item.message.keys
        return dead_event(event, key, item.received.trigger, str(item.error))
    return DeadLetter(item.dead_letter_kind, item.subject, None, item.payload, str(item.error))


def dead_event(event: NewEvent, key: str, trigger: int, reason: str) -> DeadLetter:
    """Return the dead letter of an event of a watched dataset; sent again it becomes an event."""
    # Its watch has gone on: sent again as it came, it would be a duplicate.
    subject = Subjects.inbound(Subjects.EVENT, trigger)
    return DeadLetter(DEAD_LETTER_KIND, subject, None, structured_event(event, key), reason)


def _attribute(event: LoggedEvent, publisher: PublishingTask) -> None:
    """Name the task that published an event."""
    event.info = replace(
        event.info,
        run_id=publisher.run_id,
        dag_id=publisher.dag_id,
        task_id=publisher.task_id,
    )
    event.encoded = encode(event.info)
    event.ancestry = publisher.ancestry
