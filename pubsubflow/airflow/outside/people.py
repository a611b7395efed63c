"""Questions of Airflow's tasks to people are approvals of ours."""

import re
from typing import Any

from pubsubflow.airflow.protocol import HumanQuestion
from pubsubflow.authoring.approvals.question import MAX_TITLE_CHARACTERS, ApprovalAnswer
from pubsubflow.authoring.param import Param
from pubsubflow.authoring.runtime.context import Context
from pubsubflow.errors import WaitTimeout

CHOSEN = "_options"
"""The field of the form for several options; Airflow allows no param of this name."""

_ANSWERED = "answer"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


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
