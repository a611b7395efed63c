"""The messages of one queue and kind."""

from collections.abc import Callable

import msgspec
import structlog

from pubsubflow.bus import STREAM_TASK, Bus, Delivery, Puller
from pubsubflow.worker.assignment import TaskHead, decode_head
from pubsubflow.worker.process_pool import Pool
from pubsubflow.worker.settings import WorkerSettings

log = structlog.get_logger(__name__)


class Intake:
    """Takes messages at the pace at which they are done.

    Args:
        bus: The connection.
        settings: The worker's.
        queue: Name of the workers' queue.
        pool: Who runs them; its kind is theirs.
        take: Called with each message.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        settings: WorkerSettings,
        queue: str,
        pool: Pool,
        take: Callable[["Intake", TaskHead, Delivery], None],
    ) -> None:
        self.pool = pool
        self._doubted_before = 0.0
        self._take = take
        self._owed = 0
        self.puller = Puller(
            bus,
            stream=STREAM_TASK,
            durable=f"{queue}-{pool.kind}",
            filter_subject=f"psf.task.{queue}.{pool.kind}.>",
            deliver=self._deliver,
            ack_wait_seconds=settings.ack_wait_seconds,
        )
        self.puller.credit(pool.capacity)

    def done(self) -> None:
        """Ask for another message in place of one that is done."""
        owed, self._owed = self._owed, 0
        self.puller.credit(1 + owed)

    def returned(self) -> None:
        """Note that one was given back for want of room: ask again only when there is room."""
        self._owed += 1

    def doubt(self, moment: float) -> None:
        """Note that the server may not know any more what it delivered before a moment.

        Args:
            moment: Seconds since 1970.
        """
        self._doubted_before = moment

    def doubts(self, delivery: Delivery) -> bool:
        """Whether somebody may have had this message before."""
        if delivery.attempts > 1:
            return True
        if not self._doubted_before:
            return False
        old = delivery.timestamp.timestamp() < self._doubted_before
        if not old:  # they come in order
            self._doubted_before = 0.0
        return old

    def _deliver(self, delivery: Delivery) -> None:
        try:
            head = decode_head(delivery.data)
        except msgspec.DecodeError as error:
            log.error("worker.poison", subject=delivery.subject, error=str(error))  # noqa: TRY400
            delivery.term()
            self.done()
        else:
            self._take(self, head, delivery)
