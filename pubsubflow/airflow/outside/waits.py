"""Waits of Airflow's tasks: a deferral waits on our side, and says how the task goes on."""

import re
from datetime import UTC, datetime
from typing import Any

import anyio.to_thread
from msgspec import Struct

from pubsubflow.airflow.outside.place import BundlePlace
from pubsubflow.airflow.outside.triggers import AirflowTrigger
from pubsubflow.airflow.protocol import AttemptReport, Deferral, HumanQuestion, RunEnding
from pubsubflow.authoring.approvals.question import MAX_TITLE_CHARACTERS, ApprovalAnswer
from pubsubflow.authoring.param import Param
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.authoring.runtime.dataset_event import DatasetEvent
from pubsubflow.errors import TriggerError, WaitTimeout
from pubsubflow.model.triggers import RunEnded
from pubsubflow.model.wire.task_questions import FindRuns

_FAIL = "__fail__"
_LATE = "Trigger timeout"
CHOSEN = "_options"
"""The field of the form for several options; Airflow allows no param of this name."""

_ANSWERED = "answer"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Resumption(Struct, frozen=True):
    """How a task goes on after a wait.

    Attributes:
        moment: Of a wait for time, its end; of one for people, when they answered.
        looks: How often a sensor was rescheduled; `first_look` is when it began.
        pushed: What it had pushed before.
        report: The end of the task, when the wait has ended it.
        answer: Of people.
        ended_run: Of a wait for a run.
    """

    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None
    moment: datetime | None = None
    looks: int = 0
    first_look: datetime | None = None
    pushed: dict[str, Any] = {}
    report: AttemptReport | None = None
    answer: dict[str, Any] | None = None
    ended_run: RunEnding | None = None


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
        if deferral.run is None:
            ended = _wait_for_trigger(ctx, place, deferral, pushed)
        else:
            ended = _wait_for_run(ctx, deferral, deferral.run, pushed)
        return await ended
    await ctx.sleep(max(deferral.until - ctx.now().timestamp(), 0.0))
    if deferral.reschedule:
        first = before.first_look or ctx.run.created_at
        return Resumption(looks=before.looks + 1, first_look=first, pushed=pushed)
    if deferral.expires:
        return Resumption(_FAIL, {"error": _LATE}, pushed=pushed)
    if deferral.ends:
        return Resumption(report=AttemptReport("success", pushed=pushed))
    return Resumption(
        deferral.next_method,
        deferral.next_kwargs,
        datetime.fromtimestamp(deferral.until, UTC),
        pushed=pushed,
    )


async def _wait_for_run(
    ctx: Context, deferral: Deferral, run: tuple[str, str], pushed: dict[str, Any]
) -> Resumption:
    """Wait for the end of a run, which a change of the store announces."""
    dag_id, named = run
    question = FindRuns(dag_id, run_ids=(named,))
    found = await anyio.to_thread.run_sync(ctx._data.answer, question)  # noqa: SLF001
    # One that was removed since is as one that was never there.
    run_id = found[0].run_id if found else named
    try:
        event = await ctx.wait(
            RunEnded(run_id=run_id), timeout=deferral.timeout, name=f"run of {dag_id}"
        )
    except WaitTimeout:
        return Resumption(_FAIL, {"error": _LATE}, pushed=pushed)
    except TriggerError as error:
        failure = {"error": "Trigger failure", "traceback": [str(error)]}
        return Resumption(_FAIL, failure, pushed=pushed)
    state = str(event.payload["state"])
    ended = RunEnding(
        deferral.classpath, deferral.kwargs, named, "failed" if state == "cancelled" else state
    )
    return Resumption(deferral.next_method, deferral.next_kwargs, pushed=pushed, ended_run=ended)


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
        return Resumption(_FAIL, {"error": _LATE}, pushed=pushed)
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


async def answer_of_people(
    ctx: Context, question: HumanQuestion, limit: float | None
) -> dict[str, Any]:
    """Wait for people, and return their answer as the operators of Airflow take it.

    Args:
        ctx: The task's.
        question: The question; its people may answer, or else all operators.
        limit: Seconds; then its defaults are the answer, or there is an error.
    """
    subject = question.subject.strip() or ctx.task.task_id
    long = len(subject) > MAX_TITLE_CHARACTERS
    details = "\n\n".join(filter(None, (subject if long else None, question.body)))
    named = tuple(f"user:{name}" for name in question.people if _NAME.fullmatch(name))
    try:
        given = await ctx.approve(
            subject[: MAX_TITLE_CHARACTERS - 1] + "…" if long else subject,
            options=(_ANSWERED,) if question.multiple else question.options,
            form=_form(question) or None,
            by=named or ("role:operator",),
            details=details or None,
            timeout=limit,
        )
    except WaitTimeout:
        return _not_answered(question)
    values = dict(given.values or {})
    chosen = values.pop(CHOSEN, []) if question.multiple else [given.option]
    return {
        "chosen_options": chosen,
        "params_input": values,
        "responded_by_user": _user(given),
        "timedout": False,
    }


def _user(given: ApprovalAnswer) -> dict[str, str] | None:
    name = next(iter(given.people), None)
    return None if name is None else {"id": name, "name": name}


def _not_answered(question: HumanQuestion) -> dict[str, Any]:
    if not question.defaults:
        text = "The timeout has passed, and the response has not yet been received."
        return {"error": text, "error_type": "timeout"}
    return {
        "chosen_options": list(question.defaults),
        "params_input": {
            name: each.get("value") for name, each in question.params.items() if _is_param(each)
        },
        "responded_by_user": None,
        "timedout": True,
    }


def _form(question: HumanQuestion) -> dict[str, Param]:
    form: dict[str, Param] = {}
    if question.multiple:
        items = {"enum": list(question.options)}
        form[CHOSEN] = Param(list(question.defaults), type="array", items=items, unique_items=True)
    for name, each in question.params.items():
        form[name] = _param(each)
    return form


def _param(given: Any) -> Param:
    """Return what is to be filled in: its schema is Airflow's, which the SDK checks again."""
    made = Param()
    if not _is_param(given):
        made.default = given
        return made
    made.schema = {
        key: each for key, each in (given.get("schema") or {}).items() if key != "$schema"
    }
    if given.get("description"):
        made.schema.setdefault("description", given["description"])
    if given.get("value") is not None:
        made.default = given["value"]
    elif "null" in made.schema.get("type", ()):
        made.default = None
    return made


def _is_param(given: Any) -> bool:
    return isinstance(given, dict) and "value" in given
