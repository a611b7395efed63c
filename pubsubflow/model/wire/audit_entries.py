"""Audit entries: who did what; some are written in the transaction that does it."""

from uuid import UUID

from msgspec import Struct


class AuditEntry(Struct, frozen=True, kw_only=True):
    """An action, performed or refused; see the attributes of `AuditView`."""

    principal: str
    action: str
    token: UUID | None = None
    remote: str | None = None
    object: str | None = None
    status: int | None = None
    times: int = 1


class AuditNote(Struct):
    """An entry that a command brings along: it is written if the command is carried out.

    Attributes:
        number: The entry's number, of the transaction that was the last to try.
    """

    entry: AuditEntry
    number: int | None = None
