"""Refusals: what a manager cannot process is kept as a dead letter, apart from its batch.

What only a newer version can read is left for a manager of that version.
"""

import structlog

from pubsubflow.bus import Bus
from pubsubflow.errors import NewerFormat, PubsubflowError
from pubsubflow.manager.inbox import InboxItem
from pubsubflow.manager.metrics import ManagerMetrics
from pubsubflow.model.wire.commands import FireTimers
from pubsubflow.model.wire.messages import encode
from pubsubflow.store.batches.manager_transaction import ManagerTransaction
from pubsubflow.store.database import Connection, printable, translate_errors
from pubsubflow.store.named_queries import SQL

log = structlog.get_logger()


class Refusals:
    """Refuses items one by one.

    Args:
        bus: Knows what is left to newer daemons.
        metrics: Counts dead letters.
    """

    def __init__(self, bus: Bus, metrics: ManagerMetrics) -> None:
        self._bus = bus
        self._metrics = metrics

    async def refuse(self, connection: Connection, item: InboxItem, error: Exception) -> bool:
        """Answer the sender of an item; return whether it was a message, now a dead letter.

        A timer becomes one as well, and is deleted, or it would be due for ever.

        Args:
            connection: Not in a transaction.
            item: What cannot be processed; of timers one.
            error: Why.
        """
        if isinstance(error, NewerFormat):
            self._leave(item, error)
            return False
        if not isinstance(item.received, Exception):
            log.error("manager.item_refused", exc_info=error, **item.log_fields())
        if isinstance(item.received, FireTimers):
            for timer in item.received.timers:
                letter = ("message", f"timer.{timer.kind}", encode(timer))
                await self._store(connection, letter, error)
                with translate_errors():
                    await connection.fetch(SQL["claim_timers"], [timer.number])
            item.done(None)
            return False
        if item.subject:
            letter = (item.dead_letter_kind, item.subject, item.payload)
            await self._store(connection, letter, error)
        item.failed(error)
        return bool(item.subject)

    def _leave(self, item: InboxItem, error: NewerFormat) -> None:
        """Return a message to the bus, for a newer manager; fail a caller."""
        subject = item.subject or type(item.received).__name__
        self._bus.left_to_newer.note("stored", str(error), subject=subject)
        if item.later is not None:
            item.later()
        else:
            item.failed(error)

    async def _store(
        self, connection: Connection, letter: tuple[str, str, bytes], error: Exception
    ) -> None:
        """Store a dead letter: its kind, where it was going, and its payload."""
        kind, subject, payload = letter
        reason = str(error) if isinstance(error, PubsubflowError) else repr(error)
        row = (kind, subject, None, payload, printable(reason))
        with translate_errors():
            await ManagerTransaction(connection).write("record_dead_letters", [row])
        self._metrics.dead_letter_stored(kind)
        log.error("manager.dead_letter_stored", subject=subject, reason=reason)
