"""Tells managers what triggers saw, until it is durable."""

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
from pubsubflow.model.wire.subjects import Subjects

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 30.0
_TICK_SECONDS = 0.25


class _Pending:
    """A firing that no manager has confirmed.

    Attributes:
        gone: Its trigger is no more: there may be no answer.
    """

    __slots__ = ("due", "gone", "message", "pause")

    def __init__(self, message: FiredMessage, due: float) -> None:
        self.message = message
        self.due = due
        self.pause = _FIRST_PAUSE_SECONDS
        self.gone = False


class Firings:
    """The firings under way, at most one a trigger.

    Args:
        bus: The connection.
        name: Of the triggerer.
        durable: Called with a message that a manager has committed.
        refused: Called with one that can never be sent, and why.
        dropped: Called with one whose trigger is gone.
        clock: Seconds.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        *,
        durable: Callable[[FiredMessage], None],
        refused: Callable[[FiredMessage, str], None],
        dropped: Callable[[FiredMessage], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._name = name
        self._durable = durable
        self._refused = refused
        self._dropped = dropped
        self._clock = clock
        self._inbox = bus.wire.new_inbox() + "."
        self._pending: dict[int, _Pending] = {}
        self._ids = count(1)
        self._some = anyio.Event()
        self._none = anyio.Event()

    def __contains__(self, number: int) -> bool:
        """Return whether an event of a trigger is under way."""
        return number in self._pending

    def fire(self, message: FiredMessage) -> None:
        """Tell of an event until it is durable."""
        message = replace(message, reply=f"{self._inbox}{message.trigger}")
        pending = _Pending(message, self._clock() + _FIRST_PAUSE_SECONDS)
        self._pending[message.trigger] = pending
        self._some.set()
        self._publish(pending)

    def forget(self, numbers: Iterable[int]) -> None:
        """Tell of these no more."""
        for number in numbers:
            self._pending.pop(number, None)
        self._check_none()

    def relent(self, numbers: Iterable[int]) -> set[int]:
        """Wait for the answer about these for a moment only; return which are under way."""
        found = {number for number in numbers if number in self._pending}
        last = self._clock() + _FIRST_PAUSE_SECONDS
        for number in found:
            pending = self._pending[number]
            pending.gone, pending.due = True, min(pending.due, last)
        return found

    async def wait_none(self) -> None:
        """Return when nothing is under way."""
        while self._pending:
            self._none = anyio.Event()
            await self._none.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Take answers, and tell again what has none, until cancelled."""
        async with await self._bus.subscribe(self._inbox + "*", self._on_answer):
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
            if pending.gone:
                self.forget([pending.message.trigger])
                self._dropped(pending.message)
                continue
            pending.pause = min(pending.pause * 2, _MAX_PAUSE_SECONDS)
            pending.due = now + pending.pause
            self._publish(pending)

    def _publish(self, pending: _Pending) -> None:
        message = pending.message
        # A new id each time: JetStream would drop what it has seen, and the manager may not have.
        message_id = f"{self._name}.f{next(self._ids)}"
        run = message.trigger if message.run < 0 else message.run
        try:
            self._bus.publish_durable_nowait(
                Subjects.inbound(Subjects.FIRED, run),
                encode(message),
                message_id=message_id,
                on_done=_nothing,
                on_refused=lambda error: self._refuse(message, error),
            )
        except MessageRefused as error:
            self._refuse(message, error)
        except BusUnavailable as error:
            log.debug("triggerer.firing_postponed", trigger=message.trigger, reason=str(error))

    def _refuse(self, message: FiredMessage, error: MessageRefused) -> None:
        pending = self._pending.get(message.trigger)
        if message.error is not None:  # nothing smaller can be said: it stays under way
            log.error("triggerer.failure_untold", trigger=message.trigger, reason=str(error))
        elif pending is not None and pending.message is message:
            self.forget([message.trigger])
            self._refused(message, str(error))

    def _on_answer(self, message: Message) -> None:
        number = int(message.subject.rpartition(".")[2])
        pending = self._pending.pop(number, None)
        if pending is not None:
            self._check_none()
            self._durable(pending.message)

    def _check_none(self) -> None:
        if not self._pending:
            self._none.set()


def _nothing() -> None:
    """A stored message is not durable for us: only a manager's commit is."""
