"""The task consumer pulls the messages of a queue as slots become free; direct ones come apart."""

import asyncio
from collections.abc import Callable
from functools import partial

from pubsubflow.bus import STREAM_TASK, Bus, Delivery, PullConsumer
from pubsubflow.worker.assignment import Engine
from pubsubflow.worker.settings import WorkerSettings

_WITHHELD_SECONDS = 5.0


class TaskConsumer:
    """Pulls task messages, as many as there are slots for.

    Args:
        bus: The connection.
        settings: The worker's.
        durable: Name of the consumer.
        filter_subject: Subjects of its messages.
        engine: What runs the tasks; its capacity is how many the worker may hold at once.
        on_task: Called with each message.

    Attributes:
        engine: What runs the tasks.
        suspects: Whether messages may come that a worker has had although their delivery is
            counted as the first.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        settings: WorkerSettings,
        durable: str,
        filter_subject: str,
        engine: Engine,
        on_task: Callable[["TaskConsumer", Delivery], None],
    ) -> None:
        self.engine = engine
        self.suspects = False
        self._suspect_before = 0.0
        self._withheld_credit = 0
        self.puller = PullConsumer(
            bus,
            stream=STREAM_TASK,
            durable=durable,
            filter_subject=filter_subject,
            deliver=partial(on_task, self),
            ack_wait_seconds=settings.ack_wait_seconds,
        )
        self.puller.credit(engine.capacity)

    def on_finished(self) -> None:
        """Request another message in place of one that is finished."""
        withheld, self._withheld_credit = self._withheld_credit, 0
        self.puller.credit(1 + withheld)

    def on_returned(self) -> None:
        """Withhold the credit of a message that was returned for lack of a free process.

        With the credit the server would deliver the same message here again at once.
        """
        # Whatever finishes brings it back; but where no process could be forked, nothing ever does.
        if not self._withheld_credit:
            asyncio.get_running_loop().call_later(_WITHHELD_SECONDS, self._bring_back)
        self._withheld_credit += 1

    def _bring_back(self) -> None:
        withheld, self._withheld_credit = self._withheld_credit, 0
        if withheld:
            self.puller.credit(withheld)

    def suspect_redelivery(self, moment: float) -> None:
        """Treat all messages that were stored before a moment as redelivered.

        Args:
            moment: Seconds since 1970.
        """
        self.suspects = True
        self._suspect_before = moment

    def is_suspect(self, delivery: Delivery) -> bool:
        """Return whether a message was stored before the moment of `suspect_redelivery`."""
        # Messages come in stream order: all that follow a newer one are newer as well.
        self.suspects = delivery.timestamp.timestamp() < self._suspect_before
        return self.suspects


class DirectDelivery(Delivery):
    """An order that the manager of this daemon hands over: no message has to be acknowledged.

    Args:
        subject: The subject under which the bus would carry it.
        data: The encoded `TaskMessage`.
        give_back: Has the manager hand the task out again.
    """

    __slots__ = ("_give_back",)

    def __init__(self, subject: str, data: bytes, give_back: Callable[[], None]) -> None:
        self.subject, self.data = subject, data
        self._give_back = give_back
        self._header, self._stored_at = b"", b"0"
        self.again, self.attempts, self.stream_seq = False, 1, 0

    def ack(self) -> None:
        """Do nothing."""

    def term(self) -> None:
        """Do nothing."""

    def in_progress(self) -> None:
        """Do nothing: the worker's heartbeat covers it."""

    def nak(self, delay_seconds: float | None = None) -> None:
        """Give the task back, at once or after a delay."""
        if delay_seconds is None:
            self._give_back()
        else:
            asyncio.get_running_loop().call_later(delay_seconds, self._give_back)
