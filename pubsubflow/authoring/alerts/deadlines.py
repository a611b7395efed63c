"""Deadlines of the runs of a DAG."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pubsubflow.authoring.alerts.callbacks import Callback, callback_name, callbacks
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import positive_seconds
from pubsubflow.model.alerts import DeadlineSpec

_MOMENTS = ("queued", "logical_time")


class Deadline:
    """A moment by which a run is to have ended; when it passes, an alert opens.

    Args:
        after: How long after `since`.
        since: `queued`: the run was made; `logical_time`: its tick; or a datetime.
        notify: A function `(ctx)`, a notifier, or a list of these.

    Raises:
        DefinitionError: An argument is invalid.
    """

    def __init__(
        self, *, after: timedelta, since: str | datetime = "queued", notify: Any = ()
    ) -> None:
        try:
            self.after = positive_seconds(after)
            self.notify: tuple[Callback, ...] = callbacks(notify)
        except (TypeError, ValueError) as error:
            raise definition_error(
                f"Deadline: after={after!r}, notify={notify!r}: {error}"
            ) from None
        if isinstance(since, datetime):
            moment = since if since.tzinfo is not None else since.replace(tzinfo=UTC)
            since = moment.isoformat()
        elif since not in _MOMENTS:
            raise definition_error(
                f"Deadline: since={since!r} must be 'queued', 'logical_time', or a datetime"
            )
        self.since = since

    def to_spec(self) -> DeadlineSpec:
        """Return the serialised form."""
        return DeadlineSpec(self.after, self.since, tuple(map(callback_name, self.notify)))


def deadlines(value: object) -> tuple[Deadline, ...]:
    """Return deadlines as they are.

    Raises:
        TypeError: It is something else.
    """
    given = (value,) if isinstance(value, Deadline) else value
    if given is None:
        return ()
    if not isinstance(given, list | tuple) or not all(isinstance(each, Deadline) for each in given):
        raise TypeError("must be a list of Deadline(after=…, since=…, notify=…)")
    return tuple(given)
