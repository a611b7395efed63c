"""Approvals in a task: the question, the escalation, the answer."""

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from pubsubflow.authoring.param import Param
from pubsubflow.authoring.params_schema import params_schema
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.authoring.validation import Seconds, positive_seconds
from pubsubflow.model.wire.approvals import ApprovalSpec

_WHO = re.compile(r"role:(viewer|operator|admin)|user:[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_WHAT = "ctx.approve()"
MAX_TITLE_CHARACTERS = 200
Form = type[Struct] | Mapping[str, Any]


class Escalate(Struct, frozen=True):
    """Put the question to more people when no answer has come for a while.

    Attributes:
        after: A timedelta, or seconds.
        by: Who may answer as well from then on.
    """

    after: Seconds
    by: tuple[str, ...]


class ApprovalRequest(Struct, frozen=True):
    """An approval as `notify` gets it.

    Attributes:
        id: Its id, for `pubsubflow approvals answer ID`.
        escalated: Whether more people may answer than at first.
    """

    id: str
    title: str
    options: tuple[str, ...]
    by: tuple[str, ...]
    details: str | None = None
    escalated: bool = False


class ApprovalAnswer(Struct, frozen=True):
    """The answer to an approval.

    Attributes:
        option: The option that was chosen.
        values: What was filled into the form, as its type.
        people: Who has chosen it; empty when the time was over.
        comments: Person → comment.
    """

    option: str
    values: Any = None
    people: tuple[str, ...] = ()
    comments: dict[str, str] = {}


def approval_spec(
    title: str,
    options: Sequence[str],
    form: Form | None,
    by: Sequence[str],
    quorum: int,
    details: str | None,
) -> ApprovalSpec:
    """Return the question of an approval, without an id.

    Raises:
        DefinitionError: An argument is invalid.
    """
    if not isinstance(title, str) or not 0 < len(title) <= MAX_TITLE_CHARACTERS:
        raise definition_error(
            f"{_WHAT} needs a question of 1 to {MAX_TITLE_CHARACTERS} characters, not {title!r}"
        )
    if isinstance(options, str) or len(set(options)) != len(options) or not options:
        raise definition_error(f"{_WHAT}: options={options!r} must be different texts")
    people = check_people(by)
    if isinstance(quorum, bool) or not isinstance(quorum, int) or quorum < 1:
        raise definition_error(f"{_WHAT}: quorum={quorum!r} must be a whole number from 1")
    if all(each.startswith("user:") for each in people) and len(set(people)) < quorum:
        raise definition_error(f"{_WHAT}: quorum={quorum} needs more people than by={people!r}")
    schema, defaults = _form(form)
    return ApprovalSpec("", title, tuple(options), people, quorum, schema, defaults, details)


def check_people(by: Sequence[str]) -> tuple[str, ...]:
    """Return who may answer.

    Raises:
        DefinitionError: An entry is neither a role nor a user.
    """
    people = (by,) if isinstance(by, str) else tuple(by)
    for each in people:
        if not isinstance(each, str) or not _WHO.fullmatch(each):
            raise definition_error(
                f"{_WHAT}: by={each!r} must be 'role:operator' or another role, or "
                "'user:<name of a token>'"
            )
    if not people:
        raise definition_error(f"{_WHAT}: by=() lists no one; name a role or a user")
    return people


def escalation(given: Escalate | None, limit: float | None) -> tuple[float, tuple[str, ...]] | None:
    """Return after how many seconds who else may answer; None for never.

    Raises:
        DefinitionError: It is not an Escalate, or an argument of it is invalid.
    """
    if given is None:
        return None
    if not isinstance(given, Escalate):
        raise definition_error(f"{_WHAT}: escalate= takes Escalate(after=…, by=…), not {given!r}")
    try:
        after = positive_seconds(given.after)
    except (TypeError, ValueError) as error:
        raise definition_error(f"{_WHAT}: Escalate(after={given.after!r}) {error}") from None
    if limit is not None and after >= limit:
        raise definition_error(
            f"{_WHAT}: the timeout of {timedelta(seconds=limit)} comes before the escalation"
        )
    return after, check_people(given.by)


def answer_of(extra: Mapping[str, Any], form: Form | None) -> ApprovalAnswer:
    """Return the answer that an event brings, with the values as the form's type."""
    values: Any = extra["values"]
    if isinstance(form, type):
        values = msgspec.convert(values, form)
    return ApprovalAnswer(
        extra["option"], values, tuple(extra["people"]), dict(extra.get("comments", {}))
    )


def new_approval_id() -> str:
    """Return the id of an approval."""
    return str(uuid.uuid4())


Notify = Callable[[ApprovalRequest], object]


def _form(form: Form | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the JSON Schema of a form, and its defaults."""
    if form is None:
        return None, {}
    if isinstance(form, type) and issubclass(form, Struct):
        fields = msgspec.structs.fields(form)
        defaults = {each.encode_name: _default(each) for each in fields if not each.required}
        return params_schema(form), msgspec.to_builtins(defaults)
    if not isinstance(form, Mapping) or not all(isinstance(each, Param) for each in form.values()):
        raise definition_error(f"{_WHAT}: form= takes a Struct type or a mapping of Params")
    given = {name: each.default for name, each in form.items() if each.default is not NODEFAULT}
    return {
        "type": "object",
        "properties": {name: each.schema for name, each in form.items()},
        "required": [name for name in form if name not in given],
    }, given


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default is not NODEFAULT else field.default_factory()
