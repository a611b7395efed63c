"""JSON types of tokens and of the audit log."""

from datetime import datetime

from msgspec import Struct, field

from pubsubflow.model.auth import Role


class TokenView(Struct, frozen=True, kw_only=True):
    """A token without its secret.

    Attributes:
        datasets: Patterns of the datasets whose events an emitter may post.
        state: `live`, `expired` or `revoked`.
        created_by: The principal that created it: a token's name, or `local`.
        used_at: When it was last used, to about a minute.
    """

    id: str
    name: str
    role: Role
    datasets: tuple[str, ...]
    state: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None


class NewToken(TokenView, frozen=True, kw_only=True):
    """A token that was just created.

    Attributes:
        token: Its text, which is shown only here.
    """

    token: str


class AuditView(Struct, frozen=True, kw_only=True):
    """An entry of the audit log: a change, or a refused attempt.

    Attributes:
        principal: The token's name; `local` where none is needed, `anonymous` without a valid one.
        token: The token's id.
        remote: The client's address.
        action: Method and path, with the parameters' names in braces.
        object: The object that was changed, such as a DAG's id.
        status: HTTP status of the response; None if there was none.
        times: Number of equal attempts that this entry stands for.
    """

    id: int
    at: datetime
    principal: str = field(name="asker")  # the API's key
    token: str | None = None
    remote: str | None = None
    action: str
    object: str | None = None
    status: int | None = None
    times: int = 1
