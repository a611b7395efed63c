"""Waits of Airflow's tasks: a deferral waits on our side, and says how the task goes on."""

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from pubsubflow.airflow.outside.people import answer_of_people
from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.outside.triggers import AirflowTrigger
from pubsubflow.airflow.protocol import AttemptReport, Deferral
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.errors import TriggerError, WaitTimeout

_FAIL = "__fail__"


class Resumption(Struct, frozen=True):
    """How a task goes on after a wait.

    Attributes:
        moment: Of a wait for time, its end; of one for people, when they answered.
        looks: How often a sensor was rescheduled; `first_look` is when it began.
        pushed: What it had pushed before.
        report: The end of the task, when the wait has ended it.
        answer: Of people.
    """

    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None
    moment: datetime | None = None
    looks: int = 0
    first_look: datetime | None = None
    pushed: dict[str, Any] = {}
    report: AttemptReport | None = None
    answer: dict[str, Any] | None = None


async def wait_for(
    ctx: Context,
    place: BundlePlace,
    deferral: Deferral,
    before: Resumption,
    pushed: dict[str, Any],
) -> Resumption:
    """Wait for what a task was deferred for, and return how it goes on.

    Args:
        ctx: The task's.
        place: Of its file.
        deferral: What it waits for.
        before: How it had gone on before.
        pushed: What it has pushed so far.
    """
    if deferral.question is not None:
        answer = await answer_of_people(ctx, deferral.question, deferral.timeout)
        return Resumption(
            deferral.next_method, deferral.next_kwargs, ctx.now(), pushed=pushed, answer=answer
        )
    if deferral.until is None:
        return await _wait_for_trigger(ctx, place, deferral, pushed)
    await ctx.sleep(max(deferral.until - ctx.now().timestamp(), 0.0))
    if deferral.reschedule:
        first = before.first_look or ctx.run.created_at
        return Resumption(looks=before.looks + 1, first_look=first, pushed=pushed)
    if deferral.ends:
        return Resumption(report=AttemptReport("success", pushed=pushed))
    return Resumption(
        deferral.next_method,
        deferral.next_kwargs,
        datetime.fromtimestamp(deferral.until, UTC),
        pushed=pushed,
    )


async def _wait_for_trigger(
    ctx: Context, place: BundlePlace, deferral: Deferral, pushed: dict[str, Any]
) -> Resumption:
    trigger = AirflowTrigger(
        bundle=place.bundle,
        root=place.root,
        classpath=deferral.classpath,
        kwargs=deferral.kwargs,
    )
    name = deferral.classpath.rpartition(".")[2][:100]
    kwargs = dict(deferral.next_kwargs or {})
    try:
        event = await ctx.wait(trigger, timeout=deferral.timeout, name=name)
    except WaitTimeout:
        return Resumption(_FAIL, {"error": "Trigger timeout"}, pushed=pushed)
    except TriggerError as error:
        lines = [*str(error).splitlines(keepends=True), *getattr(error, "__notes__", ())]
        failure = {"error": "Trigger failure", "traceback": lines}
        return Resumption(_FAIL, failure, pushed=pushed)
    found: dict[str, Any] = {} if isinstance(event, DatasetEvent) else dict(event.payload)
    if found.get("ends"):
        left = {**pushed, **found.get("pushed", {})}
        value = left.pop("return_value", None)
        state = str(found["ends"])
        return Resumption(
            report=AttemptReport(
                state, value, left, error_type="TriggerError", error_message=f"the trigger: {state}"
            )
        )
    return Resumption(
        deferral.next_method, {**kwargs, "event": found.get("payload")}, pushed=pushed
    )
