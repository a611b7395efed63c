"""Refusals: what a manager cannot process is kept as a dead letter, apart from its batch."""

import structlog

from pubsubflow.errors import PubsubflowError
from pubsubflow.manager.metrics import ManagerMetrics
from pubsubflow.store.database import Connection, printable, translate_errors
from pubsubflow.store.manager_transaction import ManagerTransaction

log = structlog.get_logger()


async def store_dead_letter(
    connection: Connection,
    letter: tuple[str, str, bytes],
    error: Exception,
    metrics: ManagerMetrics,
) -> None:
    """Store a dead letter.

    Args:
        connection: Not in a transaction.
        letter: Its kind, where it was going, and its payload.
        error: Why it cannot be processed.
        metrics: Counts it.
    """
    kind, subject, payload = letter
    reason = str(error) if isinstance(error, PubsubflowError) else repr(error)
    row = (kind, subject, None, payload, printable(reason))
    with translate_errors():
        await ManagerTransaction(connection).write("record_dead_letters", [row])
    metrics.dead_letter_stored(kind)
    log.error("manager.dead_letter_stored", subject=subject, reason=reason)
