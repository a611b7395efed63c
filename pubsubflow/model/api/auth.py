"""What admins see of tokens and of who did what."""

from datetime import datetime

from msgspec import Struct

from pubsubflow.model.auth import Role


class TokenView(Struct, frozen=True, kw_only=True):
    """A token, without its secret, which nobody knows but its holder.

    Attributes:
        datasets: Patterns of the datasets whose events an emitter may post.
        state: `live`, `expired` or `revoked`.
        created_by: The name of the token that asked for it, or `local`.
        used_at: When it was last shown, to about a minute.
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
    """A token that was just made.

    Attributes:
        token: What its holder shows; it cannot be seen again.
    """

    token: str


class AuditView(Struct, frozen=True, kw_only=True):
    """What somebody did, or was not let do.

    Attributes:
        asker: The token's name; `local` for who needs none, `nobody` for who showed no good one.
        token: The token's id.
        remote: Where from.
        action: Method and path, with the parameters' names in braces.
        object: What it was about, such as a DAG's id.
        status: HTTP status of the answer; None if it broke off.
        times: How many attempts of the same sort this stands for.
    """

    id: int
    at: datetime
    asker: str
    token: str | None = None
    remote: str | None = None
    action: str
    object: str | None = None
    status: int | None = None
    times: int = 1
