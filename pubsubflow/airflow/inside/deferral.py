"""Deferrals: what a task waits for, and how it goes on."""

from datetime import UTC, datetime
from typing import Any

import pendulum
from airflow.sdk.serde import deserialize, serialize
from msgspec.structs import replace

from pubsubflow.airflow.protocol import AirflowOrder, Deferral, HumanQuestion, RunEnding

# Waits for time alone need no process: they become timers of ours.
_CLOCKS = frozenset(
    {
        "airflow.providers.standard.triggers.temporal.DateTimeTrigger",
        "airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
    }
)


# The end of a run is known here: nothing has to look for it.
_RUN = "airflow.providers.standard.triggers.external_task.DagStateTrigger"

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
    if outcome.classpath == _RUN:
        return _by_run(found)
    return _by_clock(found) if outcome.classpath in _CLOCKS else found


def deferral_at_start(given: Any) -> Deferral:
    """Return what a task waits for that starts with its trigger (`StartTriggerArgs`)."""
    timeout = given.timeout
    found = Deferral(
        classpath=given.trigger_cls,
        kwargs={name: serialize(value) for name, value in (given.trigger_kwargs or {}).items()},
        timeout=None if timeout is None else timeout.total_seconds(),
        next_method=given.next_method,
        next_kwargs={name: serialize(each) for name, each in (given.next_kwargs or {}).items()},
    )
    return _by_clock(found) if given.trigger_cls in _CLOCKS else found


def _by_run(found: Deferral) -> Deferral:
    """Return the wait for a run's end, unless it is for several runs or for a state on the way."""
    kwargs = {name: deserialize(value) for name, value in found.kwargs.items()}
    states = {str(getattr(each, "value", each)) for each in kwargs.get("states") or ()}
    run_ids = list(kwargs.get("run_ids") or ())
    if len(run_ids) != 1 or not states >= {"success", "failed"} or states & {"queued", "running"}:
        return found
    return replace(found, run=(kwargs["dag_id"], run_ids[0]))


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
    if order.ended_run is not None:
        ended = serialize(_end_of_run(order.ended_run))
        return order.next_method, {**(order.next_kwargs or {}), "event": ended}
    if order.next_method is None or order.moment is None:
        return order.next_method, order.next_kwargs
    moment = pendulum.instance(order.moment.astimezone(UTC))
    event = moment if order.answer is None else {**order.answer, "responded_at": moment}
    return order.next_method, {**(order.next_kwargs or {}), "event": serialize(event)}


def _end_of_run(ended: RunEnding) -> tuple[str, dict[str, Any]]:
    """Return the event that Airflow's own trigger has for the end of a run."""
    kwargs = {name: deserialize(value) for name, value in ended.kwargs.items()}
    return ended.classpath, {**kwargs, ended.run_id: ended.state}
