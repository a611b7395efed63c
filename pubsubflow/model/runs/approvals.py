"""Rules of approvals: who may answer a question, and when enough people have.

See `model.wire.approvals` for what an approval is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from pubsubflow.errors import InvalidInput
from pubsubflow.model.runs.params import validate_params
from pubsubflow.model.spec import DagSpec
from pubsubflow.model.wire.approvals import ANSWERS, SOURCE, ApprovalSpec, Vote
from pubsubflow.model.wire.messages import EventInfo

_ROLES = {"admin": 3, "operator": 2, "viewer": 1}
_NO_FORM: dict[str, Any] = {"type": "object", "properties": {}, "required": []}


class ApprovalClosed(InvalidInput):
    """The approval is decided, or this person has answered it."""


class NotEntitled(InvalidInput):
    """The person may not answer."""


def may_answer(spec: ApprovalSpec, person: str, role: str) -> bool:
    """Whether a person may answer."""
    for each in spec.by:
        kind, _, name = each.partition(":")
        if kind == "user" and name == person:
            return True
        if kind == "role" and _ROLES.get(role, 0) >= _ROLES.get(name, 9):
            return True
    return False


def check_vote(spec: ApprovalSpec, vote: Vote, earlier: Sequence[Vote]) -> Vote:
    """Return a vote with the defaults of the form.

    Args:
        spec: The question.
        vote: The vote.
        earlier: Those before it.

    Raises:
        NotEntitled: The person may not answer.
        ApprovalClosed: It is decided, or the person has answered.
        InvalidInput: The option is unknown, or the values do not fit the form.
    """
    if not may_answer(spec, vote.person, vote.role):
        raise NotEntitled(f"{vote.person} may not answer {spec.title!r}, only {', '.join(spec.by)}")
    chosen = decided_option(spec, earlier)
    if chosen is not None:
        raise ApprovalClosed(
            f"{spec.title!r} was answered already: {chosen!r} by {_people(earlier)}"
        )
    if any(each.person == vote.person for each in earlier):
        raise ApprovalClosed(f"{vote.person} has answered {spec.title!r} already: others must, too")
    if vote.option not in spec.options:
        raise InvalidInput(f"{vote.option!r} is not an option: answer {' or '.join(spec.options)}")
    return msgspec.structs.replace(vote, values=_checked_values(spec, vote.values))


def decided_option(spec: ApprovalSpec, votes: Iterable[Vote]) -> str | None:
    """Return the option that enough persons have chosen; None if there is none yet."""
    persons = {vote.person: vote.option for vote in votes}
    for option, count in Counter(persons.values()).items():
        if count >= spec.quorum:
            return option
    return None


def decision(spec: ApprovalSpec, votes: Sequence[Vote], **about: Any) -> dict[str, Any]:
    """Return the extra of the event that ends a decided approval."""
    option = decided_option(spec, votes)
    deciding = [vote for vote in votes if vote.option == option]
    return {
        "approval": str(UUID(spec.id)),
        "title": spec.title,
        "option": option,
        "values": deciding[-1].values if deciding else {},
        "people": [vote.person for vote in deciding],
        "comments": {vote.person: vote.comment for vote in votes if vote.comment},
        **about,
    }


def given_answer(spec: ApprovalSpec, given: str | Mapping[str, Any], now: Any) -> EventInfo:
    """Return the event of an answer that a test gives.

    Args:
        spec: The question.
        given: The option, or a mapping with `option` and `values`.
        now: The time.

    Raises:
        InvalidInput: The option is unknown, or the values do not fit the form.
    """
    wanted: dict[str, Any] = {"option": given} if isinstance(given, str) else dict(given)
    vote = Vote(
        person="test", role="admin", option=wanted["option"], values=wanted.get("values", {})
    )
    alone = msgspec.structs.replace(spec, quorum=1, by=("user:test",))
    extra = decision(alone, [check_vote(alone, vote, ())])
    return EventInfo(spec.id, ANSWERS, extra, None, now, SOURCE)


def _checked_values(spec: ApprovalSpec, values: dict[str, Any]) -> dict[str, Any]:
    name = "form"
    schema = spec.form or _NO_FORM
    form = DagSpec(name, "", "", (), params=spec.defaults, params_schema=schema)
    try:
        return validate_params(form, values)
    except InvalidInput as error:
        text = str(error).replace(f"DAG {name!r}", "the form").replace("param ", "value ")
        raise InvalidInput(text) from error


def _people(votes: Sequence[Vote]) -> str:
    return ", ".join(vote.person for vote in votes)


def is_recorded(votes: Sequence[Vote], vote: Vote) -> bool:
    """Whether a vote is recorded already, by a transaction whose outcome was unknown."""
    return any((each.person, each.option) == (vote.person, vote.option) for each in votes)
