"""Deferrals: what a task waits for, and how it goes on."""

from datetime import UTC, datetime
from typing import Any

import pendulum
from airflow.sdk.serde import deserialize, serialize

from pubsubflow.airflow.protocol import AirflowOrder, Deferral

# Waits for time alone need no process: they become timers of ours.
_CLOCKS = frozenset(
    {
        "airflow.providers.standard.triggers.temporal.DateTimeTrigger",
        "airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
    }
)


def deferral_of(outcome: Any, order: AirflowOrder) -> Deferral:  # noqa: ARG001
    """Return what a task waits for, from the message that says so."""
    if type(outcome).__name__ == "RescheduleTask":
        return Deferral(until=outcome.reschedule_date.timestamp(), reschedule=True)
    timeout = outcome.trigger_timeout
    kwargs = outcome.trigger_kwargs
    if isinstance(kwargs, str):
        raise TypeError("the trigger's arguments are encrypted, which is not supported")
    found = Deferral(
        classpath=outcome.classpath,
        kwargs=dict(kwargs or {}),
        timeout=None if timeout is None else timeout.total_seconds(),
        next_method=outcome.next_method,
        next_kwargs=dict(outcome.next_kwargs or {}),
    )
    return _by_clock(found) if outcome.classpath in _CLOCKS else found


def _by_clock(found: Deferral) -> Deferral:
    moment = deserialize(found.kwargs.get("moment"))
    if not isinstance(moment, datetime):
        return found
    return Deferral(
        classpath=found.classpath,
        timeout=found.timeout,
        next_method=found.next_method,
        next_kwargs=found.next_kwargs,
        until=moment.timestamp(),
        ends=bool(found.kwargs.get("end_from_trigger")),
    )


def resumed_with(order: AirflowOrder) -> tuple[str | None, dict[str, Any] | None]:
    """Return the method with which a task goes on, and its arguments as the SDK expects them."""
    if order.next_method is None or order.moment is None:
        return order.next_method, order.next_kwargs
    moment = serialize(pendulum.instance(order.moment.astimezone(UTC)))
    return order.next_method, {**(order.next_kwargs or {}), "event": moment}
