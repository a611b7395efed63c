"""Deferrals: what a task waits for, and how it goes on."""

from datetime import UTC, datetime
from typing import Any

import pendulum
from airflow.sdk.serde import deserialize, serialize

from pubsubflow.airflow.protocol import AirflowOrder, Deferral, HumanQuestion

# Waits for time alone need no process: they become timers of ours.
_CLOCKS = frozenset(
    {
        "airflow.providers.standard.triggers.temporal.DateTimeTrigger",
        "airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
    }
)


# Until 3.2 a trigger looks for an answer in the database; later ones have a message for it.
_PEOPLE = "airflow.providers.standard.triggers.hitl.HITLTrigger"


def deferral_of(outcome: Any, question: HumanQuestion | None = None) -> Deferral:
    """Return what a task waits for, from the message that says so.

    Args:
        outcome: The message.
        question: The question to people that came before it.
    """
    kind = type(outcome).__name__
    if kind == "RescheduleTask":
        return Deferral(until=outcome.reschedule_date.timestamp(), reschedule=True)
    if kind == "AwaitInputTask" or (question is not None and outcome.classpath == _PEOPLE):
        return _for_people(outcome, question)
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


def _for_people(outcome: Any, question: HumanQuestion | None) -> Deferral:
    timeout = getattr(outcome, "timeout", None)
    moment = deserialize((getattr(outcome, "trigger_kwargs", None) or {}).get("timeout_datetime"))
    if isinstance(moment, datetime):
        timeout = moment - datetime.now(UTC)
    return Deferral(
        timeout=None if timeout is None else max(timeout.total_seconds(), 0.001),
        next_method=outcome.next_method,
        next_kwargs=dict(outcome.next_kwargs or {}),
        question=question or HumanQuestion("Go on?", ("OK",)),
    )


def _by_clock(found: Deferral) -> Deferral:
    moment = deserialize(found.kwargs.get("moment"))
    if not isinstance(moment, datetime):
        return found
    over = None if found.timeout is None else datetime.now(UTC).timestamp() + found.timeout
    if over is not None and over < moment.timestamp():
        return Deferral(until=over, expires=True)
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
    moment = pendulum.instance(order.moment.astimezone(UTC))
    event = moment if order.answer is None else {**order.answer, "responded_at": moment}
    return order.next_method, {**(order.next_kwargs or {}), "event": serialize(event)}
