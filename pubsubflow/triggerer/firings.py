"""The firing publisher: publishes each event of a trigger until a manager has committed it."""

import time
from collections.abc import Callable, Iterable
from itertools import count

import anyio
import structlog
from anyio.abc import TaskStatus
from msgspec.structs import replace

from pubsubflow.bus import Bus, Message
from pubsubflow.errors import BusUnavailable, MessageRefused
from pubsubflow.model.wire.messages import FiredMessage, encode
from pubsubflow.model.wire.protocol import PROTOCOL_HEADER, REJECTED
from pubsubflow.model.wire.subjects import Subjects

log = structlog.get_logger(__name__)

_FIRST_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 30.0
_TICK_SECONDS = 0.25
_REJECTED_HEADERS = {PROTOCOL_HEADER: str(REJECTED)}


class _Pending:
    """A firing that no manager has committed yet.

    Attributes:
        ended: Its wait has ended, so that there may be no reply.
    """

    __slots__ = ("due", "ended", "message", "pause")

    def __init__(self, message: FiredMessage, due: float) -> None:
        self.message = message
        self.due = due
        self.pause = _FIRST_RETRY_SECONDS
        self.ended = False


class FiringPublisher:
    """Publishes firings at least once, with at most one pending for each trigger.

    Args:
        bus: The connection.
        name: Name of the triggerer.
        on_committed: Called with a message that a manager has committed.
        on_refused: Called with a message that can never be published, and the reason.
        on_dropped: Called with a message whose wait has ended without a reply.
        clock: Seconds.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        *,
        on_committed: Callable[[FiredMessage], None],
        on_refused: Callable[[FiredMessage, str], None],
        on_dropped: Callable[[FiredMessage], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._name = name
        self._on_committed = on_committed
        self._on_refused = on_refused
        self._on_dropped = on_dropped
        self._clock = clock
        self._inbox = bus.client.new_inbox() + "."
        self._pending: dict[int, _Pending] = {}
        self._message_ids = count(1)
        self._some = anyio.Event()
        self._none = anyio.Event()

    def __contains__(self, trigger_id: int) -> bool:
        """Return whether an event of a trigger is pending."""
        return trigger_id in self._pending

    def publish(self, message: FiredMessage) -> None:
        """Publish an event, again and again until it is committed."""
        message = replace(message, reply=f"{self._inbox}{message.trigger}")
        pending = _Pending(message, self._clock() + _FIRST_RETRY_SECONDS)
        self._pending[message.trigger] = pending
        self._some.set()
        self._publish(pending)

    def forget(self, trigger_ids: Iterable[int]) -> None:
        """Stop publishing the events of some triggers."""
        for trigger_id in trigger_ids:
            self._pending.pop(trigger_id, None)
        self._check_none()

    def await_briefly(self, trigger_ids: Iterable[int]) -> set[int]:
        """Wait for the replies of some triggers for one more second; return those pending.

        Their waits have ended, most likely because a manager has committed the event and its
        reply is still on the way.
        """
        found = {trigger_id for trigger_id in trigger_ids if trigger_id in self._pending}
        last = self._clock() + _FIRST_RETRY_SECONDS
        for trigger_id in found:
            pending = self._pending[trigger_id]
            pending.ended, pending.due = True, min(pending.due, last)
        return found

    async def wait_none(self) -> None:
        """Wait until no event is pending."""
        while self._pending:
            self._none = anyio.Event()
            await self._none.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Receive replies, and publish again what has none, until cancelled."""
        async with await self._bus.subscribe(self._inbox + "*", self._on_reply):
            task_status.started()
            while True:
                if not self._pending:
                    self._some = anyio.Event()
                    await self._some.wait()
                await anyio.sleep(_TICK_SECONDS)
                self._retry()

    def _retry(self) -> None:
        now = self._clock()
        for pending in [each for each in self._pending.values() if each.due <= now]:
            if pending.ended:
                self.forget([pending.message.trigger])
                self._on_dropped(pending.message)
                continue
            pending.pause = min(pending.pause * 2, _MAX_RETRY_SECONDS)
            pending.due = now + pending.pause
            self._publish(pending)

    def _publish(self, pending: _Pending) -> None:
        message = pending.message
        # A new id each time: JetStream would drop what it has seen, and the manager may not have.
        message_id = f"{self._name}.f{next(self._message_ids)}"
        run = message.trigger if message.run < 0 else message.run
        try:
            self._bus.publish_durable_nowait(
                Subjects.inbound(Subjects.FIRED, run),
                encode(message),
                message_id=message_id,
                on_done=_ignore_stored,
                on_refused=lambda error: self._refuse(message, error),
                headers=None if message.rejected is None else _REJECTED_HEADERS,
            )
        except MessageRefused as error:
            self._refuse(message, error)
        except BusUnavailable as error:
            log.debug("triggerer.firing_postponed", trigger=message.trigger, reason=str(error))

    def _refuse(self, message: FiredMessage, error: MessageRefused) -> None:
        pending = self._pending.get(message.trigger)
        if message.error is not None:
            # A message with an error is the smallest there is: it stays pending.
            log.error("triggerer.failure_refused", trigger=message.trigger, reason=str(error))
        elif pending is not None and pending.message is message:
            self.forget([message.trigger])
            self._on_refused(message, str(error))

    def _on_reply(self, message: Message) -> None:
        trigger_id = int(message.subject.rpartition(".")[2])
        pending = self._pending.pop(trigger_id, None)
        if pending is not None:
            self._check_none()
            self._on_committed(pending.message)

    def _check_none(self) -> None:
        if not self._pending:
            self._none.set()


def _ignore_stored() -> None:
    """Ignore that JetStream has stored a message: only a manager's commit ends a firing."""
