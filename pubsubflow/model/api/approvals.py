"""Approvals as the API shows them."""

from datetime import datetime
from typing import Any

from msgspec import Struct


class VoteView(Struct, frozen=True, kw_only=True):
    """The answer of one person.

    Attributes:
        via: `token` or `link`.
        remote: The network address that it came from.
    """

    person: str
    option: str
    comment: str | None = None
    via: str
    remote: str | None = None
    answered_at: datetime


class ApprovalView(Struct, frozen=True, kw_only=True):
    """An approval: a question, who may answer it, and who has.

    Attributes:
        id: A UUID.
        state: `waiting` or `answered`; `over` when its task does not wait any more.
        by: Who may answer: `role:<role>` or above, `user:<name of a token>`.
        quorum: How many persons must choose the same option.
        form: JSON Schema of the values that go with an answer, if it takes some.
        answer: The option that enough persons have chosen.
        since: When its task began to wait.
    """

    id: str
    title: str
    state: str
    options: list[str]
    by: list[str]
    quorum: int = 1
    details: str | None = None
    form: dict[str, Any] | None = None
    run_id: str
    dag_id: str
    task_id: str
    map_index: int | None = None
    since: datetime | None = None
    escalated: bool = False
    answer: str | None = None
    votes: list[VoteView] = []


class SignedLink(Struct, frozen=True, kw_only=True):
    """A link by which one person answers without a token.

    Attributes:
        path: Below the server's address.
    """

    person: str
    path: str
    expires_at: datetime
