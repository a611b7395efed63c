"""The question of an approval, as the data of a wait, and the answers of people.

An approval is a wait for an event of one dataset. Answers are rows; the one that decides is
recorded in one transaction with the event that ends the wait. Only a manager records events with
this source, so an event that is posted is never an answer.
"""

from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from pubsubflow.model.wire.waits import Wait

ANSWERS = "pubsubflow://approvals/answers"
"""The dataset whose events are decided approvals."""

SOURCE = "approval"


class ApprovalSpec(Struct, frozen=True, omit_defaults=True):
    """The question of an approval.

    Attributes:
        id: A UUID.
        options: What may be answered.
        by: Who may answer: `role:operator` or above, `user:<name of a token>`.
        quorum: How many persons must choose the same option.
        form: JSON Schema of the values that go with an answer; None for none.
        defaults: Defaults of these values.
        details: For people: what they need to know to decide.
        escalated: Whether more people may answer than at first.
    """

    id: str
    title: str
    options: tuple[str, ...]
    by: tuple[str, ...]
    quorum: int = 1
    form: dict[str, Any] | None = None
    defaults: dict[str, Any] = {}
    details: str | None = None
    escalated: bool = False


class Vote(Struct, frozen=True, kw_only=True):
    """An answer of one person.

    Attributes:
        person: Name of a token, or the person that a signed link was made for.
        role: The role of the token, or of the one who made the link.
        via: `token` or `link`.
        remote: Network address.
    """

    person: str
    role: str
    option: str
    values: dict[str, Any] = {}
    comment: str | None = None
    via: str = "token"
    remote: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ApprovalSpec).decode


def approval_wait(spec: ApprovalSpec, since: float) -> Wait:
    """Return the wait for the event that ends an approval."""
    where = f'event.source == "{SOURCE}" && event.extra.approval == "{UUID(spec.id)}"'
    return Wait("event", ANSWERS, _encode(spec), spec.id, where=where, since=since)


def approval_of(wait: Wait) -> ApprovalSpec | None:
    """Return the approval that a wait is for; None for another wait."""
    return decode_approval(wait.data) if wait.kind == "event" and wait.share else None


def decode_approval(data: bytes) -> ApprovalSpec:
    """Return the question in the data of a wait."""
    return _decode(data)
