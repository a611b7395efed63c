"""Errors of triggers are stored for lists, with their first moment, and logged when they change."""

from collections.abc import Callable

import structlog

from pubsubflow.model.wire.messages import TaskError
from pubsubflow.redaction import redact
from pubsubflow.triggerer.leased import ActiveTrigger

log = structlog.get_logger(__name__)


class TriggerErrors:
    """The errors of the triggers that a triggerer runs.

    Args:
        store: Stores the error of a trigger, soon; None for a trigger that runs well.
    """

    def __init__(self, store: Callable[[int, str | None], None]) -> None:
        self._store = store

    def record(self, trigger: ActiveTrigger, error: str | None) -> bool:
        """Store an error, or that there is none; return whether that is a change."""
        # Those who may only read see it, and drivers quote URLs with passwords.
        text = None if error is None else redact(error)
        if text == trigger.error:
            return False
        trigger.error = text
        self._store(trigger.lease.number, text)
        return True

    def on_trouble(self, trigger: ActiveTrigger, error: str | None) -> None:
        """Store and log that a trigger cannot see its source, or that it can again."""
        if not self.record(trigger, error):
            return
        name, trigger_id = trigger.lease.name, trigger.lease.number
        if error is None:
            log.info("trigger.source_back", trigger=name, trigger_id=trigger_id)
        else:
            log.warning("trigger.source_away", trigger=name, trigger_id=trigger_id, error=error)

    def on_failed_watch(self, trigger: ActiveTrigger, error: TaskError, seconds: float) -> None:
        """Store and log that a watch failed, and is started again after so many seconds."""
        text = f"{error.type}: {error.message}"
        if self.record(trigger, text):
            log.warning(
                "trigger.watch_failed",
                trigger=trigger.lease.name,
                trigger_id=trigger.lease.number,
                error=text,
                again_in_seconds=seconds,
                traceback=error.traceback or None,
            )
