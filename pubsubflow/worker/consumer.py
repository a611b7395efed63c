"""The task consumer: pulls the messages of one queue and kind as slots become free."""

from collections.abc import Callable

import msgspec
import structlog

from pubsubflow.bus import STREAM_TASK, Bus, Delivery, PullConsumer
from pubsubflow.worker.assignment import TaskHeader, decode_header
from pubsubflow.worker.settings import WorkerSettings

log = structlog.get_logger(__name__)


class TaskConsumer:
    """Pulls task messages, as many as there are slots for.

    Args:
        bus: The connection.
        settings: The worker's.
        queue: Name of the workers' queue.
        kind: `sync` or `async`.
        capacity: How many messages the worker may hold at once.
        on_task: Called with each message.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        settings: WorkerSettings,
        queue: str,
        kind: str,
        capacity: int,
        on_task: Callable[["TaskConsumer", TaskHeader, Delivery], None],
    ) -> None:
        self._suspect_before = 0.0
        self._on_task = on_task
        self._withheld_credit = 0
        self.puller = PullConsumer(
            bus,
            stream=STREAM_TASK,
            durable=f"{queue}-{kind}",
            filter_subject=f"psf.task.{queue}.{kind}.>",
            deliver=self._deliver,
            ack_wait_seconds=settings.ack_wait_seconds,
        )
        self.puller.credit(capacity)

    def on_finished(self) -> None:
        """Request another message in place of one that is finished."""
        withheld, self._withheld_credit = self._withheld_credit, 0
        self.puller.credit(1 + withheld)

    def on_returned(self) -> None:
        """Withhold the credit of a message that was returned for lack of a free process.

        With the credit the server would deliver the same message here again at once.
        """
        self._withheld_credit += 1

    def suspect_redelivery(self, moment: float) -> None:
        """Treat all messages that were stored before a moment as redelivered.

        Args:
            moment: Seconds since 1970.
        """
        self._suspect_before = moment

    def is_redelivered(self, delivery: Delivery) -> bool:
        """Return whether a worker may have had this message before."""
        if delivery.attempts > 1:
            return True
        if not self._suspect_before:
            return False
        suspect = delivery.timestamp.timestamp() < self._suspect_before
        if not suspect:
            # Messages come in stream order: all that follow are newer as well.
            self._suspect_before = 0.0
        return suspect

    def _deliver(self, delivery: Delivery) -> None:
        try:
            header = decode_header(delivery.data)
        except msgspec.DecodeError as error:
            log.error(  # noqa: TRY400 - the error says all, a traceback adds nothing
                "worker.message_rejected", subject=delivery.subject, error=str(error)
            )
            delivery.term()
            self.on_finished()
        else:
            self._on_task(self, header, delivery)
